"""Compares two arms in a results table: at equal settings, at equal L_ft, and at equal L_im."""

import math
from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import ArrayLike, NDArray

from indelible.results.columns import setting_columns, varying
from indelible.statistics.divergence import BEFORE_LAST_STAGE, is_worst, with_worst
from indelible.statistics.inference import POWER, Inference, Paired, paired
from indelible.statistics.planning import NewSeeds, new_seeds

DEFAULT = Inference()
NUM_LEVELS = 33  # equally spaced losses at which two curves are compared


@dataclass(frozen=True)
class Comparison:
    """Second arm against first."""

    result: Paired
    num_blocks: int  # settings (or curves) compared, the same for every seed
    num_left_out: int  # settings that not every seed has in both arms, or curves without a common range
    num_seeds_left_out: int  # seeds with pairs, but of too few settings to be compared with the others
    finetune_ids: tuple[str, ...]  # the chains behind it, by their last run
    num_diverged: int  # chains among them that diverged: they count as the worst loss
    is_same_runs: bool  # both arms are the same stage runs: there is nothing to compare

    def new_seeds(self, power: float = POWER) -> NewSeeds | None:
        """How many more seeds would tell an effect of the size found; None with one seed."""
        result = self.result
        if result.effect is None or result.sd is None:
            return None
        return new_seeds(abs(result.effect), result.sd, result.n, result.level, power)


def compare_at_equal_settings(
    table: pl.DataFrame,
    first: pl.Expr,
    second: pl.Expr,
    loss: str,
    treatment: Sequence[str],
    inference: Inference = DEFAULT,
) -> Comparison:
    """Second minus first in ``loss``, at equal settings and seed, averaged over settings within each seed.

    Where a table has seeds of single stages (columns ``<stage>_seed``), they are averaged within ``seed``, too.

    Args:
        table: results table; finished chains count, and diverged ones as the worst loss.
        first: which rows are the first arm.
        second: which rows are the second arm.
        treatment: the setting columns in which the arms differ; all others are held equal.
        inference: level, and the worst loss.
    """
    block = [name for name in setting_columns(table) if name not in treatment and not name.endswith("_seed")]
    block = varying(table, block)
    run = run_column(table, loss)
    needed = list(dict.fromkeys([*block, "seed", loss, "finetune_id", run, "status"]))
    keys = [*block, "seed"]
    sides = []
    for side, arm in (("first", first), ("second", second)):
        own = table.filter(arm).select(needed).with_columns(_worst=is_worst(loss, inference.worst_loss))
        done = with_worst(own, [loss], inference.worst_loss).drop_nulls(loss)
        sides.append(done.group_by(keys, maintain_order=True).agg(
            pl.col(loss).mean().alias(side), pl.col("finetune_id").alias(f"{side}_ids"),
            pl.col(run).unique().sort().alias(f"{side}_runs"),
            pl.col("_worst").sum().alias(f"{side}_diverged")))  # fmt: skip
    joined = sides[0].join(sides[1], on=keys, how="inner", nulls_equal=True, maintain_order="left")
    joined = joined.with_columns(block=pl.struct(block).rank("dense") if block else pl.lit(1))
    blocks_by_seed: dict[int, set[int]] = {}
    for seed, number in joined.select("seed", "block").rows():
        blocks_by_seed.setdefault(seed, set()).add(number)
    seeds, blocks = complete_part(blocks_by_seed)
    kept = joined.filter(pl.col("seed").is_in(seeds), pl.col("block").is_in(list(blocks)))
    differences: dict[int, list[float]] = {seed: [] for seed in seeds}
    for seed, one, two in kept.select("seed", "first", "second").rows():
        differences[seed].append(two - one)
    ids = [run_id for side in ("first", "second") for run_id in kept[f"{side}_ids"].explode().to_list()]
    all_blocks = pl.concat([side.select(block) for side in sides]).unique().height if block else len(blocks)
    return Comparison(
        result=paired({seed: _mean(values) for seed, values in differences.items()}, inference.level, inference.power),
        num_blocks=len(blocks),
        num_left_out=all_blocks - len(blocks),
        num_seeds_left_out=len(blocks_by_seed) - len(seeds),
        finetune_ids=tuple(dict.fromkeys(ids)),
        num_diverged=sum(kept["first_diverged"].to_list()) + sum(kept["second_diverged"].to_list()),
        is_same_runs=kept.height > 0 and bool((kept["first_runs"] == kept["second_runs"]).all()),
    )


