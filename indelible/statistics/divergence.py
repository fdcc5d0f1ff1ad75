"""Divergence is an outcome, the worst one: a chain that diverged counts, and can only cost its arm."""

from collections.abc import Iterable

import polars as pl

from indelible.results.columns import is_higher_better
from indelible.statistics.inference import WORST_LOSS

BEFORE_LAST_STAGE = ("L_im", "L_pre_post")  # losses that a chain has when only its last stage diverges


def is_worst(loss: str, worst_loss: float = WORST_LOSS) -> pl.Expr:
    """Whether a chain counts as the worst in ``loss``: it diverged, and not only after that loss was taken.

    The same before and after `with_worst`.
    """
    is_diverged, value = pl.col("status") == "diverged", pl.col(loss)
    return is_diverged & (value.is_null() | (value >= worst_loss)) if loss in BEFORE_LAST_STAGE else is_diverged


def with_worst(table: pl.DataFrame, losses: Iterable[str], worst_loss: float = WORST_LOSS) -> pl.DataFrame:
    """The rows that have an outcome (done or diverged), with the worst loss where a chain diverged.

    No loss counts for more than ``worst_loss``: a model that is worse than a uniform guess is as useless as one that
    diverged. Both together make the rank of a divergence hold whatever the other losses are; were it the largest loss
    seen, a chain that had this loss and is then found to have diverged would leave its arm better off.

    Args:
        table: results table; incomplete and failed chains have no outcome and are left out.
        losses: the columns that are looked at. In those of `BEFORE_LAST_STAGE` a diverged chain keeps what it has.
        worst_loss: nats per token, fixed before the runs; the worst accuracy is 0.
    """
    rows = table.filter(pl.col("status").is_in(["done", "diverged"]))
    filled = []
    for loss in losses:
        capped = pl.min_horizontal(pl.col(loss), pl.lit(worst_loss))
        known = pl.when(pl.col(loss).is_null()).then(None).otherwise(capped)
        worst = 0.0 if is_higher_better(loss) else worst_loss
        filled.append(pl.when(is_worst(loss, worst_loss)).then(worst).otherwise(known).alias(loss))
    return rows.with_columns(filled)


def num_diverged(rows: pl.DataFrame) -> int:
    """Chains among ``rows`` that diverged."""
    return int((rows["status"] == "diverged").sum())
