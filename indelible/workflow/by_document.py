"""Two checkpoints of a study run, paired by held-out document: their files read, what cannot be paired refused."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from indelible.data.ledger import corpus_of
from indelible.errors import UserError, refusing
from indelible.records import Evaluation, Plan, documents_path, evaluation_path
from indelible.statistics.by_document import DocumentComparison, compare_documents
from indelible.study.stage_spec import EvaluationSpec
from indelible.workflow.choosing import planned_id

# of an evaluation: which windows, which targets
_KEYS = ("store", "seq_len", "loss_on", "packing", "too_long", "stop_windows", "windows")


@dataclass(frozen=True)
class CorpusComparison:
    """Run B minus run A on the held-out documents of one corpus."""

    corpus: str
    run_a: str  # checkpoint ids
    run_b: str
    found: DocumentComparison


def compare_checkpoints(
    folder: Path, plan: Plan, run_a: str, run_b: str, corpus: str | None, level: float
) -> list[CorpusComparison]:
    """See `indelible.workflow.reading.StudyRuns.compare_documents`."""
    known = [*(run.id for run in plan.stage_runs), *plan.given]
    ids = [planned_id(known, text, "--by-document") for text in (run_a, run_b)]
    if ids[0] == ids[1]:
        raise UserError(f"--by-document {run_a} {run_b}: both are {ids[0]}; name two checkpoints.")
    kinds = [_kinds(plan, checkpoint) for checkpoint in ids]
    shared = [name for name in kinds[0] if name in kinds[1]]
    if not shared or (corpus is not None and corpus not in shared):
        wanted, there = "" if corpus is None else f" --corpus {corpus}", ", ".join(shared) or "no common corpus"
        raise UserError(
            f"--by-document {ids[0]} {ids[1]}{wanted}: both are evaluated on {there}; "
            "name one of these, or add the corpus to evaluation.corpora and run the study again."
        )
    found = []
    for name in shared if corpus is None else [corpus]:
        for first, second in _pairs(name, ids, kinds[0][name], kinds[1][name]):
            frame = _joined(_documents(folder, ids[0], first), _documents(folder, ids[1], second), name, ids)
            result = compare_documents(frame["document"], frame["tokens"], frame["nats"], frame["nats_b"], level)
            found.append(CorpusComparison(name, ids[0], ids[1], result))
    return found


def _kinds(plan: Plan, checkpoint: str) -> dict[str, dict[str, EvaluationSpec]]:
    """By corpus: the evaluations of a checkpoint by id, and what windows they are on."""
    found: dict[str, dict[str, EvaluationSpec]] = {}
    for name, kind in plan.evaluations.get(checkpoint, {}).items():
        spec = plan.heldout[kind]
        found.setdefault(corpus_of(spec.store), {})[name] = spec
    return found


def _pairs(
    corpus: str, ids: list[str], first: dict[str, EvaluationSpec], second: dict[str, EvaluationSpec]
) -> Iterator[tuple[str, str]]:
    """Evaluations of the same windows and targets; refused where there are none."""
    by_kind = {tuple(getattr(spec, key) for key in _KEYS): name for name, spec in second.items()}
    pairs = []
    for name, spec in first.items():
        other = by_kind.get(tuple(getattr(spec, key) for key in _KEYS))
        if other is not None:
            pairs.append((name, other))
    if not pairs:
        one, two = next(iter(first.values())), next(iter(second.values()))
        differ = [key for key in _KEYS if getattr(one, key) != getattr(two, key)]
        was = ", ".join(f"{key} {getattr(one, key)} and {getattr(two, key)}" for key in differ)
        raise UserError(
            f"--by-document {ids[0]} {ids[1]}: on {corpus} they are evaluated with {was}; documents are paired only on "
            "the same windows and targets. Name two runs with one evaluation, or another --corpus."
        )
    yield from pairs


def _documents(folder: Path, checkpoint: str, evaluation: str) -> pl.DataFrame:
    record = Evaluation.read(evaluation_path(folder, checkpoint, evaluation))
    path = documents_path(folder, checkpoint, evaluation)
    if record is None or not path.is_file():
        raise UserError(
            f"{path}: no such file: {checkpoint} is not evaluated yet, or diverged; "
            "a comparison by document needs finished evaluations. Run the study to its end, or name another run."
        )
    with refusing(
        lambda why: f"{path}: no table of losses by document ({why}); delete it and its .json, and run again."
    ):
        frame = pl.read_parquet(path).select(
            pl.col("document").cast(pl.Int64), pl.col("tokens").cast(pl.Int64), pl.col("nats").cast(pl.Float64)
        )
    frame = frame.filter(pl.col("tokens") > 0)
    if record.nats_per_token is None or not frame["nats"].is_finite().all():
        raise UserError(f"{path}: the loss of {checkpoint} is not finite; a diverged checkpoint has no differences.")
    return frame


def _joined(first: pl.DataFrame, second: pl.DataFrame, corpus: str, ids: list[str]) -> pl.DataFrame:
    """Both checkpoints' losses, document by document; refused where one has other documents or other targets."""
    frame = first.join(second, on=["document", "tokens"], suffix="_b").sort("document")
    if frame.height != first.height or frame.height != second.height or not frame.height:
        raise UserError(
            f"--by-document {ids[0]} {ids[1]}: on {corpus} {first.height:,} and {second.height:,} documents, of which "
            f"{frame.height:,} have the same number and tokens in both; only evaluations of the same windows are "
            "paired. Remove the evaluations of both and run the study again, or name another --corpus."
        )
    return frame
