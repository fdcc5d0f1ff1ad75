"""Curves long: what happened inside the stage runs, by step, from their metrics.jsonl."""

from collections.abc import Iterator
from typing import Any

import polars as pl

from indelible.results.run_folder import StudyRun, read_metrics

TRAINED, STOPPED, WATCHED = "train", "stop", "watch"  # kinds of points
_KINDS = {"eval": STOPPED, "watch": WATCHED}  # group of the key in metrics.jsonl to the kind
_TYPES: dict[str, type[pl.DataType]] = {
    "run": pl.String,
    "stage": pl.String,
    "step": pl.Int64,
    "tokens": pl.Int64,
    "kind": pl.String,
    "corpus": pl.String,
    "nats_per_token": pl.Float64,
    "standard_error": pl.Float64,
}


def curves(run: StudyRun) -> pl.DataFrame:
    """Every point of every stage run, each run once.

    Returns:
        ``run``, its id (`results_table` has it under ``<stage>_id``); ``stage``; ``step``, optimizer steps done, 0
        before the first; ``tokens``, trained so far in this stage; ``kind``: ``train`` (of the batches of the step, no
        corpus), ``stop`` (held-out windows that stop the stage) or ``watch`` (the reported windows, where the study
        asks for curves); ``corpus``; ``nats_per_token``; ``standard_error``, of watched points; and a column for
        everything else that training logs (``lr``, ``grad_norm``, ...).
    """
    names = [one.id for one in run.plan.stage_runs]
    stages = {one.id: one.stage for one in run.plan.stage_runs}
    rows = [{"run": name, "stage": stages[name], **point} for name in names for point in points(run, name)]
    logged = dict.fromkeys(key for row in rows for key in row if key not in _TYPES)
    types: dict[str, type[pl.DataType]] = {**_TYPES, **dict.fromkeys(logged, pl.Float64)}
    return pl.DataFrame({name: pl.Series(name, [row.get(name) for row in rows], dtype, strict=False)
                         for name, dtype in types.items()})  # fmt: skip


def points(run: StudyRun, run_id: str) -> Iterator[dict[str, Any]]:
    """The points of one stage run: step, tokens, kind, corpus, nats_per_token, and what was logged beside them."""
    for record in read_metrics(run.root, run_id):
        place = {"step": int(record.get("step") or 0), "tokens": int(record.get("tokens") or 0)}
        by_corpus: dict[tuple[str, str | None], dict[str, Any]] = {}
        for key, value in record.items():
            group, _, name = key.partition("/")
            if group == "train":
                point = by_corpus.setdefault((TRAINED, None), {})
                point["nats_per_token" if name == "loss" else name] = value
            elif group in _KINDS:
                of, _, number = name.rpartition("/")
                by_corpus.setdefault((_KINDS[group], of), {})[number] = value
        for (kind, corpus), values in by_corpus.items():
            yield {**place, "kind": kind, "corpus": corpus, **values}
