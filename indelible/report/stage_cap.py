"""Whether stage 2 was trained to its end: how many of its runs the budget ended, where patience was to end them.

A stage-2 run that is cut short has not learned D_post, so a chain that has seen some of it before is ahead for that
reason alone: what looks like a gain of exposure may be no more.
"""

from dataclasses import dataclass

import polars as pl

from indelible.results.run_folder import StudyRun
from indelible.study.identity import part_of

_DIGITS = 3  # of a budget that is advised: what is realised is whole windows, what is typed is a round number


@dataclass(frozen=True)
class Capped:
    """The stage-2 runs that could have ended early."""

    count: int  # of them ended by ``posttrain.max_tokens``
    num_runs: int
    budget: int | None  # the largest of those that ended it, tokens; None where the table does not say

    @property
    def is_most(self) -> bool:
        """More than half of the runs."""
        return 2 * self.count > self.num_runs

    @property
    def doubled(self) -> int:
        """Twice the budget, rounded; tokens."""
        return round(float(f"{2 * (self.budget or 0):.{_DIGITS}g}"))


def capped_runs(table: pl.DataFrame, run: StudyRun | None) -> Capped | None:
    """The stage-2 runs with patience and a budget of their own, and how many the budget ended.

    Compute-matched runs are left out: they show the rest of D_post once, whatever the budget.

    Args:
        table: results table.
        run: the study run that it was made of. A table by itself does not know of patience; that it ended some run
            says that it was set.

    Returns:
        None where there are no such runs.
    """
    if "posttrain_stop_reason" not in table.columns:
        return None
    ended = table.filter(pl.col("posttrain_stop_reason").is_in(["max_tokens", "patience"]))
    ended = ended.filter(pl.col("allocation").ne_missing("matched")).unique("posttrain_id", maintain_order=True)
    reasons = dict(ended.select("posttrain_id", "posttrain_stop_reason").rows())
    if run is None:
        count = sum(reason == "max_tokens" for reason in reasons.values())
        return Capped(count, len(reasons), None) if count < len(reasons) else None
    budgets = {one: budget for one in reasons if (budget := _budget(run, one)) is not None}
    capped = [budgets[one] for one in budgets if reasons[one] == "max_tokens"]
    return Capped(len(capped), len(budgets), max(capped, default=None)) if budgets else None


def _budget(run: StudyRun, run_id: str) -> int | None:
    """Tokens of a stage that patience may end before; None where it may not, or where it passes its data once."""
    training = run.specs[run_id].get("training")
    if not isinstance(training, dict) or training.get("patience") is None:
        return None

    def number(*keys: str) -> int:
        found: int = part_of(run.specs[run_id], run.root / "plan.json", *keys, of=int)
        return found

    windows = number("data", "total_windows")
    return windows * number("seq_len") if windows > number("data", "main", "windows") else None