def compare_at_equal_loss(
    table: pl.DataFrame,
    first: pl.Expr,
    second: pl.Expr,
    treatment: Sequence[str],
    *,
    equal: str,
    loss: str,
    axis: str,
    inference: Inference = DEFAULT,
) -> Comparison:
    """Second minus first in ``loss`` where both arms have the same loss ``equal``.

    For each seed and setting the chains along ``axis`` make a curve (``equal``, ``loss``), straight between
    neighbours. The two curves are read at 33 equally spaced values of ``equal`` in the range that both cover, and
    nowhere else: nothing is extrapolated. Where a curve passes a value twice, its lower branch is used: what one who
    chooses the setting gets. A curve with a diverged chain counts as the worst loss throughout, against the lowest
    loss of the other curve; two such curves do not differ.

    Args:
        equal: the loss that is held equal: ``L_ft`` (axis ``finetune_lr``) or ``L_im`` (axis of stage 2).
        axis: the setting that moves along a curve, e.g. ``finetune_lr``.
        inference: level, and the worst loss.
    """
    block = [name for name in setting_columns(table) if name not in (*treatment, axis) and not name.endswith("_seed")]
    done = with_worst(table, [equal, loss], inference.worst_loss).drop_nulls([equal, loss])
    curves = [_curves(rows, [*block, "seed"], equal, loss, axis) for rows in (done.filter(first), done.filter(second))]
    differences: dict[tuple[object, ...], dict[int, float]] = {}
    for key in (key for key in curves[0] if key in curves[1]):
        difference = _curve_difference(curves[0][key], curves[1][key], inference.worst_loss)
        if difference is not None:
            differences.setdefault(key[:-1], {})[int(key[-1])] = difference  # type: ignore[call-overload]
    asked = {key[:-1] for side in curves for key in side}
    curves_by_seed: dict[int, set[tuple[object, ...]]] = {}
    for key, values in differences.items():
        for seed in values:
            curves_by_seed.setdefault(seed, set()).add(key)
    seeds, found = complete_part(curves_by_seed)
    whole = [key for key in differences if key in found]
    by_seed = {seed: _mean([differences[key][seed] for key in whole]) for seed in seeds}
    used = [side[*key, seed] for key in whole for seed in seeds for side in curves]
    return Comparison(
        result=paired(by_seed, inference.level, inference.power),
        num_blocks=len(whole),
        num_left_out=len(asked) - len(whole),
        num_seeds_left_out=len(curves_by_seed) - len(seeds),
        finetune_ids=tuple(sorted({run_id for curve in used for run_id in curve.finetune_ids})),
        num_diverged=sum(curve.num_diverged for curve in used),
        is_same_runs=False,
    )


@dataclass(frozen=True)
class _Curve:
    """The chains of one arm, setting and seed along an axis."""

    points: NDArray[np.float64]  # (N, 2): the loss held equal, the loss compared
    finetune_ids: list[str]
    num_diverged: int


def _curves(rows: pl.DataFrame, keys: list[str], equal: str, loss: str, axis: str) -> dict[tuple[object, ...], _Curve]:
    """By setting and seed, those with two values of the axis or more.

    Chains that differ in the seeds of single stages alone are one point, their mean: a curve through each of them would
    have a lower branch that is the lower the more there are.
    """
    is_diverged = (pl.col("status") == "diverged").sum()
    points = rows.sort(axis, maintain_order=True).group_by([*keys, axis], maintain_order=True).agg(
        pl.col(equal).mean().alias("_x"), pl.col(loss).mean().alias("_y"), pl.col("finetune_id").alias("_ids"),
        is_diverged.alias("_diverged"))  # fmt: skip
    groups = points.group_by(keys, maintain_order=True).agg(
        "_x", "_y", pl.col("_ids").list.explode(keep_nulls=False, empty_as_null=False), pl.col("_diverged").sum()
    )
    found = {}
    for *key, x, y, ids, diverged in groups.rows():
        if len(x) >= 2:
            found[tuple(key)] = _Curve(np.column_stack([x, y]), ids, diverged)
    return found


