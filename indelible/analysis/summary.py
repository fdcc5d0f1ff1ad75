"""The results table by arm: mean and spread over seeds of the four losses, as text."""

import polars as pl

from indelible.analysis.columns import MAIN_LOSSES, setting_columns, varying


def by_arm(table: pl.DataFrame) -> pl.DataFrame:
    """One row an arm: its varying settings, the number of finished seeds, and mean and standard deviation of each loss.

    The deviation is null with one seed. Chains that are not done are left out.
    """
    settings = varying(table, setting_columns(table))
    done = table.filter(pl.col("status") == "done")
    losses = [pl.col(loss).mean().alias(loss) for loss in MAIN_LOSSES]
    spreads = [pl.col(loss).std().alias(f"{loss}_sd") for loss in MAIN_LOSSES]
    if not settings:
        return done.select(pl.len().alias("seeds"), *losses, *spreads)
    return done.group_by(settings).agg(pl.len().alias("seeds"), *losses, *spreads).sort(settings)


def summary_text(table: pl.DataFrame) -> str:
    """The arms as a Markdown table: `mean ± standard deviation` over seeds, nats per token."""
    arms = by_arm(table)
    settings = [name for name in arms.columns if name in table.columns and name not in MAIN_LOSSES]
    rows = [[*settings, "seeds", *MAIN_LOSSES]]
    for row in arms.iter_rows(named=True):
        cells = [f"{row[name]:g}" if isinstance(row[name], float) else str(row[name]) for name in settings]
        rows.append([*cells, str(row["seeds"]), *(_mean_and_spread(row[n], row[f"{n}_sd"]) for n in MAIN_LOSSES)])
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
