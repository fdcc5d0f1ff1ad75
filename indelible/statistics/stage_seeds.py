"""Seeds by stage: how much of the spread each stage makes, and the cheapest seeds that narrow an interval.

A table with nested seeds has, beside ``seed`` (which pretraining has), columns ``<stage>_seed``: several fine-tunes of
one checkpoint share all seeds before theirs. The unit of inference stays ``seed``: later seeds narrow an interval only
as far as their own stage's part of the spread goes.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl

from indelible.errors import UserError
from indelible.results.columns import setting_columns, timed_stages
from indelible.statistics.divergence import with_worst
from indelible.statistics.inference import Inference, t_quantile

MAX_SEEDS = 200  # of the first stage, in a search
MAX_REPEATS = 32  # of a later stage under each seed before it


@dataclass(frozen=True)
class SeedLevel:
    """One level of nested seeds."""

    name: str  # the column: "seed", "finetune_seed"
    variance: float  # of the paired differences, nats squared: what this level's seeds add
    hours: (
        float  # of training, of both arms and all settings, for one more seed at this level, later levels not counted
    )
    count: int  # seeds so far under each seed of the level before (the fewest)


@dataclass(frozen=True)
class Allocation:
    """Seeds to have in all, and what the new ones among them cost."""

    counts: tuple[int, ...]  # by level, each under one of the level before
    hours: float  # of training, beside what is there
    half_width: float  # of the interval to expect, nats per token
    is_reached: bool  # whether that is the wanted one or narrower


def seed_columns(table: pl.DataFrame) -> list[str]:
    """``seed``, then the columns ``<stage>_seed`` that vary within the ones before them, in the table's order."""
    columns = ["seed"]
    for name in table.columns:
        if name.endswith("_seed") and table.select(*columns, name).n_unique() > table.select(columns).n_unique():
            columns.append(name)
    return columns


def nested_differences(
    table: pl.DataFrame,
    first: pl.Expr,
    second: pl.Expr,
    loss: str,
    treatment: Sequence[str],
    inference: Inference | None = None,
) -> pl.DataFrame:
    """Second minus first at equal settings and equal seeds of every stage, averaged over settings.

    Returns:
        the seed columns and ``difference`` (nats per token).
    """
    seeds = seed_columns(table)
    block = [name for name in setting_columns(table) if name not in (*treatment, *seeds)]
    done = with_worst(table, [loss], (inference or Inference()).worst_loss).drop_nulls(loss)
    sides = [done.filter(side).group_by([*block, *seeds]).agg(pl.col(loss).mean()) for side in (first, second)]
    joined = sides[0].join(sides[1], on=[*block, *seeds], nulls_equal=True)
    differences = joined.with_columns(difference=pl.col(f"{loss}_right") - pl.col(loss))
    return differences.group_by(seeds).agg(pl.col("difference").mean()).sort(seeds)


def variance_components(differences: pl.DataFrame) -> list[float]:
    """The part of the variance that each level of nested seeds makes (analysis of variance, unequal numbers allowed).

    Sums of squares between the seeds of each level are set equal to what they are expected to be (Henderson's first
    method). An estimate below zero, which is noise, is taken as zero.

    Args:
        differences: seed columns from the first stage on, then one column of values.

    Returns:
        by level, in squared units of the values.

    Raises:
        UserError: a level has nowhere two seeds, so that its part cannot be told.
    """
    *seeds, value = differences.columns
    values = differences[value].to_numpy()
    groups = [np.zeros(len(values), dtype=int)]
    groups += [
        differences.select(pl.struct(seeds[: n + 1]).rank("dense"))["seed"].to_numpy() - 1 for n in range(len(seeds))
    ]
    totals = [_total(values, group) for group in groups]
    squares = np.diff(totals)
    expected = np.diff([[_overlap(group, finer) for finer in groups[1:]] for group in groups], axis=0)
    if np.any(np.diag(expected) <= 1e-9):
        lacking = [name for name, part in zip(seeds, np.diag(expected), strict=True) if part <= 1e-9]
        raise UserError(f"{', '.join(lacking)}: nowhere two seeds under one, so its part of the spread cannot be told.")
    return [max(0.0, float(part)) for part in np.linalg.solve(expected, squares)]


