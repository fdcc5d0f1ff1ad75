"""The next seeds to buy: the cheapest that narrow an interval to a wanted width, or the best that some hours buy."""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import polars as pl
from scipy import special

from indelible.claims.scopes import scopes
from indelible.errors import UserError
from indelible.results.columns import varying
from indelible.results.labels import differing_columns, plural
from indelible.statistics.inference import Inference
from indelible.statistics.stage_seeds import (
    MAX_REPEATS,
    MAX_SEEDS,
    Allocation,
    SeedLevel,
    cheapest_seeds,
    half_width,
    nested_differences,
    seed_levels,
)

_SCOPE = ("scale", "pipeline", "post_tokens")
MAX_LEVELS = 3  # of nested seeds that the search can go through in a second
_WIDE = 0.75  # a spread so much larger is what the seeds so far leave possible with a probability of a quarter


@dataclass(frozen=True)
class SeedPlan:
    """What to buy for one comparison: a loss at the largest lambda minus that at 0, in one scope."""

    scope: str
    loss: str
    fraction: float  # the largest lambda
    wanted: float | None  # half-width, nats; None: as narrow as the hours make it
    levels: tuple[SeedLevel, ...]  # of seeds, from the first stage on; empty where nothing can be planned
    now: float | None  # half-width of the interval to expect of the seeds that are there, nats; None: there is none
    best: Allocation | None
    wide: float | None  # half-width with ``best`` if the spread is larger than estimated, as it is one time in four
    reason: str = ""  # why nothing can be planned

    @property
    def new_runs(self) -> tuple[int, ...]:
        """Seeds to be added, by level: each trains both arms in all settings from that stage on."""
        if self.best is None:
            return ()
        wanted, there = _units(self.best.counts), _units([one.count for one in self.levels])
        return tuple(one - other for one, other in zip(wanted, there, strict=True))


def seed_plans(
    table: pl.DataFrame,
    loss: str,
    wanted: float | None,
    budget_hours: float | None,
    inference: Inference | None = None,
) -> list[SeedPlan]:
    """Plans the next seeds of every scope of a table, as the claims have them.

    Args:
        table: results table; its ``<stage>_seconds`` are what a seed costs.
        loss: column, e.g. ``L_ret``.
        wanted: half-width of the interval, nats per token; None: as narrow as the hours make it.
        budget_hours: beside what is there; None: as many as it takes.
        inference: level of the interval, and the worst loss.

    Raises:
        UserError: no such loss, neither a width nor hours, one that is not above 0, or nothing can be planned.
    """
    _check(table, loss, wanted, budget_hours)
    plans = list(_plans(table, loss, wanted, budget_hours, inference or Inference()))
    if not plans:
        raise UserError(
            "seeds: no pipeline has finished chains at λ 0 and a larger λ, so there is no difference to narrow."
        )
    if all(one.best is None for one in plans):
        reasons = {
            reason: [one.scope for one in plans if one.reason == reason] for one in plans if (reason := one.reason)
        }
        said = "; ".join(f"{', '.join(names)}: {reason.rstrip('.')}" for reason, names in reasons.items())
        raise UserError(f"seeds: nothing can be planned. {said}.")
    return plans


def _check(table: pl.DataFrame, loss: str, wanted: float | None, budget_hours: float | None) -> None:
    known = [name.removesuffix("_se") for name in table.columns if name.endswith("_se")] + ["forgotten"]
    if loss not in known or loss not in table.columns:
        raise UserError(f"--loss {loss}: no loss of this table; choose one of {', '.join(known)}.")
    if wanted is None and budget_hours is None:
        raise UserError("seeds: give --half-width (nats per token), --core-hours, or both.")
    for name, value in (("--half-width", wanted), ("--core-hours", budget_hours)):
        if value is not None and not (0 < value < math.inf):
            raise UserError(f"{name} {value:g}: expected a number above 0, e.g. {name} 0.05.")


def _plans(
    table: pl.DataFrame, loss: str, wanted: float | None, budget_hours: float | None, inference: Inference
) -> Iterator[SeedPlan]:
    fraction = pl.col("exposure_fraction")
    columns = [*_SCOPE, *varying(table, ["allocation"])]
    for scope, rows, fractions in scopes(table, columns, [loss], 2, worst_loss=inference.worst_loss):
        largest = fractions[-1]
        arms = rows.filter(fraction.is_in([0.0, largest]))
        found = nested_differences(arms, fraction == 0, fraction == largest, loss, differing_columns(rows), inference)
        try:
            levels = _levels(arms, found)
            best = cheapest_seeds(levels, wanted or 0.0, budget_hours or math.inf, inference.level)
        except UserError as error:
            yield SeedPlan(scope, loss, largest, wanted, (), None, None, None, str(error))
            continue
        there = [one.count for one in levels]
        now = half_width(levels, there, inference.level)
        wide = best.half_width * math.sqrt((there[0] - 1) / _chi_square(1 - _WIDE, there[0] - 1))
        yield SeedPlan(scope, loss, largest, wanted, tuple(levels), now, best, wide)


