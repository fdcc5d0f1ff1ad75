"""The paper's digitised figure values, from the small CSV files that are shipped in `indelible.paper_values`."""

from functools import cache
from importlib import resources

import polars as pl

from indelible.results.columns import SCHEMA

CITATION = (
    "Feng, Ghosal, Springer, Zhong, Raghunathan: Early Data Exposure Improves Robustness to Subsequent Fine-Tuning, "
    "arXiv:2605.12705v1 (CC BY 4.0), values read off its figures"
)


def lambda_curves() -> pl.DataFrame:
    """Figure 3: panel, loss, post_tokens, exposure_fraction, value (nats per token), is_star."""
    return _read("lambda.csv").with_columns(pl.col("is_star").cast(pl.Boolean))


def series() -> pl.DataFrame:
    """The 90 point clouds of Figures 2 and 4 to 12: id, figure, panel, subplot, size, pipeline, series, quantities."""
    return _read("series.csv")


def markers() -> pl.DataFrame:
    """Every marker: series_id, x, y (nats per token), is_on_frontier, is_visible."""
    return _read("markers.csv").with_columns(pl.col("is_on_frontier", "is_visible").cast(pl.Boolean))


def drawn_frontiers() -> pl.DataFrame:
    """Every vertex of the drawn frontier lines, in order: series_id, x, y, is_clipped."""
    return _read("frontiers.csv").with_columns(pl.col("is_clipped").cast(pl.Boolean))


def chains() -> pl.DataFrame:
    """Chains put together from several figures: size, pipeline, series, L_ft, L_ret, L_pre (null where not shown)."""
    return _read("chains.csv")


@cache
def _read(name: str) -> pl.DataFrame:
    data = resources.files("indelible.paper_values").joinpath(name).read_bytes()
    return pl.read_csv(data, infer_schema_length=None)


def figure_3_table() -> pl.DataFrame:
    """Figure 3 as a results table: panel a is allocation full, panel b matched; seed 0, learning rates null."""
    wide = lambda_curves().pivot("loss", index=["panel", "post_tokens", "exposure_fraction"], values="value")
    rows = wide.with_columns(
        allocation=pl.col("panel").replace_strict({"a": "full", "b": "matched"}),
        scale=pl.lit("135m"),
        pipeline=pl.lit("C4>MusicPile>ChemPile"),
        finetune_id=pl.format("figure-3{}-{}-{}", "panel", "post_tokens", "exposure_fraction"),
    )
    return _as_results(rows)


def chains_table() -> pl.DataFrame:
    """The chains of the other figures as a results table.

    Settings that a series stands for but the paper does not number are nominal: "mixed" is lambda 1, "dropout" 0.05,
    "replay" 0.01. Learning rates are null: chains of two series cannot be paired by their settings.
    """
    name = pl.col("series")
    rows = chains().with_row_index("row")
    rows = rows.with_columns(
        scale=pl.col("size").str.to_lowercase(),
        exposure_fraction=pl.when(name.str.contains("unmixed")).then(0.0).otherwise(1.0),
        dropout=pl.when(name.str.contains("dropout")).then(0.05).otherwise(0.0),
        replay_fraction=pl.when(name.str.contains("replay")).then(0.01).otherwise(0.0),
        method=pl.when(name.str.contains("LoRA")).then(pl.lit("lora")).otherwise(pl.lit("full")),
        allocation=pl.lit("full"),
        finetune_id=pl.format("chains.csv-row-{}", pl.col("row") + 2),
    )
    return _as_results(rows)


def _as_results(rows: pl.DataFrame) -> pl.DataFrame:
    fixed = {"study": "paper", "arm": "", "seed": 0, "exposure_mode": "add", "placement": "uniform", "status": "done"}
    given = {name: pl.col(name) for name in rows.columns} | {name: pl.lit(value) for name, value in fixed.items()}
    return rows.select(given.get(name, pl.lit(None)).cast(dtype).alias(name) for name, dtype in SCHEMA.items())
