"""Beyond the text: where the theorem's conclusion holds, over mixing, time, overlap, allocation, and finite samples.

Every map is a list of specs run at once by the recursion; rows are flat dictionaries, ready for CSV and for charts.
"gain" is always unmixed minus mixed: positive when early exposure helped.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from indelible.theory import recursion
from indelible.theory.tasks import STAGES, Array, Objective, TheorySpec, objective, task
from indelible.theory.training import Losses, feature_loss, rank_steps, run_full_chain

Row = dict[str, float | int | str]


@dataclass(frozen=True)
class Grid:
    """One arm of G networks."""

    values: tuple[Array, Array, Array]  # (G, n) each, after each stage
    steps: NDArray[np.int64]  # (G,) of pretraining
    losses: Losses  # (G,) each


def run_grid(specs: Sequence[TheorySpec], arm: str, max_steps: int = 20_000) -> Grid:
    """The three stages of many specs at once; they share n, k, T and lr, and may differ in everything else.

    A rank stop that is not reached within `max_steps` ends pretraining there.
    """
    first = specs[0]
    assert all((s.n, s.k, s.T, s.lr) == (first.n, first.k, first.T, first.lr) for s in specs), "a grid shares its frame"
    a = np.full((len(specs), first.n), np.exp(-first.T))
    ends: list[Array] = []
    pretrained = np.zeros(len(specs), dtype=np.int64)
    for stage in STAGES:
        goal = _stack([objective(spec, stage, arm) for spec in specs])
        fixed = [getattr(spec, f"{stage}_steps") for spec in specs]
        by_rank = np.array([steps is None for steps in fixed])
        steps = np.array([max_steps if s is None else s for s in fixed], dtype=np.int64)
        end = np.empty_like(a)
        for choice, rank in ((by_rank, first.n - first.k), (~by_rank, None)):
            if choice.any():
                part = Objective(goal.variance[choice], goal.target[choice], np.asarray(goal.regularisation)[choice])
                done = recursion.train(a[choice], part, lr=first.lr, steps=steps[choice], stop_rank=rank)
                end[choice] = done.a
                if stage == "pretrain":
                    pretrained[choice] = done.steps
        a = end
        ends.append(a * a)
    return Grid((ends[0], ends[1], ends[2]), pretrained, _grid_losses(specs, ends))


def flow_grid(specs: Sequence[TheorySpec], arm: str) -> Grid:
    """The same by the closed form of the gradient flow, the limit of ever smaller steps; no stop at a rank."""
    values = np.full((len(specs), specs[0].n), specs[0].start)
    ends: list[Array] = []
    for stage in STAGES:
        goal = _stack([objective(spec, stage, arm) for spec in specs])
        time = np.array([[getattr(spec, f"{stage}_steps") * spec.lr] for spec in specs])
        values = recursion.flow(values, goal, time)
        ends.append(values)
    steps = np.array([spec.pretrain_steps for spec in specs], dtype=np.int64)
    return Grid((ends[0], ends[1], ends[2]), steps, _grid_losses(specs, ends))


def _grid_losses(specs: Sequence[TheorySpec], ends: Sequence[Array]) -> Losses:
    d_pre, d_post, d_ft = (_stack([task(spec, name) for spec in specs]) for name in ("pre", "post", "ft"))
    post, ft = ends[1], ends[2]
    return Losses(feature_loss(post, d_post), feature_loss(ft, d_post), feature_loss(ft, d_ft), feature_loss(ft, d_pre))


def _stack(goals: Sequence[Objective]) -> Objective:
    """(G, n) variances and targets; the regulariser as (G, 1)."""
    reg = np.array([[goal.regularisation] for goal in goals])
    return Objective(np.array([g.variance for g in goals]), np.array([g.target for g in goals]), reg)


def _gains(unmixed: Losses, mixed: Losses, i: int, j: int) -> Row:
    return {
        "gain_im": float(unmixed.L_im[i] - mixed.L_im[j]),
        "gain_ret": float(unmixed.L_ret[i] - mixed.L_ret[j]),
        "gain_delta": float(unmixed.delta[i] - mixed.delta[j]),
    }


def map_alpha_beta(spec: TheorySpec, alphas: Array, betas: Array) -> list[Row]:
    """Gains over (alpha, beta), each arm stopped at rank n - k, with the margin of the order condition."""
    specs = [spec.replace(alpha=float(x), beta=(float(b),)) for x in alphas for b in betas]
    mixed = run_grid(specs, "mixed")
    unmixed = run_grid([spec.replace(beta=(float(b),)) for b in betas], "unmixed")  # it does not depend on alpha
    inc = float(spec.values("sigma_pre").max()), float(spec.values("sigma_post").max())
    rows: list[Row] = []
    for g, one in enumerate(specs):
        blend = (1 - one.alpha) * inc[0] + one.alpha * inc[1]
        row: Row = {"alpha": one.alpha, "beta": one.beta[0]}
        row |= {"order_margin": one.alpha * spec.post_variance * one.beta[0] - blend}
        rows.append(row | _gains(unmixed.losses, mixed.losses, g % len(betas), g))
    return rows


def map_times(spec: TheorySpec, pretrain_times: Array, posttrain_times: Array) -> list[Row]:
    """Gains over the lengths of pretraining and post-training, the same for both arms: no stop at a rank."""
    pre = np.unique(np.round(pretrain_times / spec.lr).astype(int))
    post = np.unique(np.round(posttrain_times / spec.lr).astype(int))
    specs = [spec.replace(pretrain_steps=int(p), posttrain_steps=int(q)) for p in pre for q in post]
    unmixed, mixed = run_grid(specs, "unmixed"), run_grid(specs, "mixed")
    rows: list[Row] = []
    for g, one in enumerate(specs):
        row: Row = {
            "pretrain_time": (one.pretrain_steps or 0) * spec.lr,
            "posttrain_time": one.posttrain_steps * spec.lr,
        }
        rows.append(row | _gains(unmixed.losses, mixed.losses, g, g))
    return rows


def arm_curves(specs: Sequence[TheorySpec], axis: str, points: Sequence[float]) -> list[Row]:
    """The losses of both arms along one axis: one row per spec and arm; `points` are the axis' values."""
    rows: list[Row] = []
    for arm in ("unmixed", "mixed"):
        grid = run_grid(specs, arm)
        for g, point in enumerate(points):
            row: Row = {axis: float(point), "arm": arm}
            row |= {name: float(getattr(grid.losses, name)[g]) for name in ("L_im", "L_ret", "L_ft", "L_pre", "delta")}
            rows.append(row)
    return rows