def _curve_difference(one: _Curve, two: _Curve, worst_loss: float) -> float | None:
    """Second minus first; a curve with a diverged chain is the worst everywhere, so that it can only lose by it."""
    if one.num_diverged and two.num_diverged:
        return 0.0
    if one.num_diverged:
        return float(two.points[:, 1].min()) - worst_loss
    if two.num_diverged:
        return worst_loss - float(one.points[:, 1].min())
    return curve_gap(one.points, two.points)


def run_column(table: pl.DataFrame, loss: str) -> str:
    """The column with the id of the run that ``loss`` was measured after."""
    return "posttrain_id" if loss in BEFORE_LAST_STAGE and "posttrain_id" in table.columns else "finetune_id"


def complete_part(blocks_by_seed: Mapping[int, AbstractSet[Any]]) -> tuple[list[int], set[Any]]:
    """The seeds and blocks (settings) to compare, such that every seed has every block.

    A seed counts once it has half as many blocks as the fullest one: a seed that has just begun does not cost the
    others their settings. Only what is finished decides, never a loss.

    Returns:
        seeds in rising order, and the blocks that all of them have.
    """
    order = sorted(blocks_by_seed, key=lambda seed: (-len(blocks_by_seed[seed]), seed))
    seeds: list[int] = []
    common: set[Any] = set()
    for seed in order:
        blocks = blocks_by_seed[seed]
        shared = common & blocks if seeds else set(blocks)
        if shared and 2 * len(blocks) >= len(blocks_by_seed[order[0]]):
            seeds, common = [*seeds, seed], shared
    return sorted(seeds), common


def _mean(values: Sequence[float]) -> float:
    """The same bits in whatever order the values, hence the table's rows, come."""
    return math.fsum(values) / len(values)


def curve_gap(first: ArrayLike, second: ArrayLike, num_levels: int = NUM_LEVELS) -> float | None:
    """The mean of second minus first over the x range that both curves cover; None when there is none.

    Args:
        first: (N, 2), in the order of the setting that moves along the curve.
        second: (M, 2), likewise.
    """
    one, two = np.asarray(first, dtype=np.float64), np.asarray(second, dtype=np.float64)
    low = max(one[:, 0].min(), two[:, 0].min())
    high = min(one[:, 0].max(), two[:, 0].max())
    if not low < high:
        return None
    levels = np.linspace(low, high, num_levels)
    return float((lower_branch(two, levels) - lower_branch(one, levels)).mean())


def lower_branch(curve: ArrayLike, levels: ArrayLike) -> NDArray[np.float64]:
    """The lowest y at which the polyline ``curve`` (N, 2) passes each x of ``levels``; NaN outside of its range."""
    points = np.asarray(curve, dtype=np.float64)
    x = np.asarray(levels, dtype=np.float64)[:, None]
    start, end = points[:-1], points[1:]
    low, high = np.minimum(start[:, 0], end[:, 0]), np.maximum(start[:, 0], end[:, 0])
    width = end[:, 0] - start[:, 0]
    share = np.divide(x - start[:, 0], width, out=np.zeros((len(x), len(width))), where=width != 0)
    y = start[:, 1] + share * (end[:, 1] - start[:, 1])
    y = np.where(width == 0, np.minimum(start[:, 1], end[:, 1]), y)
    inside = (x >= low) & (x <= high)
    lowest = np.where(inside, y, np.inf).min(axis=1)
    return np.where(np.isinf(lowest), np.nan, lowest)
