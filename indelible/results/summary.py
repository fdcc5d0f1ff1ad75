"""The results table by arm: mean and spread over seeds of the losses, as text."""

from collections.abc import Sequence

import polars as pl

from indelible.objectives.preference import MEASURES
from indelible.results.columns import (
    COMPARED_MEASURES,
    FORGOTTEN,
    MAIN_LOSSES,
    id_columns,
    setting_columns,
    varying,
    view_columns,
)
from indelible.results.labels import plural

_NOT_SHOWN = tuple(name for name in MEASURES if name not in COMPARED_MEASURES)  # of pairs; the table has them


def shown_losses(table: pl.DataFrame) -> list[str]:
    """The losses that the summary shows: those of the paper, what was forgotten, and the study's own."""
    hidden = {name for name in view_columns(table) if name.endswith(tuple(f"_{one}" for one in _NOT_SHOWN))}
    names = (*MAIN_LOSSES, FORGOTTEN, *view_columns(table))
    return [name for name in names if name in table.columns and name not in hidden]


def by_arm(table: pl.DataFrame, by: Sequence[str] | None = None) -> pl.DataFrame:
    """One row an arm: its settings, how many seeds have finished it, and mean and standard deviation over seeds.

    A seed counts once: what it has of several settings is averaged before anything else. Chains that are not done are
    left out.

    Args:
        table: results table.
        by: the settings that make an arm; None: all that vary, so that an arm is one setting.

    Returns:
        the settings, ``seeds``, ``settings`` (how many are averaged), and ``<loss>``, ``<loss>_sd`` (nats per token;
        null with one seed).
    """
    settings = setting_columns(table)
    keys = varying(table, settings) if by is None else list(by)
    rest = [name for name in varying(table, settings) if name not in keys]
    shown = shown_losses(table)
    done = table.filter(pl.col("status") == "done")
    once = done.unique([*settings, "seed", *id_columns(done)], keep="first", maintain_order=True)
    averaged = pl.struct(rest).n_unique() if rest else pl.lit(1)
    ordered = once.sort(*settings, "seed", nulls_last=False)  # the same bits in whatever order the rows come
    seeds = ordered.group_by(*keys, "seed", maintain_order=True).agg(pl.col(shown).mean())
    counts = once.group_by(keys or pl.lit(0).alias("_all")).agg(averaged.cast(pl.Int64).alias("settings"))
    spreads = [pl.col(loss).std().alias(f"{loss}_sd") for loss in shown]
    arms = seeds.group_by(keys or pl.lit(0).alias("_all"), maintain_order=True).agg(
        pl.col("seed").n_unique().cast(pl.Int64).alias("seeds"), pl.col(shown).mean(), *spreads
    )
    joined = counts.join(arms, on=keys or "_all", how="inner", nulls_equal=True)
    return joined.select(*keys, "seeds", "settings", *shown, *(f"{loss}_sd" for loss in shown)).sort(keys or "seeds")


def summary_text(table: pl.DataFrame, by: Sequence[str] | None = None) -> str:
    """The arms as a Markdown table: `mean ± standard deviation` over seeds, nats per token.

    A line that is a mean over several settings says so.
    """
    arms = by_arm(table, by)
    settings = arms.columns[: arms.columns.index("seeds")]
    shown = [name for name in shown_losses(table) if arms[name].null_count() < arms.height]
    is_pooled = bool((arms["settings"] > 1).any())
    rows = [[*settings, "seeds", *(["mean over"] if is_pooled else []), *shown]]
    for row in arms.iter_rows(named=True):
        cells = [f"{row[name]:g}" if isinstance(row[name], float) else str(row[name]) for name in settings]
        pooled = [plural(row["settings"], "setting")] if is_pooled else []
        losses = [_mean_and_spread(row[name], row[f"{name}_sd"]) for name in shown]
        rows.append([*cells, str(row["seeds"]), *pooled, *losses])
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |" for row in rows
    ]
    lines.insert(1, "|" + "|".join("-" * (width + 2) for width in widths) + "|")
    return "\n".join(lines)


def _mean_and_spread(mean: float | None, deviation: float | None) -> str:
    if mean is None:
        return ""
    return f"{mean:.3f}" if deviation is None else f"{mean:.3f} ± {deviation:.3f}"
