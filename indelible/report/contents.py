"""What the report shows, gathered from a study run before any of it becomes HTML."""

from collections import Counter
from dataclasses import dataclass

import polars as pl

from indelible.analysis.arms import with_labels
from indelible.analysis.claims import study_verdicts
from indelible.analysis.columns import STATUSES
from indelible.analysis.runs import StudyRun
from indelible.analysis.table import results_table
from indelible.report.charts_cost import cost_figure
from indelible.report.charts_effects import effects_figure
from indelible.report.charts_lambda import lambda_figure
from indelible.report.charts_retention import retention_figure
from indelible.report.charts_runs import curves_figure, ledger_figure
from indelible.report.charts_settings import settings_figure
from indelible.report.charts_tradeoff import tradeoff_figure
from indelible.report.cost import Cost, study_cost
from indelible.report.figure import Figure
from indelible.report.headline import Headline, headlines
from indelible.report.methods import methods_facts
from indelible.report.summaries import ClaimRow, claim_rows, frontier_rows, noise_rows, verdict_counts


@dataclass(frozen=True)
class Contents:
    """Everything on the page."""

    name: str
    scale: str
    description: str
    statuses: dict[str, int]  # number of chains by status
    num_seeds: int  # with a finished chain
    headlines: list[Headline]
    verdicts: dict[str, int]  # number of findings by verdict
    claims: list[ClaimRow]
    noise: list[dict[str, str]]
    frontiers: list[dict[str, str]]
    cost: Cost
    methods: dict[str, list[tuple[str, str]]]
    figures: dict[str, Figure]  # by name, in the order of the page
    table: pl.DataFrame  # with labels, and the finished chains numbered (column chain)


def report_contents(run: StudyRun) -> Contents:
    """Builds the table, the verdicts and every figure that the study's chains allow."""
    table = with_labels(results_table(run))
    is_done = pl.col("status") == "done"
    table = table.with_columns(pl.when(is_done).then(is_done.cum_sum().cast(pl.Int64) - 1).alias("chain"))
    plain = table.drop("series", "exposure", "variant", "settings", "chain")
    verdicts = study_verdicts(plain)
    cost = study_cost(run)
    counts = Counter(table["status"].to_list())
    made = [
        retention_figure(plain),
        effects_figure(verdicts, str(run.plan.get("scale") or "")),
        lambda_figure(table),
        tradeoff_figure(table),
        settings_figure(table),
        curves_figure(table, run),
        ledger_figure(table, run),
        cost_figure(cost),
    ]
    return Contents(
        name=str(run.plan.get("name") or run.root.name),
        scale=str(run.plan.get("scale") or ""),
        description=str(run.plan.get("description") or ""),
        statuses={status: counts[status] for status in STATUSES if counts[status]},
        num_seeds=table.filter(pl.col("status") == "done")["seed"].n_unique(),
        headlines=headlines(verdicts),
        verdicts=verdict_counts(verdicts),
        claims=claim_rows(verdicts),
        noise=noise_rows(table),
        frontiers=frontier_rows(table),
        cost=cost,
        methods=methods_facts(table, run),
        figures={figure.name: figure for figure in made if figure is not None},
        table=table,
    )
