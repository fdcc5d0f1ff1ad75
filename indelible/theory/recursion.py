"""The decoupled network: one scalar recursion per feature, and its continuous limit in closed form.

With both layers diagonal in the tasks' shared singular bases, a_i the i-th singular value of each layer, s_i = a_i^2,
gradient descent on sum_i v_i (s_i - sigma_i)^2 + reg (s_i - s_i(0))^2 is, feature by feature,

    a <- a - 2 lr [v (s - sigma) + reg (s - s(0))] a   =   a (1 + 2 lr (r K - r s)),

r = v + reg, r K = v sigma + reg s(0); docs/theory.md derives it. Everything broadcasts over leading axes: a grid of
networks is trained in one call.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from indelible.theory.tasks import Array, Objective

LEARNED = 0.9  # a feature is learned when it has reached this share of its fixed point
UNLEARNED = 0.1  # and not learned while it is below this share


@dataclass(frozen=True)
class Stage:
    """The end of one stage, and what was recorded on the way."""

    a: Array  # (..., n) singular values of each layer at the end
    steps: NDArray[np.int64]  # (...) steps done by each network
    recorded_steps: NDArray[np.int64]  # (R,) steps after which values were recorded
    recorded: Array  # (R, ..., n) feature values s at those steps


def fixed_point(variance: ArrayLike, target: ArrayLike, regularisation: ArrayLike, start: ArrayLike) -> Array:
    """K: where a feature that is not exactly zero ends, (v sigma + reg s(0)) / (v + reg), or s(0) without a pull."""
    v, reg = np.asarray(variance, float), np.asarray(regularisation, float)
    pull = v * np.asarray(target, float) + reg * np.asarray(start, float)
    stiffness = v + reg
    shape = np.broadcast_shapes(pull.shape, stiffness.shape)
    still = np.broadcast_to(np.asarray(start, float), shape).copy()
    return np.divide(pull, stiffness, out=still, where=np.broadcast_to(stiffness > 0, shape))


def train(
    a: Array,
    goal: Objective,
    *,
    lr: float,
    steps: int | NDArray[np.int64] | None,
    record: Sequence[int] = (),
    stop_rank: int | None = None,
    max_steps: int = 1_000_000,
) -> Stage:
    """Gradient descent on every feature of every network by the recursion.

    Args:
        a: (..., n) singular values of each layer at the start; not changed.
        goal: variances and targets, broadcastable against `a`; the regulariser pulls towards the values at the start.
        lr: step size.
        steps: steps of each network, one number or (...); None with `stop_rank`.
        record: steps after which the feature values are kept (0 is the start).
        stop_rank: a network stops after the first step at which so many features are learned (LEARNED).
        max_steps: a network that has not reached `stop_rank` by then is stopped there; its `steps` equals this.
    """
    grid = np.broadcast_shapes(a.shape, goal.variance.shape, goal.target.shape)
    a = np.broadcast_to(a, grid).astype(float)
    s0 = a * a
    growth = np.broadcast_to(1 + 2 * lr * (goal.variance * goal.target + goal.regularisation * s0), grid).copy()
    decay = np.broadcast_to(2 * lr * (goal.variance + goal.regularisation), grid).copy()
    limits = np.broadcast_to(np.asarray(max_steps if steps is None else steps, dtype=np.int64), grid[:-1]).copy()
    enough = LEARNED * fixed_point(goal.variance, goal.target, goal.regularisation, s0)
    enough = np.where(np.broadcast_to(goal.variance > 0, grid) & (enough > 0), enough, np.inf)
    wanted, kept_steps, kept = set(record), [], []
    factor, done = np.empty(grid), np.full(grid[:-1], -1, dtype=np.int64)
    first_check = _earliest_stop(s0, enough, growth, stop_rank)
    step, running = 0, np.ones(grid[:-1], dtype=bool)
    ends = set(np.unique(limits).tolist())
    while True:
        if step in wanted:
            kept_steps.append(step)
            kept.append(a * a)
        if step in ends or (stop_rank is not None and step >= first_check):
            stopped = running & (limits <= step)
            if stop_rank is not None and step >= first_check:
                stopped |= running & ((a * a >= enough).sum(-1) >= stop_rank)
            if stopped.any():
                done[stopped] = step
                growth[stopped], decay[stopped] = 1.0, 0.0
                running &= ~stopped
        if not running.any() and not any(w > step for w in wanted):
            break
        np.multiply(a, a, out=factor)
        np.multiply(factor, decay, out=factor)
        np.subtract(growth, factor, out=factor)
        np.multiply(a, factor, out=a)
        step += 1
    recorded = np.array(kept) if kept else np.empty((0, *grid))
    return Stage(a, done, np.array(kept_steps, dtype=np.int64), recorded)


def _earliest_stop(s0: Array, enough: Array, growth: Array, stop_rank: int | None) -> int:
    """A step before which no network has `stop_rank` learned features: s grows by growth^2 a step at most."""
    if stop_rank is None or stop_rank < 1:
        return 0
    with np.errstate(divide="ignore", invalid="ignore"):
        steps = np.log(enough / s0) / (2 * np.log(growth))
    soonest = np.sort(np.where(np.isfinite(steps), steps, np.inf), axis=-1)[..., stop_rank - 1].min()
    return int(max(soonest - 1, 0)) if np.isfinite(soonest) else 0  # a step early, against round-off of the logarithms


def flow(s0: ArrayLike, goal: Objective, time: ArrayLike) -> Array:
    """Feature values after `time` of gradient flow: logistic growth, in closed form.

    ds/dt = 4 r s (K - s) gives s(t) = K s0 / (s0 + (K - s0) exp(-x)), x = 4 r K t. Written so that nothing cancels
    and K = 0 needs no case of its own: s0 / (exp(-x) + 4 r s0 t phi(x)), phi(x) = (1 - exp(-x)) / x.
    """
    s0, time = np.asarray(s0, float), np.asarray(time, float)
    r = goal.variance + goal.regularisation
    x = 4 * r * fixed_point(goal.variance, goal.target, goal.regularisation, s0) * time
    phi = np.divide(-np.expm1(-x), x, out=np.ones_like(x), where=x > 1e-12)
    decayed = np.exp(-x) + 4 * r * s0 * time * phi
    return np.divide(s0, decayed, out=np.zeros_like(decayed), where=s0 > 0)


def time_to_reach(share: float, s0: ArrayLike, goal: Objective) -> Array:
    """Time of gradient flow until a growing feature reaches `share` of its fixed point; inf if it never does, or if
    nothing above 0 is asked of it.

    For s0 = exp(-2T) and share 1/2 this is (2T + log(K)) / (4 r K) up to terms of order s0: proportional to T over the
    cross-covariance.
    """
    s0 = np.asarray(s0, float)
    r = goal.variance + goal.regularisation
    k = fixed_point(goal.variance, goal.target, goal.regularisation, s0)
    with np.errstate(divide="ignore", invalid="ignore"):
        time = np.log(share * (k - s0) / ((1 - share) * s0)) / (4 * r * k)
    asked = (k > 0) & (goal.variance > 0)
    time = np.where(asked & (s0 > 0), time, np.inf)
    return np.where(asked & (s0 >= share * k), 0.0, time)
