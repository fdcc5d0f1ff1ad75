"""What makes an interval wide: the spread between seeds, or the error of evaluating on a sample of documents.

More seeds narrow the first and not the second: every seed is evaluated on the same held-out windows, so that what these
windows happen to be is common to all. The results table may say how large that error is, in columns ``<loss>_se``
(standard error over documents, nats per token); where they are missing or empty nothing is known.
"""

import math
from dataclasses import dataclass

import polars as pl

from indelible.statistics.inference import Paired

NEITHER, SEEDS, WINDOWS, UNKNOWN = "neither", "seeds", "windows", "unknown"


@dataclass(frozen=True)
class ErrorSources:
    """The two standard errors of a mean difference, and what to buy."""

    seeds: float | None  # standard error over seeds, nats per token; None with one seed
    windows: float | None  # at most: standard error of the evaluation; None where the table does not say
    buy: str  # "seeds", "windows", "neither" where the difference is settled, "unknown"

    @property
    def text(self) -> str:
        """One sentence for people."""
        if self.seeds is None or self.windows is None:
            return "Whether seeds or evaluation windows dominate is not known: the table has no errors of evaluation."
        sizes = f"standard error over seeds {self.seeds:.4f}, of the evaluation at most {self.windows:.4f} nats"
        advice = {SEEDS: "buy seeds", WINDOWS: "buy evaluation windows", NEITHER: "it is settled: buy neither"}
        return f"{advice[self.buy][0].upper()}{advice[self.buy][1:]} ({sizes})."


def error_sources(rows: pl.DataFrame, first: pl.Expr, second: pl.Expr, loss: str, result: Paired) -> ErrorSources:
    """Which of the two dominates a paired difference in ``loss``.

    The evaluation's error is a bound: both arms are evaluated on the same documents, and what these have in common
    cancels in the difference, by how much a table of losses cannot say.

    Args:
        rows: results table of both arms.
        first: which rows are the first arm.
        second: which rows are the second arm.
        loss: a loss with, perhaps, a column ``<loss>_se``.
        result: the paired difference over seeds.
    """
    windows = evaluation_error(rows, first, second, loss)
    seeds = result.standard_error
    if seeds is None or windows is None:
        return ErrorSources(seeds, windows, UNKNOWN)
    if result.conclusion() != "inconclusive":
        return ErrorSources(seeds, windows, NEITHER)
    return ErrorSources(seeds, windows, WINDOWS if windows > seeds else SEEDS)


def evaluation_error(rows: pl.DataFrame, first: pl.Expr, second: pl.Expr, loss: str) -> float | None:
    """At most the standard error of the difference of two mean losses that the evaluation's documents make.

    None where the table has no column ``<loss>_se`` or an arm no value in it.
    """
    column = f"{loss}_se"
    if column not in rows.columns:
        return None
    done = rows.filter(pl.col("status") == "done")
    errors = [done.filter(side)[column].drop_nulls().mean() for side in (first, second)]
    if any(error is None for error in errors):
        return None
    return math.hypot(*errors)  # type: ignore[arg-type]