def stage_hours(table: pl.DataFrame) -> dict[str, float]:
    """Hours of training that one more seed of each level takes, later levels not counted.

    The runs of a stage belong to the last level whose stage comes no later than it; each run is counted once.

    Args:
        table: rows of both arms, with ``<stage>_id`` and ``<stage>_seconds``.
    """
    seeds, stages = seed_columns(table), timed_stages(table)
    owner, hours = "seed", dict.fromkeys(seeds, 0.0)
    for stage in stages:
        owner = f"{stage}_seed" if f"{stage}_seed" in seeds else owner
        runs = table.drop_nulls([f"{stage}_id", f"{stage}_seconds"]).unique(f"{stage}_id")
        units = table.select(seeds[: seeds.index(owner) + 1]).n_unique()
        hours[owner] += float(runs[f"{stage}_seconds"].sum()) / 3600 / units
    return hours


def seed_levels(table: pl.DataFrame, differences: pl.DataFrame) -> list[SeedLevel]:
    """The levels of a table's seeds with their variances, hours and counts."""
    seeds = differences.columns[:-1]
    variances, hours = variance_components(differences), stage_hours(table)
    counts = []
    for number, name in enumerate(seeds):
        units = differences.select(seeds[: number + 1]).unique()
        above = seeds[:number]
        counts.append(min(units.group_by(above).len()["len"].to_list()) if above else units.height)
        assert name in hours
    return [SeedLevel(*level) for level in zip(seeds, variances, [hours[name] for name in seeds], counts, strict=True)]


def half_width(levels: Sequence[SeedLevel], counts: Sequence[int], level: float) -> float:
    """Of the interval to expect with ``counts`` seeds; one level's variance is shared by all seeds above it."""
    units, variance = 1, 0.0
    for one, count in zip(levels, counts, strict=True):
        units *= count
        variance += one.variance / units
    return t_quantile(1 - level / 2, counts[0] - 1) * math.sqrt(variance)


def cheapest_seeds(
    levels: Sequence[SeedLevel], wanted: float, budget_hours: float = math.inf, level: float = 0.05
) -> Allocation:
    """The cheapest seeds that bring the interval to ``wanted``; if the budget does not, the narrowest within it.

    Designs are balanced: every seed has as many of the next level under it. Seeds that are there are topped up.

    Args:
        levels: from the first stage on.
        wanted: half-width of the interval, nats per token.
        budget_hours: of training, beside what is there.
        level: of the interval, two-sided.
    """
    have = [one.count for one in levels]
    best: Allocation | None = None
    for counts in _designs(have):
        hours = _hours(levels, counts) - _hours(levels, have)
        if counts[0] < 2 or hours > budget_hours + 1e-9:
            continue
        width = half_width(levels, counts, level)
        found = Allocation(counts, hours, width, width <= wanted)
        if best is None or _rank(found) < _rank(best):
            best = found
    if best is None:
        raise UserError(f"{budget_hours:g} hours buy no second seed, without which there is no interval.")
    return best


def _rank(found: Allocation) -> tuple[float, ...]:
    """First what reaches the half-width, the cheapest of it; else the narrowest."""
    return (0, found.hours, found.half_width) if found.is_reached else (1, found.half_width, found.hours)


def _designs(have: Sequence[int]) -> list[tuple[int, ...]]:
    ranges = [range(count, max(count, top) + 1) for count, top in zip(have, _tops(have), strict=True)]
    designs: list[tuple[int, ...]] = [()]
    for one in ranges:
        designs = [(*design, count) for design in designs for count in one]
    return designs


def _tops(have: Sequence[int]) -> list[int]:
    return [MAX_SEEDS, *[MAX_REPEATS] * (len(have) - 1)]


def _hours(levels: Sequence[SeedLevel], counts: Sequence[int]) -> float:
    units, hours = 1, 0.0
    for one, count in zip(levels, counts, strict=True):
        units *= count
        hours += units * one.hours
    return hours


def _total(values: np.ndarray, group: np.ndarray) -> float:
    """Sum over groups of their size times their squared mean."""
    sums, sizes = np.bincount(group, values), np.bincount(group)
    return float((sums**2 / sizes).sum())


def _overlap(group: np.ndarray, finer: np.ndarray) -> float:
    """How often a variance of the finer seeds is expected in `_total` of the coarser groups."""
    counts = np.zeros((group.max() + 1, finer.max() + 1))
    np.add.at(counts, (group, finer), 1)
    return float(((counts**2).sum(axis=1) / counts.sum(axis=1)).sum())
