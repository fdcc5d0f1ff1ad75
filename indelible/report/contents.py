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
from indelible.report.cost import Cost, study_cost, table_cost
from indelible.report.figure import Figure
from indelible.report.headline import Headline, headlines
from indelible.report.methods import run_facts, settings_facts
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
    table = _with_labels(results_table(run))
    return _contents(
        table,
        name=str(run.plan.get("name") or run.root.name),
        scale=str(run.plan.get("scale") or ""),
        description=str(run.plan.get("description") or ""),
        cost=study_cost(run),
        methods=settings_facts(table) | run_facts(run),
        traces=[curves_figure(table, run), ledger_figure(table, run)],
    )


def table_contents(results: pl.DataFrame) -> Contents:
    """The same of a results table alone: without curves, ledgers, specifications and the environment."""
    table = _with_labels(results)
    return _contents(
        table,
        name=_joined(table["study"]),
        scale=_joined(table["scale"]),
        description="From a results table: losses, verdicts and frontiers; curves and ledgers are in the run folders.",
        cost=table_cost(table),
        methods=settings_facts(table),
        traces=[],
    )


def _contents(
    table: pl.DataFrame,
    *,
    name: str,
    scale: str,
    description: str,
    cost: Cost,
    methods: dict[str, list[tuple[str, str]]],
    traces: list[Figure | None],
) -> Contents:
    plain = table.drop("series", "exposure", "variant", "settings", "chain")
    verdicts = study_verdicts(plain)
    counts = Counter(table["status"].to_list())
    made = [
        retention_figure(plain),
        effects_figure(verdicts, scale),
        lambda_figure(table),
        tradeoff_figure(table),
        settings_figure(table),
        *traces,
        cost_figure(cost),
    ]
    return Contents(
        name=name,
        scale=scale,
        description=description,
        statuses={status: counts[status] for status in STATUSES if counts[status]},
        num_seeds=table.filter(pl.col("status") == "done")["seed"].n_unique(),
        headlines=headlines(verdicts),
        verdicts=verdict_counts(verdicts),
        claims=claim_rows(verdicts),
        noise=noise_rows(table),
        frontiers=frontier_rows(table),
        cost=cost,
        methods=methods,
        figures={figure.name: figure for figure in made if figure is not None},
        table=table,
    )


def _with_labels(results: pl.DataFrame) -> pl.DataFrame:
    """With labels, and the finished chains numbered."""
    is_done = pl.col("status") == "done"
    return with_labels(results).with_columns(pl.when(is_done).then(is_done.cum_sum().cast(pl.Int64) - 1).alias("chain"))


def _joined(values: pl.Series) -> str:
    return ", ".join(values.drop_nulls().unique(maintain_order=True))
