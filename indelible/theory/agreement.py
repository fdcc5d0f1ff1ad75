"""Do the three solvers agree? Full matrices against the recursion, and the recursion against the closed form."""

import time
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from indelible.theory import linear, recursion
from indelible.theory.stages import run_chain, run_full_chain
from indelible.theory.tasks import ARMS, Array, TheorySpec, objective

VISIBLE = (
    1e-6  # features below this are compared absolutely: the full solver reads them through round-off of the others
)


@dataclass(frozen=True)
class Agreement:
    """Measured differences between solvers, and their speeds."""

    full_relative: (
        float  # largest relative difference, full against recursion, of values above VISIBLE, all stages and arms
    )
    full_absolute: float  # largest absolute difference of the values below VISIBLE
    full_losses: float  # largest relative difference of L_im and L_ret
    flow_errors: tuple[float, ...]  # largest relative difference, recursion against closed form, at lr, lr/2, lr/4, ...
    flow_extrapolated: float  # the same after Richardson extrapolation of those to lr = 0
    full_seconds: float  # pretraining of one network, full matrices
    recursion_seconds: float  # the same, per network of a grid, by the recursion
    flow_seconds: float  # the same, per network of a grid, by the closed form


def compare_full(spec: TheorySpec) -> tuple[float, float, float]:
    """(relative, absolute, losses) differences of full matrices and recursion over both arms and all three stages."""
    relative, absolute, losses = 0.0, 0.0, 0.0
    for arm in ARMS:
        fast, full = run_chain(spec, arm), run_full_chain(spec, arm)
        for one, other in zip(fast.values, full.values, strict=True):
            difference = np.abs(one - other)
            visible = one > VISIBLE
            relative = max(relative, float((difference[visible] / one[visible]).max(initial=0.0)))
            absolute = max(absolute, float(difference[~visible].max(initial=0.0)))
        for name in ("L_im", "L_ret"):
            one_loss, other_loss = float(getattr(fast.losses, name)), float(getattr(full.losses, name))
            losses = max(losses, abs(one_loss - other_loss) / one_loss)
    return relative, absolute, losses


def compare_flow(spec: TheorySpec, levels: int = 7) -> tuple[tuple[float, ...], float]:
    """Relative errors of the recursion at lr, lr/2, ... against the flow, and of their Richardson extrapolation.

    Compared after the mixed run's pretraining time, on log s. Euler's method has an error series in powers of lr, so
    each halving halves the error, and eliminating the powers one by one must lead to the closed form.
    """
    goal = objective(spec, "pretrain", "mixed")
    steps = run_chain(spec, "mixed").steps[0]
    begin = np.full(spec.n, np.exp(-spec.T))
    exact = np.log(recursion.flow(begin**2, goal, steps * spec.lr))
    table: list[Array] = []
    for level in range(levels):
        run = recursion.train(begin, goal, lr=spec.lr / 2**level, steps=steps * 2**level)
        table.append(2 * np.log(run.a))
    errors = tuple(float(np.abs(np.expm1(row - exact)).max()) for row in table)
    for order in range(1, levels):
        table = [(2**order * fine - coarse) / (2**order - 1) for coarse, fine in pairwise(table)]
    return errors, float(np.abs(np.expm1(table[0] - exact)).max())


def measure(spec: TheorySpec, grid_size: int = 1000) -> Agreement:
    """All comparisons on one spec, and wall-clock seconds of pretraining per network by the three solvers, here."""
    relative, absolute, losses = compare_full(spec)
    errors, extrapolated = compare_flow(spec)
    steps = run_chain(spec, "mixed").steps[0]
    goal, begin = objective(spec, "pretrain", "mixed"), np.full((grid_size, spec.n), np.exp(-spec.T))
    layers, data = linear.initial_layers(spec), linear.sources(spec, "pretrain", "mixed")
    seconds = []
    for work, networks in (
        (lambda: linear.train(layers, data, lr=spec.lr, steps=steps), 1),
        (lambda: recursion.train(begin, goal, lr=spec.lr, steps=steps), grid_size),
        (lambda: recursion.flow(begin**2, goal, steps * spec.lr), grid_size),
    ):
        start = time.perf_counter()
        work()
        seconds.append((time.perf_counter() - start) / networks)
    return Agreement(relative, absolute, losses, errors, extrapolated, *seconds)