def _levels(arms: pl.DataFrame, found: pl.DataFrame) -> list[SeedLevel]:
    """The levels of seeds with their variances and prices; refused where one of these is not known."""
    if found.height == 0 or found["seed"].n_unique() < 2:
        num = plural(found["seed"].n_unique(), "seed")
        raise UserError(f"{num} with both arms: the spread between seeds takes two or more.")
    levels = seed_levels(arms, found)
    if len(levels) > MAX_LEVELS:
        raise UserError(f"{len(levels)} levels of seeds; the search goes through {MAX_LEVELS} at most.")
    if not all(one.hours > 0 for one in levels):
        names = ", ".join(one.name for one in levels if not one.hours > 0)
        raise UserError(f"the table has no training times for the stages of {names}, so seeds have no price.")
    if not any(one.variance > 0 for one in levels):
        raise UserError("the differences do not vary between seeds, so they say nothing of the noise.")
    return levels


def plan_text(plan: SeedPlan, unit: str) -> str:
    """A plan in a few lines."""
    head = f"{plan.scope}, {plan.loss} at λ {plan.fraction:g} minus λ 0"
    if plan.best is None or plan.now is None or plan.wide is None:
        return f"{head}: {plan.reason}"
    total = sum(one.variance for one in plan.levels)
    lines = [f"{head}: ±{plan.now:.4f} to be expected of the seeds that are there"]
    is_single = len(plan.levels) == 1
    for one in plan.levels:
        name, sd = "seeds" if is_single else level_name(one), f"sd {math.sqrt(one.variance):.4f}"
        share = "" if is_single else f", {100 * one.variance / total:.0f} % of the variance"
        under = " under each seed before" if one is not plan.levels[0] else ""
        lines.append(f"  {name}: {one.count}{under}, {sd}{share}, {one.hours:.3g} {unit} for one more")
    return "\n".join([*lines, f"  {advice(plan, unit)}"])


def advice(plan: SeedPlan, unit: str) -> str:
    """What to buy, its price, and how wide the interval will be, in one line."""
    best = plan.best
    assert best is not None
    if not any(plan.new_runs):
        return "nothing to buy: the width is reached." if best.is_reached else "nothing: no hours for a seed more."
    names = [level_name(one) for one in plan.levels] if len(plan.levels) > 1 else [""]
    counts = " x ".join(f"{count} {name}".strip() for count, name in zip(best.counts, names, strict=True))
    return (
        f"buy up to {counts} seeds in all, {best.hours:.3g} {unit} more: ±{best.half_width:.4f} to be expected "
        f"(one time in four wider than ±{plan.wide:.4f})"
        + ("" if best.is_reached or plan.wanted is None else f"; ±{plan.wanted:g} is not reached")
    )


def assumptions_text(plans: list[SeedPlan], inference: Inference, hours: str) -> str:
    """What the plans take for granted, for people who buy by them.

    Args:
        plans: as `seed_plans` made them.
        inference: level of the intervals.
        hours: a sentence on how hours were counted.
    """
    single = (
        " The seed of this study changes all stages at once, so the parts of the stages cannot be told apart and only "
        "whole chains are bought; seeds: {pretrain: [0, 1], finetune: [0, 1]} would tell."
        if any(len(one.levels) == 1 for one in plans)
        else ""
    )
    return (
        "Half-widths in nats per token of the paired t interval of one comparison by itself, level "
        f"{inference.level:g}; verdicts share the level among the scopes of a claim and are wider. New seeds are taken "
        "to vary and to cost as those that are there do: both arms in all their settings, each scope by itself even "
        "where several share stage runs, without λ between 0 and the largest. Every seed has as many later seeds as "
        f"the others, at most {MAX_SEEDS} and {MAX_REPEATS}. The spread is an estimate from few seeds, hence the "
        f"second width.{single} {hours}"
    )


def level_name(level: SeedLevel) -> str:
    """The first level is that of the first stage and of all that have no seeds of their own."""
    return level.name.removesuffix("_seed") if level.name != "seed" else "first-stage"


def _units(counts: tuple[int, ...] | list[int]) -> list[int]:
    return [math.prod(counts[: place + 1]) for place in range(len(counts))]


def _chi_square(probability: float, degrees: int) -> float:
    return float(2 * special.gammaincinv(degrees / 2, probability))
