"""Do the three solvers agree? Full matrices against the recursion, the recursion against the closed form, the maps
against full matrices."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from indelible.theory import linear, maps, recursion
from indelible.theory.maps import Row
from indelible.theory.tasks import ARMS, Array, TheorySpec, named_rng, objective
from indelible.theory.training import run_chain, run_full_chain

# Features below this are compared absolutely: the full solver reads them through round-off of the others.
VISIBLE = 1e-6


@dataclass(frozen=True)
class Agreement:
    """Measured differences between solvers, and their speeds."""

    full_relative: float  # full against recursion, the largest of values above VISIBLE, all stages and both arms
    full_absolute: float  # largest absolute difference of the values below VISIBLE
    full_losses: float  # largest relative difference of L_im and L_ret
    flow_errors: tuple[float, ...]  # largest relative difference, recursion and closed form, at lr, lr/2, ...
    flow_extrapolated: float  # the same after Richardson extrapolation of those to lr = 0
    full_seconds: float  # processor time of pretraining one network, full matrices
    recursion_seconds: float  # the same, per network of a grid, by the recursion
    flow_seconds: float  # the same, per network of a grid, by the closed form


@dataclass(frozen=True)
class MapErrors:
    """Largest errors of the maps at randomly chosen cells, all relative to L_ret (of the unmixed run, for a gain)."""

    alpha_beta: float  # L_ret gain over alpha and beta, against full matrices
    times: float  # L_ret gain over the two lengths, against full matrices
    allocation_at_lr: float  # L_ret of matched allocation by the closed form, against full matrices at the map's lr
    allocation_limit: float  # the same against descent extrapolated to lr = 0, the limit that the map shows


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
    return errors, float(np.abs(np.expm1(extrapolated(table) - exact)).max())


def extrapolated(table: Sequence[Array]) -> Array:
    """Richardson's extrapolation to step 0 of values at steps lr, lr/2, lr/4, ..."""
    for order in range(1, len(table)):
        table = [(2**order * fine - coarse) / (2**order - 1) for coarse, fine in pairwise(table)]
    return table[0]


def gain_error(rows: Sequence[Row], spec_of: Callable[[Row], TheorySpec], seed: int, cells: int = 8) -> float:
    """Largest difference of a map's L_ret gain from full gradient descent, relative to the unmixed run's L_ret.

    Args:
        rows: the map.
        spec_of: the spec of a cell.
        seed: of the choice of cells.
        cells: how many to compare.
    """
    worst = 0.0
    for i in named_rng(seed, "map cells").choice(len(rows), size=min(cells, len(rows)), replace=False):
        one = spec_of(rows[i])
        full = {arm: float(run_full_chain(one, arm).losses.L_ret) for arm in ARMS}
        gain = full["unmixed"] - full["mixed"]
        worst = max(worst, abs(gain - float(rows[i]["gain_ret"])) / full["unmixed"])
    return worst


def alpha_beta_error(spec: TheorySpec, rows: Sequence[Row], cells: int = 8) -> float:
    """`gain_error` of a map over alpha and beta."""
    return gain_error(
        rows, lambda row: spec.replace(alpha=float(row["alpha"]), beta=(float(row["beta"]),)), spec.seed, cells
    )


def times_error(spec: TheorySpec, rows: Sequence[Row], cells: int = 8) -> float:
    """`gain_error` of a map over the lengths of pretraining and post-training."""

    def spec_of(row: Row) -> TheorySpec:
        pre, post = (round(float(row[name]) / spec.lr) for name in ("pretrain_time", "posttrain_time"))
        return spec.replace(pretrain_steps=pre, posttrain_steps=post)

    return gain_error(rows, spec_of, spec.seed, cells)


def allocation_errors(
    spec: TheorySpec, budgets: Array, times: Array, cells: int = 6, levels: int = 5
) -> tuple[float, float]:
    """(at lr, in the limit): L_ret of matched allocation by the flow, against full matrices and extrapolated descent.

    Cells are random fractions, budgets and fine-tuning times. The first error is first order in lr: what a finite step
    adds. Descent is extrapolated by the recursion, which is the full solver's equal.
    """
    rng = named_rng(spec.seed, "allocation cells")
    at_lr, limit = 0.0, 0.0
    for _ in range(cells):
        base = spec.replace(finetune_steps=round(float(rng.choice(times)) / spec.lr))
        one = maps.allocation_specs(base, np.array([rng.uniform()]), float(rng.choice(budgets)))[0]
        flow = float(maps.flow_grid([one], "mixed").losses.L_ret[0])
        at_lr = max(at_lr, abs(float(run_full_chain(one, "mixed").losses.L_ret) / flow - 1))
        finer = [np.asarray(run_chain(one.finer(2**level), "mixed").losses.L_ret) for level in range(levels)]
        limit = max(limit, abs(float(extrapolated(finer)) / flow - 1))
    return at_lr, limit


def measure(spec: TheorySpec, grid_size: int = 1000) -> Agreement:
    """All comparisons on one spec, and processor seconds of pretraining per network by the three solvers, here."""
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
        start = time.process_time()
        work()
        seconds.append((time.process_time() - start) / networks)
    return Agreement(relative, absolute, losses, errors, extrapolated, *seconds)
