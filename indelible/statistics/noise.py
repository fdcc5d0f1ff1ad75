"""The noise floor: the spread between seeds of one setting, arm by arm."""

import polars as pl

from indelible.results.columns import setting_columns
from indelible.results.labels import treatments


def noise_floor(table: pl.DataFrame, loss: str) -> pl.DataFrame:
    """The spread between seeds, arm by arm: nothing is pooled over arms, for the noise depends on the mixture.

    Returns:
        one row an arm that has settings with two seeds or more: the treatment columns, ``sd`` (root of the mean
        variance over the arm's settings, nats per token), ``num_settings``, ``num_seeds`` (distinct seeds of the
        arm), ``degrees_of_freedom``.
    """
    settings = [name for name in setting_columns(table) if not name.endswith("_seed")]
    done = table.filter(pl.col("status") == "done").drop_nulls(loss)
    per_seed = done.group_by([*settings, "seed"], maintain_order=True).agg(pl.col(loss).mean())
    per_setting = (
        per_seed.group_by(settings, maintain_order=True)
        .agg(pl.col(loss).var().alias("variance"), pl.len().alias("n"), pl.col("seed"))
        .filter(pl.col("n") >= 2)
    )
    degrees = pl.col("n") - 1
    return (
        per_setting.group_by([name for name in treatments(table) if name in settings], maintain_order=True)
        .agg(
            ((pl.col("variance") * degrees).sum() / degrees.sum()).sqrt().alias("sd"),
            pl.len().cast(pl.Int64).alias("num_settings"),
            pl.col("seed").list.explode().n_unique().cast(pl.Int64).alias("num_seeds"),
            degrees.sum().cast(pl.Int64).alias("degrees_of_freedom"),
        )
    )  # fmt: skip
