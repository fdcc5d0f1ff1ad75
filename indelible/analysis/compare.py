"""Compares two arms in a results table: at equal settings, at equal L_ft, and at equal L_im."""

import math
from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import ArrayLike, NDArray

from indelible.analysis.columns import setting_columns
from indelible.analysis.inference import Paired, paired

NUM_LEVELS = 33  # equally spaced losses at which two curves are compared


@dataclass(frozen=True)
class Comparison:
    """Second arm against first."""

    result: Paired
    num_blocks: int  # settings (or curves) compared, the same for every seed
    num_left_out: int  # settings that not every seed has in both arms, or curves without a common range
    num_seeds_left_out: int  # seeds with pairs, but of too few settings to be compared with the others
    finetune_ids: tuple[str, ...]  # the chains behind it, by their last run


def compare_at_equal_settings(
    table: pl.DataFrame, first: pl.Expr, second: pl.Expr, loss: str, treatment: Sequence[str]
) -> Comparison:
    """Second minus first in ``loss``, at equal settings and seed, averaged over settings within each seed.

    Args:
        table: results table; only finished chains count.
        first: which rows are the first arm.
        second: which rows are the second arm.
        treatment: the setting columns in which the arms differ; all others are held equal.
    """
    block = [name for name in setting_columns(table) if name not in treatment]
    done = table.filter(pl.col("status") == "done").drop_nulls(loss)
    keys = [*block, "seed"]
    sides = []
    for side, rows in (("first", done.filter(first)), ("second", done.filter(second))):
        sides.append(rows.group_by(keys, maintain_order=True).agg(
            pl.col(loss).mean().alias(side), pl.col("finetune_id").alias(f"{side}_ids")))  # fmt: skip
    joined = sides[0].join(sides[1], on=keys, how="inner", nulls_equal=True, maintain_order="left")
    joined = joined.with_columns(block=pl.struct(block).rank("dense") if block else pl.lit(1))
    blocks_by_seed = {key[0]: set(part["block"]) for key, part in joined.group_by("seed")}
    seeds, blocks = complete_part(blocks_by_seed)
    kept = joined.filter(pl.col("seed").is_in(seeds), pl.col("block").is_in(list(blocks)))
    pairs = kept.with_columns(difference=pl.col("second") - pl.col("first"))
    differences = {seed: pairs.filter(pl.col("seed") == seed)["difference"].to_list() for seed in seeds}
    ids = [run_id for side in ("first", "second") for ids in kept[f"{side}_ids"] for run_id in ids]
    all_blocks = pl.concat([side.select(block) for side in sides]).unique().height if block else len(blocks)
    return Comparison(
        result=paired({seed: _mean(values) for seed, values in differences.items()}),
        num_blocks=len(blocks),
        num_left_out=all_blocks - len(blocks),
        num_seeds_left_out=len(blocks_by_seed) - len(seeds),
        finetune_ids=tuple(dict.fromkeys(ids)),
    )


def compare_at_equal_loss(
    table: pl.DataFrame, first: pl.Expr, second: pl.Expr, treatment: Sequence[str], *, equal: str, loss: str, axis: str
) -> Comparison:
    """Second minus first in ``loss`` where both arms have the same loss ``equal``.

    For each seed and setting the chains along ``axis`` make a curve (``equal``, ``loss``), straight between
    neighbours. The two curves are read at 33 equally spaced values of ``equal`` in the range that both cover, and
    nowhere else: nothing is extrapolated. Where a curve passes a value twice, the lower ``loss`` counts: what one who
    chooses the setting gets.

    Args:
        equal: the loss that is held equal: ``L_ft`` (axis ``finetune_lr``) or ``L_im`` (axis of stage 2).
        axis: the setting that moves along a curve, e.g. ``finetune_lr``.
    """
    block = [name for name in setting_columns(table) if name not in (*treatment, axis)]
    done = table.filter(pl.col("status") == "done").drop_nulls([equal, loss])
    curves: list[dict[tuple[object, ...], pl.DataFrame]] = []
    for rows in (done.filter(first), done.filter(second)):
        groups = rows.sort(axis, maintain_order=True).group_by([*block, "seed"], maintain_order=True)
        curves.append({key: group for key, group in groups if group[axis].n_unique() >= 2})
    differences: dict[tuple[object, ...], dict[int, float]] = {}
    ids: dict[tuple[tuple[object, ...], int], list[str]] = {}
    for key in (key for key in curves[0] if key in curves[1]):
        one, two = curves[0][key], curves[1][key]
        difference = curve_gap(one.select(equal, loss).to_numpy(), two.select(equal, loss).to_numpy())
        if difference is not None:
            seed = int(key[-1])  # type: ignore[call-overload]
            differences.setdefault(key[:-1], {})[seed] = difference
            ids[key[:-1], seed] = [*one["finetune_id"], *two["finetune_id"]]
    asked = {key[:-1] for side in curves for key in side}
    curves_by_seed: dict[int, set[tuple[object, ...]]] = {}
    for key, values in differences.items():
        for seed in values:
            curves_by_seed.setdefault(seed, set()).add(key)
    seeds, found = complete_part(curves_by_seed)
    whole = [key for key in differences if key in found]
    by_seed = {seed: _mean([differences[key][seed] for key in whole]) for seed in seeds}
    used = sorted({run_id for key in whole for seed in seeds for run_id in ids[key, seed]})
    return Comparison(
        paired(by_seed), len(whole), len(asked) - len(whole), len(curves_by_seed) - len(seeds), tuple(used)
    )


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