def curve_posttrain(spec: TheorySpec, times: Array) -> list[Row]:
    """Both arms over post-training time, pretraining stopped at rank n - k."""
    specs = [spec.replace(posttrain_steps=round(t / spec.lr)) for t in times]
    return arm_curves(specs, "posttrain_time", [s.posttrain_steps * spec.lr for s in specs])


def curve_overlap(spec: TheorySpec, overlaps: Array) -> list[Row]:
    """Both arms over D_ft's input variance on the specialised directions, with D_ft asking for 0 there or for beta."""
    rows: list[Row] = []
    for asks, target in (("0", 0.0), ("beta", float(spec.values("beta").mean()))):
        specs = [spec.replace(overlap=float(w), overlap_target=target) for w in overlaps]
        rows += [{"ft_target": asks, **row} for row in arm_curves(specs, "overlap", overlaps.tolist())]
    return rows


def allocation_specs(spec: TheorySpec, fractions: Array, budget: float) -> list[TheorySpec]:
    """Compute-matched allocation: `budget` time units of D_post, a fraction of them in pretraining, the rest after it.

    Pretraining has the unmixed run's time on D_pre plus fraction x budget on D_post, interleaved; post-training has the
    other (1 - fraction) x budget. One step is lr time units, so the total is the same for every fraction.
    """
    base = spec.pretrain_steps if spec.pretrain_steps is not None else rank_steps(spec, "unmixed")
    total = round(budget / spec.lr)
    out = []
    for fraction in fractions:
        early = round(float(fraction) * total)
        share = early / (base + early) if early else 0.0
        out.append(spec.replace(alpha=share, pretrain_steps=base + early, posttrain_steps=total - early))
    return out


