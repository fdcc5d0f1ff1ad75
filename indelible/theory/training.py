"""The three stages in a row and the paper's four losses, with either solver."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from indelible.errors import UserError
from indelible.theory import linear, recursion
from indelible.theory.tasks import STAGES, Array, Objective, TheorySpec, named_rng, objective, task


@dataclass(frozen=True)
class Losses:
    """Population losses; each a number, or an array over a grid of networks."""

    L_im: Array  # theta_post on D_post
    L_ret: Array  # theta_ft on D_post
    L_ft: Array  # theta_ft on D_ft
    L_pre: Array  # theta_ft on D_pre

    @property
    def delta(self) -> Array:
        """Delta of theorem 5.3: L_ret - L_im, what fine-tuning destroyed."""
        return self.L_ret - self.L_im


@dataclass(frozen=True)
class Chain:
    """One arm's way through the three stages."""

    arm: str
    steps: tuple[int, int, int]  # of each stage
    values: tuple[Array, Array, Array]  # (n,) feature values after each stage
    losses: Losses
    off_diagonal: float  # largest entry of U' theta V off the diagonal at the end; 0 for the recursion
    layers: tuple[linear.Layers, ...]  # the weights after each stage; empty for the recursion
    time: Array  # (R,) lr x steps since the beginning; empty unless recorded
    stage_of: NDArray[np.int64]  # (R,) index into STAGES
    path: Array  # (R, n) feature values at `time`


def feature_loss(values: Array, goal: Objective) -> Array:
    """sum_i v_i (s_i - sigma_i)^2 over the last axis."""
    return (goal.variance * (values - goal.target) ** 2).sum(-1)


def four_losses(spec: TheorySpec, post: Array, ft: Array) -> Losses:
    """The losses from feature values (..., n) after post-training and after fine-tuning."""
    d_pre, d_post, d_ft = (task(spec, name) for name in ("pre", "post", "ft"))
    return Losses(feature_loss(post, d_post), feature_loss(ft, d_post), feature_loss(ft, d_ft), feature_loss(ft, d_pre))


def rank_steps(spec: TheorySpec, arm: str) -> int:
    """Steps after which n - k features are learned in pretraining.

    Raises:
        UserError: they never are, because too few features have any cross-covariance, or not within a million steps.
    """
    goal = objective(spec, "pretrain", arm)
    times = np.sort(recursion.time_to_reach(recursion.LEARNED, spec.start, goal))
    expected = times[spec.n - spec.k - 1] / spec.lr
    if not expected < 500_000:
        found = "never" if np.isinf(expected) else f"after about {expected:.3g} steps"
        raise UserError(
            f"pretrain_steps = rank: the {arm} run learns n - k = {spec.n - spec.k} features {found}; the rule is "
            f"within 500000 steps. Raise sigma_pre or lr, lower T, or set pretrain_steps to a number."
        )
    begin = np.full(spec.n, np.exp(-spec.T))
    stage = recursion.train(begin, goal, lr=spec.lr, steps=None, stop_rank=spec.n - spec.k)
    return int(stage.steps)


def stage_steps(spec: TheorySpec, arm: str) -> tuple[int, int, int]:
    """Steps of the three stages, with the rank rule resolved."""
    first = rank_steps(spec, arm) if spec.pretrain_steps is None else spec.pretrain_steps
    return first, spec.posttrain_steps, spec.finetune_steps


def run_chain(spec: TheorySpec, arm: str, *, points_per_stage: int = 0) -> Chain:
    """Pretraining, post-training and fine-tuning of one arm by the recursion.

    Args:
        spec: the instance.
        arm: `mixed` or `unmixed`.
        points_per_stage: how many moments of each stage to record, in even steps; 0 for none.
    """
    steps = stage_steps(spec, arm)
    a = np.full(spec.n, np.exp(-spec.T))
    ends: list[Array] = []
    times, owners, paths = [], [], []
    before = 0
    for index, (stage, count) in enumerate(zip(STAGES, steps, strict=True)):
        marks = np.unique(np.linspace(0, count, points_per_stage).round().astype(int)) if points_per_stage else ()
        done = recursion.train(a, objective(spec, stage, arm), lr=spec.lr, steps=count, record=[int(m) for m in marks])
        a = done.a
        ends.append(a * a)
        times.append((before + done.recorded_steps) * spec.lr)
        owners.append(np.full(len(done.recorded_steps), index))
        paths.append(done.recorded)
        before += count
    losses = four_losses(spec, ends[1], ends[2])
    time, stage_of, path = np.concatenate(times), np.concatenate(owners), np.concatenate(paths)
    return Chain(arm, steps, (ends[0], ends[1], ends[2]), losses, 0.0, (), time, stage_of, path)


def run_full_chain(
    spec: TheorySpec,
    arm: str,
    *,
    start: str = "aligned",
    num_samples: int | None = None,
    batch_size: int | None = None,
) -> Chain:
    """The same three stages by full matrix gradient descent; losses are always the population's.

    Args:
        spec: the instance; a rank stop is resolved by the recursion, so both solvers take the same steps.
        arm: `mixed` or `unmixed`.
        start: `aligned` or `identity`, see `linear.initial_layers`.
        num_samples: samples of each data set of each stage; None for the population.
        batch_size: samples per step; None for all.

    Raises:
        UserError: minibatches were asked for without samples.
    """
    if batch_size is not None and num_samples is None:
        raise UserError(f"batch_size = {batch_size} needs num_samples: a population has no minibatches; set both.")
    steps = stage_steps(spec, arm)
    layers = linear.initial_layers(spec, start)
    kept: list[linear.Layers] = []
    for stage, count in zip(STAGES, steps, strict=True):
        layers = linear.train(
            layers,
            linear.sources(spec, stage, arm, num_samples),
            lr=spec.lr,
            steps=count,
            regularisation=spec.regularisation if stage == "posttrain" else 0.0,
            batch_size=batch_size,
            rng=named_rng(spec.seed, f"batches {stage} {arm}"),
        )
        kept.append(layers)
    thetas = [done.theta for done in kept]
    ends = [linear.modes(spec, theta)[0] for theta in thetas]
    d_pre, d_post, d_ft = (linear.sources(spec, stage, "unmixed")[0] for stage in STAGES)
    measured = [linear.loss(thetas[1], d_post), linear.loss(thetas[2], d_post)]
    measured += [linear.loss(thetas[2], d_ft), linear.loss(thetas[2], d_pre)]
    losses = Losses(*(np.asarray(value) for value in measured))
    empty = np.empty(0)
    return Chain(
        arm,
        steps,
        (ends[0], ends[1], ends[2]),
        losses,
        linear.modes(spec, thetas[2])[1],
        tuple(kept),
        empty,
        empty.astype(int),
        np.empty((0, spec.n)),
    )
