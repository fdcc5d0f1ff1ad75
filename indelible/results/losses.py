"""Losses long: one row for each chain, checkpoint and corpus. What the results table shows of them are views."""

from typing import Any

import polars as pl

from indelible.objectives.preference import MEASURES
from indelible.records import Evaluation, PlannedChain
from indelible.results.chain_settings import settings_frame
from indelible.results.preference import REFERENCE, PairMeasures, Reference, references
from indelible.results.run_folder import TASK_MEASURES, StudyRun

_NUMBERS: dict[str, type[pl.DataType]] = {
    "nats_per_token": pl.Float64,
    "bits_per_byte": pl.Float64,
    "standard_error": pl.Float64,  # of nats_per_token, clustered by document
    "tokens": pl.Int64,  # targets that count
    "documents": pl.Int64,
    "windows": pl.Int64,
    "loss_on": pl.String,
}
_OF_PAIRS: dict[str, type[pl.DataType]] = {  # where the study has a corpus of pairs of answers
    **{name: pl.Float64 for measure in MEASURES for name in (measure, f"{measure}_se")},
    REFERENCE: pl.String,
}
_OF_TASKS: dict[str, type[pl.DataType]] = {  # where the study has tasks
    name: pl.Float64 for measure in TASK_MEASURES for name in (measure, f"{measure}_se")
}
_NOT_OF_TASKS = dict.fromkeys(("tokens", "windows"))  # a task has examples alone
_KEYS = ("chain", "stage", "checkpoint", "corpus", "evaluation", "status")


def losses(run: StudyRun) -> pl.DataFrame:
    """Every loss and accuracy that the plan asks for, made or not, as (chain, stage, corpus or task).

    Returns:
        ``study``; ``chain``, the number of the row in the results table; the chain's settings and seeds; ``stage``,
        after which the loss was taken (``start``: before the first one, of a given checkpoint); ``checkpoint``, its
        run id or ``given-...``; ``corpus``; ``evaluation``, its id; ``is_first``; ``status``, as of a chain;
        ``nats_per_token``, ``bits_per_byte``, ``standard_error``, ``tokens``, ``documents``, ``windows``, ``loss_on``.
        Of a study with pairs of answers also `indelible.results.preference.MEASURES`, each with ``_se``, and
        ``reference``, the checkpoint that they are measured against. Of a study with tasks also ``accuracy`` and
        ``accuracy_se``; then ``corpus`` is a task, ``documents`` counts its examples, and there is no loss.

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
    return joined.with_columns(first).select(*order, "is_first", "status", *numbers_of(run))


def evaluation_rows(run: StudyRun) -> pl.DataFrame:
    """The losses without settings: chain, stage, checkpoint, corpus, evaluation, status, and the numbers.

    Chains share checkpoints, so the rows of each checkpoint are made once and then repeated for every chain of it.
    """
    made = _Rows(run)
    chains: list[int] = []
    picked: list[int] = []
    for number, chain in enumerate(run.plan.chains):
        for places in made.of_chain(chain):
            chains.extend([number] * len(places))
            picked.extend(places)
    return made.frame()[picked].with_columns(chain=pl.Series(chains, dtype=pl.Int64)).select(*_KEYS, *made.numbers)


class _Rows:
    """The distinct rows of losses: one for each checkpoint, by the way to it, and each corpus."""

    def __init__(self, run: StudyRun) -> None:
        self.run, self.numbers, self._measures = run, numbers_of(run), PairMeasures(run)
        self._columns: dict[str, list[Any]] = {name: [] for name in (*_KEYS[1:], *self.numbers)}
        self._places: dict[tuple[object, ...], range] = {}

    def of_chain(self, chain: PlannedChain) -> list[range]:
        """For each checkpoint of a chain the places of its rows."""
        steps, seq_len = tuple(self.run.checkpoints(chain).items()), self.run.seq_len(chain)
        keys = [(seq_len, steps[: end + 1]) for end in range(len(steps))]
        if keys[-1] not in self._places:  # the way to the last checkpoint is that to all
            for key, step in zip(keys, references(self.run, chain), strict=True):
                if key not in self._places:
                    self._places[key] = self._added(chain, *step)
        return [self._places[key] for key in keys]

    def frame(self) -> pl.DataFrame:
        """All rows so far; without ``chain``."""
        types: dict[str, type[pl.DataType]] = {**dict.fromkeys(_KEYS[1:], pl.String), **self.numbers}
        return pl.DataFrame({name: pl.Series(name, self._columns[name], dtype) for name, dtype in types.items()})

    def _added(self, chain: PlannedChain, stage: str, checkpoint: str, reference: Reference | None) -> range:
        run, first = self.run, len(self._columns["stage"])
        at_start = run.planned_evaluations(chain, reference.checkpoint) if reference is not None else {}
        planned = run.planned_evaluations(chain, checkpoint)
        for corpus, name in planned.items():
            made = run.evaluations.get(name)
            values = stage, checkpoint, corpus, name, evaluation_status(run, chain, checkpoint, made)
            for key, value in zip(_KEYS[1:], values, strict=True):
                self._columns[key].append(value)
            found: dict[str, Any] = {}
            if corpus in run.pair_corpora:
                found |= self._measures.against(checkpoint, name, reference, at_start.get(corpus))
                found[REFERENCE] = reference and reference.checkpoint
            elif corpus in run.tasks:
                found |= _NOT_OF_TASKS
            for key in self.numbers:
                self._columns[key].append(found[key] if key in found else getattr(made, key, None))
        return range(first, first + len(planned))


def numbers_of(run: StudyRun) -> dict[str, type[pl.DataType]]:
    """The columns that hold a loss and what belongs to it, with their types."""
    return _NUMBERS | (_OF_PAIRS if run.pair_corpora else {}) | (_OF_TASKS if run.tasks else {})


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