def curve_allocation(spec: TheorySpec, fractions: Array, budget: float) -> list[Row]:
    """L_im and L_ret over the exposed fraction, at one budget, by the flow.

    The flow, because descent adds an artefact of the step size here: D_post spread thinly over pretraining is D_post in
    smaller steps, which grow a small feature a little more (log(1 + x) < x).
    """
    grid = flow_grid(allocation_specs(spec, fractions, budget), "mixed")
    rows: list[Row] = []
    for g, fraction in enumerate(fractions):
        row: Row = {"fraction": float(fraction), "budget": budget, "regularisation": spec.regularisation}
        row |= {"finetune_time": spec.finetune_steps * spec.lr}
        rows.append(row | {"L_im": float(grid.losses.L_im[g]), "L_ret": float(grid.losses.L_ret[g])})
    return rows


def map_allocation(spec: TheorySpec, fractions: Array, budgets: Array, finetune_times: Array) -> list[Row]:
    """The fraction of lowest L_ret over (budget, fine-tuning time) and its gain over 0 and 1; by the flow."""
    specs = [one for budget in budgets for one in allocation_specs(spec, fractions, float(budget))]
    handed_over = flow_grid(specs, "mixed").values[1]
    steps = np.round(finetune_times / spec.lr)  # whole ones, as everywhere
    ends = recursion.flow(handed_over, objective(spec, "finetune", "mixed"), (steps * spec.lr)[:, None, None])
    ret = feature_loss(ends, task(spec, "post")).reshape(len(finetune_times), len(budgets), len(fractions))
    keys = [(float(budget), float(time)) for budget in budgets for time in finetune_times]
    by_key = ret.swapaxes(0, 1).reshape(len(keys), len(fractions))
    rows: list[Row] = []
    for (budget, time), losses in zip(keys, by_key, strict=True):
        row: Row = {"budget": budget, "finetune_time": time, "best_fraction": best_fraction(fractions, losses)}
        row |= {"L_ret": float(losses.min()), "spread": float(np.ptp(losses))}
        rows.append(
            row | {"gain_over_0": float(losses[0] - losses.min()), "gain_over_1": float(losses[-1] - losses.min())}
        )
    return rows


def best_fraction(fractions: Array, losses: Array, tolerance: float = 1e-4) -> float:
    """The fraction of lowest loss; an end, 0 or 1, if it is as good within `tolerance` of the loss; nan if both are."""
    good = losses <= losses.min() * (1 + tolerance)
    if good[0] and good[-1]:
        return float("nan")
    if good[0] or good[-1]:
        return float(fractions[0] if good[0] else fractions[-1])
    return float(fractions[losses.argmin()])


def curve_samples(spec: TheorySpec, counts: Sequence[int], seeds: Sequence[int]) -> list[Row]:
    """Both arms by full gradient descent on finite samples, over their number; one row per arm, number and seed."""
    rows: list[Row] = []
    for count in counts:
        for seed in seeds:
            for arm in ("unmixed", "mixed"):
                chain = run_full_chain(spec.replace(seed=seed), arm, num_samples=count)
                row: Row = {"num_samples": count, "seed": seed, "arm": arm, "off_diagonal": chain.off_diagonal}
                row |= {"L_im": float(chain.losses.L_im), "L_ret": float(chain.losses.L_ret)}
                rows.append(row | {"delta": float(chain.losses.delta)})
    return rows
