"""Which settings move a loss: variance shares and marginals, for looking and not for claiming."""

from collections.abc import Sequence

import polars as pl

from indelible.results.labels import value_text


def variance_shares(table: pl.DataFrame, settings: Sequence[str], losses: Sequence[str]) -> pl.DataFrame:
    """Eta squared: the variance between a setting's values over the whole variance, for each setting and loss.

    Returns:
        setting, loss, share (0 to 1; null where the loss does not vary), rank (0: the setting that moves L_ret most).
    """
    rows = []
    for setting in settings:
        for loss in losses:
            present = table.select(setting, loss).drop_nulls(loss)
            total = present[loss].var(ddof=0) if present.height > 1 else None
            means = present.select(pl.col(loss).mean().over(setting))[loss]
            share = float(means.var(ddof=0)) / float(total) if total else None  # type: ignore[arg-type]
            rows.append({"setting": setting, "loss": loss, "share": share})
    frame = pl.DataFrame(rows, schema={"setting": pl.String, "loss": pl.String, "share": pl.Float64})
    order = frame.filter(pl.col("loss") == "L_ret").sort("share", descending=True, nulls_last=True)["setting"].to_list()
    return frame.with_columns(pl.Series("rank", [order.index(name) for name in frame["setting"]], pl.Int64))


def marginal_values(table: pl.DataFrame, settings: Sequence[str], loss: str) -> pl.DataFrame:
    """For each value of each setting: median, 10 % and 90 % quantile of ``loss`` over chains, and how many chains.

    Returns:
        setting, value (text), rank (order of the values), median, low, high (as ``loss``), chains.
    """
    parts = []
    for setting in settings:
        grouped = table.group_by(setting).agg(
            pl.col(loss).median().alias("median"),
            pl.col(loss).quantile(0.1, "linear").alias("low"),
            pl.col(loss).quantile(0.9, "linear").alias("high"),
            pl.len().cast(pl.Int64).alias("chains"),
        )
        ordered = grouped.sort(setting, nulls_last=False)
        text = [str(value) if isinstance(value, int) else value_text(setting, value) for value in ordered[setting]]
        parts.append(ordered.select(
            pl.lit(setting).alias("setting"), pl.Series("value", text, pl.String),
            pl.int_range(pl.len()).cast(pl.Int64).alias("rank"), "median", "low", "high", "chains"))  # fmt: skip
    return pl.concat(parts)
