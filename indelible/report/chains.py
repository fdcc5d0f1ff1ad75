"""Which chains' curves go into the page: a table may have thousands."""

from typing import Any

import polars as pl

MAX_CHAINS = 60


def spread_chains(table: pl.DataFrame) -> list[dict[str, Any]]:
    """Up to 60 rows with their number in the table (``row``): one seed of every setting first, evenly spread."""
    if table.height == 0:
        return []
    ordered = table.with_row_index("row").sort("seed", "row")
    first = ordered.filter(pl.col("seed") == ordered["seed"][0])
    if first.height >= MAX_CHAINS:
        picks = [round(number * (first.height - 1) / (MAX_CHAINS - 1)) for number in range(MAX_CHAINS)]
        return first[sorted(set(picks))].to_dicts()
    return ordered.head(MAX_CHAINS).to_dicts()
