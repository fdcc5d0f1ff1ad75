"""What a seed costs: hours of training of the stage runs that a finding rests on."""

from collections.abc import Iterable

import polars as pl

from indelible.claims.verdicts import Finding
from indelible.results.columns import timed_stages


def hours_per_seed(table: pl.DataFrame, run_ids: Iterable[str]) -> float | None:
    """Hours of training that one seed of these chains took, each stage run counted once.

    Args:
        table: results table with ``<stage>_id`` and ``<stage>_seconds``.
        run_ids: chains, by their last run.

    Returns:
        None where no chain says how long it was trained.
    """
    chains = table.filter(pl.col("finetune_id").is_in(list(run_ids)))
    seconds = 0.0
    for stage in timed_stages(table):
        runs = chains.select(f"{stage}_id", f"{stage}_seconds").drop_nulls().unique(f"{stage}_id")
        seconds += float(runs[f"{stage}_seconds"].sum())
    return seconds / 3600 / chains["seed"].n_unique() if seconds else None


def hours_text(found: Finding, table: pl.DataFrame) -> str:
    """`` (0.3 to 2.1 hours of training)``: what the new seeds of an open finding cost; empty where it is unknown."""
    hours = hours_per_seed(table, found.run_ids)
    if hours is None or found.new_seeds is None or found.new_seeds.low is None:
        return ""
    low, high = found.new_seeds.low * hours, found.new_seeds.high and found.new_seeds.high * hours
    if high is None:
        return f" (at least {low:.2g} hours of training)"
    return f" ({low:.2g} hours of training)" if low == high else f" ({low:.2g} to {high:.2g} hours of training)"
