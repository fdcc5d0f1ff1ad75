"""What nested seeds say in words: which stage makes the spread, and the cheapest seeds that halve the interval."""

import polars as pl

from indelible.claims.seed_plan import MAX_LEVELS, level_name
from indelible.errors import UserError
from indelible.results.labels import differing_columns
from indelible.statistics.inference import Inference
from indelible.statistics.stage_seeds import (
    SeedLevel,
    cheapest_seeds,
    half_width,
    nested_differences,
    seed_columns,
    seed_levels,
)


def stage_seeds_text(table: pl.DataFrame, inference: Inference | None = None) -> str:
    """One or two sentences for each pipeline of a table with columns ``<stage>_seed``; empty without them.

    Looks at L_ret at the largest lambda minus lambda 0.
    """
    if len(seed_columns(table)) < 2:
        return ""
    inference, fraction = inference or Inference(), pl.col("exposure_fraction")
    notes = []
    for part in table.partition_by("scale", "pipeline", maintain_order=True):
        largest: float = part.filter(fraction <= 1)["exposure_fraction"].max()  # type: ignore[assignment]
        if not largest or len(seed_columns(part)) < 2:
            continue
        found = nested_differences(
            part, fraction == 0, fraction == largest, "L_ret", differing_columns(part), inference
        )
        if found.height:
            arms = part.filter(fraction.is_in([0.0, largest]))
            where = f"{part['pipeline'][0]}, L_ret at λ {largest:g} minus λ 0"
            notes.append(f"Seeds by stage ({where}): {_said(arms, found, inference)}")
    return " ".join(notes)


def _said(arms: pl.DataFrame, found: pl.DataFrame, inference: Inference) -> str:
    try:
        levels = seed_levels(arms, found)
    except UserError as error:
        return str(error)
    total = sum(one.variance for one in levels)
    if not total:
        return "the differences do not vary between seeds."
    shares = ", ".join(
        f"{level_name(one)} {100 * one.variance / total:.0f} % (sd {one.variance**0.5:.4f})" for one in levels
    )
    return f"the spread of the difference is {shares}. {_advice(levels, inference)}".strip()


def _advice(levels: list[SeedLevel], inference: Inference) -> str:
    if levels[0].count < 2 or len(levels) > MAX_LEVELS or not sum(one.hours for one in levels):
        return ""
    now = half_width(levels, [one.count for one in levels], inference.level)
    best = cheapest_seeds(levels, now / 2, level=inference.level)
    counts = " x ".join(f"{count} {level_name(one)}" for count, one in zip(best.counts, levels, strict=True))
    reached = "the cheapest way to halve the interval" if best.is_reached else "the narrowest interval within reach"
    return (
        f"{reached[0].upper()}{reached[1:]} (±{now:.4f} now, ±{best.half_width:.4f} then) is {counts} seeds in all, "
        f"{best.hours:.2g} more hours of training."
    )
