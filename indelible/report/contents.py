"""What the report shows, gathered from a study run before any of it becomes HTML.

A new chart is a file beside this one and a line in `_figures`: its own ``place`` says where on the page it stands.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import polars as pl

from indelible.claims.by_exposure import exposure_blocks
from indelible.claims.looks import looks_text, planned_levels, read_looks
from indelible.claims.paper_claims import study_verdicts
from indelible.claims.stage_seeds_text import stage_seeds_text
from indelible.claims.verdicts import Verdict
from indelible.report.charts_cost import cost_figure
from indelible.report.charts_effects import effects_figure
from indelible.report.charts_erased import erased_figure, with_gains
from indelible.report.charts_lambda import lambda_figure
from indelible.report.charts_ledger import ledger_figure
from indelible.report.charts_paths import paths_figure
from indelible.report.charts_retention import retention_figure
from indelible.report.charts_runs import curves_figure
from indelible.report.charts_settings import settings_figure
from indelible.report.charts_tradeoff import tradeoff_figure
from indelible.report.cost_summary import Cost, study_cost, table_cost
from indelible.report.exposure import ExposureView, exposure_view
from indelible.report.figure import Figure
from indelible.report.headline import Headline, first_sentence, headlines
from indelible.report.methods import run_facts, settings_facts
from indelible.report.next_steps import NextStep, next_steps, source_of
from indelible.report.settled import settled_rows
from indelible.report.summaries import ClaimRow, claim_rows, error_note, frontier_rows, noise_rows, verdict_counts
from indelible.results.columns import STATUSES
from indelible.results.labels import with_labels
from indelible.results.run_folder import StudyRun
from indelible.results.table import results_table
from indelible.results.words import checkpoint_text
from indelible.statistics.inference import Inference


@dataclass(frozen=True)
class Contents:
    """Everything on the page."""

    name: str
    scale: str
    given: str  # the checkpoints that all chains start from, by name; empty where some chain draws its weights
    description: str
    statuses: dict[str, int]  # number of chains by status
    num_seeds: int  # with a finished chain
    has_exposure: bool  # some chain shows D_post in pretraining; else the paper's claims are not asked
    inference: Inference  # how it is judged
    first_sentence: str  # what is settled, and what it would cost to settle the rest
    headlines: list[Headline]
    notes: tuple[str, ...]  # what in the study is out of proportion
    steps: list[NextStep]  # what to run next, and what it costs
    exposure: ExposureView | None  # how much to show, and whether it is worth it
    settled: list[dict[str, str]]  # of a small study: its effects, and beside them what settled ones look like
    looks: str  # whether the table was looked at by a plan, in one sentence
    verdicts: dict[str, int]  # number of findings by verdict
    claims: list[ClaimRow]
    noise: list[dict[str, str]]
    error_note: str  # whether seeds or evaluation windows dominate, where the table says
    stage_seeds: str  # which stage's seeds make the spread and what to buy, where the table has seeds by stage
    frontiers: list[dict[str, str]]
    cost: Cost
    methods: dict[str, list[tuple[str, str]]]
    figures: dict[str, Figure]  # by name, in the order of the page
    table: pl.DataFrame  # with labels, and the finished chains numbered (column chain)


def report_contents(run: StudyRun) -> Contents:
    """Builds the table, the verdicts and every figure that the study's chains allow."""
    return _contents(
        results_table(run),
        run,
        name=run.plan.name or run.root.name,
        scale=run.plan.scale,
        description=run.plan.description,
        cost=study_cost(run),
    )


def table_contents(results: pl.DataFrame, places: Sequence[Path] = ()) -> Contents:
    """The same of a results table alone: without curves, ledgers, specifications and the environment.

    Args:
        results: the table.
        places: where it was read, for the commands that the page names.
    """
    return _contents(
        results,
        None,
        name=_joined(results["study"]),
        scale=_joined(results["scale"]),
        description="From a results table: losses, verdicts and frontiers; curves and ledgers are in the run folders.",
        cost=table_cost(results),
        places=places,
    )


def _contents(
    plain: pl.DataFrame,
    run: StudyRun | None,
    *,
    name: str,
    scale: str,
    description: str,
    cost: Cost,
    places: Sequence[Path] = (),
) -> Contents:
    table = _with_labels(plain)
    looks = [] if run is None else read_looks(run.root)
    inference = Inference() if run is None else Inference(**run.plan.inference.model_dump())
    verdicts = study_verdicts(plain, inference, planned=planned_levels(looks))
    shown, blocks = headlines(verdicts), exposure_blocks(plain, inference)
    counts = Counter(table["status"].to_list())
    num_seeds = table.filter(pl.col("status") == "done")["seed"].n_unique()
    methods = settings_facts(table) | ({} if run is None else run_facts(run))
    return Contents(
        name=name,
        scale=scale,
        given="" if run is None else _given(run),
        description=description,
        statuses={status: counts[status] for status in STATUSES if counts[status]},
        num_seeds=num_seeds,
        has_exposure=bool((table["exposure_fraction"].fill_null(0.0) > 0).any()),
        inference=inference,
        first_sentence=first_sentence(shown, plain),
        headlines=shown,
        notes=() if run is None else run.plan.notes,
        steps=next_steps(plain, verdicts, inference, source_of(plain, run, places, looks), blocks),
        exposure=exposure_view(blocks),
        settled=settled_rows(verdicts, num_seeds),
        looks=looks_text(looks),
        verdicts=verdict_counts(verdicts),
        claims=claim_rows(verdicts),
        noise=noise_rows(table),
        error_note=error_note(plain),
        stage_seeds=stage_seeds_text(plain, inference),
        frontiers=frontier_rows(table),
        cost=cost,
        methods=methods,
        figures={figure.name: figure for figure in _figures(plain, table, verdicts, cost, scale, run)},
        table=table,
    )


def _figures(
    plain: pl.DataFrame, table: pl.DataFrame, verdicts: list[Verdict], cost: Cost, scale: str, run: StudyRun | None
) -> list[Figure]:
    """Every figure that there is something for, in the order of the page."""
    exposure = retention_figure(plain)
    made = [
        exposure,
        effects_figure(verdicts, scale),
        lambda_figure(table),
        _erased(table if run is None else with_gains(table, run), is_main=exposure is None),
        tradeoff_figure(table),
        settings_figure(table),
    ]
    if run is not None:
        made += [curves_figure(table, run), paths_figure(table, run), ledger_figure(table, run)]
    made.append(cost_figure(cost))
    return [figure for figure in made if figure is not None]


def _erased(table: pl.DataFrame, *, is_main: bool) -> Figure | None:
    """What was erased; without exposure it is what the page begins with, and its numbers stand below it."""
    figure = erased_figure(table)
    if figure is None:
        return None
    return replace(figure, place="summary") if is_main else replace(figure, rows=())


def _given(run: StudyRun) -> str:
    """The given checkpoints that the chains start from; the scale says nothing of their size."""
    starts = dict.fromkeys(chain.start for chain in run.plan.chains)
    if None in starts:
        return ""
    return ", ".join(checkpoint_text(run.plan.given.get(str(start), str(start))) for start in starts)


def _with_labels(results: pl.DataFrame) -> pl.DataFrame:
    """With labels, and the finished chains numbered."""
    is_done = pl.col("status") == "done"
    return with_labels(results).with_columns(pl.when(is_done).then(is_done.cum_sum().cast(pl.Int64) - 1).alias("chain"))


def _joined(values: pl.Series) -> str:
    return ", ".join(values.drop_nulls().unique(maintain_order=True))
