"""Losses long: one row for each chain, checkpoint and corpus. What the results table shows of them are views."""

from typing import Any

import polars as pl

from indelible.records import Evaluation, PlannedChain
from indelible.results.chain_settings import settings_frame
from indelible.results.run_folder import StudyRun

_NUMBERS: dict[str, type[pl.DataType]] = {
    "nats_per_token": pl.Float64,
    "bits_per_byte": pl.Float64,
    "standard_error": pl.Float64,  # of nats_per_token, clustered by document
    "tokens": pl.Int64,  # targets that count
    "documents": pl.Int64,
    "windows": pl.Int64,
    "loss_on": pl.String,
}
_KEYS = ("chain", "stage", "checkpoint", "corpus", "evaluation", "status")


def losses(run: StudyRun) -> pl.DataFrame:
    """Every loss that the plan asks for, made or not, as (chain, stage, corpus).

    Returns:
        ``study``; ``chain``, the number of the row in the results table; the chain's settings and seeds; ``stage``,
        after which the loss was taken (``start``: before the first one, of a given checkpoint); ``checkpoint``, its
        run id or ``given-...``; ``corpus``; ``evaluation``, its id; ``is_first``; ``status``, as of a chain;
        ``nats_per_token``, ``bits_per_byte``, ``standard_error``, ``tokens``, ``documents``, ``windows``, ``loss_on``.

        Chains share checkpoints, and then their losses: a row for each chain, so that a chain can be filtered and
        grouped by its settings. What is counted over losses themselves is counted where ``is_first``: there each
        evaluation stands once.
    """
    rows = evaluation_rows(run)
    settings = settings_frame(run.plan.chains).with_row_index("chain").cast({"chain": pl.Int64})
    joined = rows.join(settings, on="chain", how="left", maintain_order="left")
    names = [name for name in settings.columns if name not in ("study", "chain")]
    first = pl.col("evaluation").is_first_distinct().alias("is_first")
    order = ["study", "chain", *names, *(name for name in _KEYS if name not in ("chain", "status"))]
    return joined.with_columns(first).select(*order, "is_first", "status", *_NUMBERS)


def evaluation_rows(run: StudyRun) -> pl.DataFrame:
    """The losses without settings: chain, stage, checkpoint, corpus, evaluation, status, and the numbers."""
    keys: list[tuple[int, str, str, str, str, str]] = []
    made: list[Evaluation | None] = []
    for number, chain in enumerate(run.plan.chains):
        for stage, checkpoint in run.checkpoints(chain).items():
            for corpus, name in run.planned_evaluations(chain, checkpoint).items():
                one = run.evaluations.get(name)
                keys.append((number, stage, checkpoint, corpus, name, evaluation_status(run, chain, checkpoint, one)))
                made.append(one)
    columns: dict[str, Any] = dict(zip(_KEYS, zip(*keys, strict=True), strict=True)) if keys else {}
    for name in _NUMBERS:
        columns[name] = [None if one is None else getattr(one, name) for one in made]
    types: dict[str, type[pl.DataType]] = {**dict.fromkeys(_KEYS, pl.String), "chain": pl.Int64, **_NUMBERS}
    return pl.DataFrame({name: pl.Series(name, columns.get(name, []), dtype) for name, dtype in types.items()})


def evaluation_status(run: StudyRun, chain: PlannedChain, checkpoint: str, made: Evaluation | None) -> str:
    """``done`` or ``diverged`` once it is made; else what a stage run before it, or the attempt at it, has come to."""
    if made is not None:
        return made.status
    before = [checkpoint]
    if checkpoint in chain.stages.values():
        ids = list(chain.stages.values())
        before = ids[: ids.index(checkpoint) + 1]
    if any(name in run.results and run.results[name].status == "diverged" for name in before):
        return "diverged"
    return "failed" if any(name in run.failures for name in before) else "incomplete"
