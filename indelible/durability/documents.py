"""What the choice of held-out documents adds to an interval: paired by document, at the end of the trials.

Losses by document are kept of checkpoints, not of points inside a stage. So the error is taken at the end of trials, as
a part of the loss that was lost there, and carried over to the loss lost at a gain in proportion.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

from indelible.durability.trials import Trial
from indelible.records import documents_path
from indelible.results.run_folder import StudyRun

MOST_TRIALS = 48  # a side that are read: their errors hardly differ
Numbers = NDArray[np.float64]


@dataclass(frozen=True)
class DocumentErrors:
    """Standard errors by document, relative to what they are errors of."""

    lost: float = 0.0  # of a loss lost, as a part of it
    share: float = 0.0  # of a share lost, as a part of it; 0 without a base
    documents: int = 0


class Documents:
    """Reads losses by document, each file once."""

    def __init__(self, run: StudyRun, keep: str) -> None:
        self._run, self._store = run, run.plan.stores[keep]
        self._read: dict[str, tuple[Numbers, Numbers, Numbers] | None] = {}

    def of(self, checkpoint: str) -> tuple[Numbers, Numbers, Numbers] | None:
        """Document numbers, tokens and nats of a checkpoint on the kept corpus; None where they are not there."""
        if checkpoint not in self._read:
            self._read[checkpoint] = self._load(checkpoint)
        return self._read[checkpoint]

    def _load(self, checkpoint: str) -> tuple[Numbers, Numbers, Numbers] | None:
        kinds = self._run.plan.heldout
        wanted = self._run.plan.evaluations.get(checkpoint, {})
        name = next((one for one, kind in wanted.items() if kinds[kind].store == self._store), None)
        path = None if name is None else documents_path(self._run.root, checkpoint, name)
        if path is None or not path.is_file():
            return None
        frame = pl.read_parquet(path).filter(pl.col("tokens") > 0).sort("document")
        columns = [frame[column].to_numpy().astype(np.float64) for column in ("document", "tokens", "nats")]
        return (columns[0], columns[1], columns[2]) if np.isfinite(columns[2]).all() and frame.height > 1 else None


def document_errors(files: Documents, trials: Sequence[Trial], base: str | None) -> DocumentErrors:
    """The relative errors of one side.

    Args:
        files: of the study.
        trials: of the side, without replay.
        base: checkpoint id of the base, if there is one.
    """
    lost, shares, count = [], [], 0
    for trial in _some(trials):
        changes = _changes(files, trial)
        if changes is None:
            continue
        tokens, risen = changes
        count = max(count, len(tokens))
        lost.append((abs(risen.sum()) / tokens.sum(), _ratio_error(risen, tokens)))
        capability = _capability(files, trial, base)
        if capability is not None and capability.sum() > 0 and len(capability) == len(risen):
            shares.append((abs(risen.sum()) / capability.sum(), _ratio_error(risen, capability)))
    return DocumentErrors(_relative(lost), _relative(shares), count)


def difference_error(files: Documents, first: Sequence[Trial], second: Sequence[Trial]) -> tuple[float, int]:
    """The same of the difference between two checkpoints, paired by document: absolute, in nats per token, at the end.

    Trials of one setting and seed are paired; the mean over pairs of their errors, and the number of documents.
    """
    partner = {(one.setting, one.seed): one for one in second}
    errors, count = [], 0
    for trial in _some([one for one in first if (one.setting, one.seed) in partner]):
        changes = [_changes(files, one) for one in (trial, partner[trial.setting, trial.seed])]
        if changes[0] is None or changes[1] is None or len(changes[0][0]) != len(changes[1][0]):
            continue
        tokens = changes[0][0]
        errors.append(_ratio_error(changes[0][1] - changes[1][1], tokens))
        count = max(count, len(tokens))
    return (float(np.mean(errors)), count) if errors else (0.0, 0)


def _some(trials: Sequence[Trial]) -> Iterable[Trial]:
    """At most `MOST_TRIALS`, evenly spaced."""
    step = max(1, math.ceil(len(trials) / MOST_TRIALS))
    return trials[::step]


def _changes(files: Documents, trial: Trial) -> tuple[Numbers, Numbers] | None:
    """Tokens by document, and by how many nats a trial has risen there."""
    before, after = files.of(trial.checkpoint), files.of(trial.run)
    if before is None or after is None or not np.array_equal(before[0], after[0]):
        return None
    return before[1], after[2] - before[2]


def _capability(files: Documents, trial: Trial, base: str | None) -> Numbers | None:
    """By document, how many nats the checkpoint has won over the base."""
    start, origin = files.of(trial.checkpoint), files.of(base) if base else None
    if start is None or origin is None or not np.array_equal(start[0], origin[0]):
        return None
    return origin[2] - start[2]


def _ratio_error(numerator: Numbers, denominator: Numbers) -> float:
    """Standard error of a ratio of sums over documents, by its linearisation (Cochran, 6.3)."""
    total, clusters = float(denominator.sum()), len(denominator)
    residuals = numerator - float(numerator.sum()) / total * denominator
    return math.sqrt(clusters / (clusters - 1) * float((residuals**2).sum())) / abs(total)


def _relative(found: Sequence[tuple[float, float]]) -> float:
    """Errors over sizes, both summed: trials that lost next to nothing do not decide."""
    size = sum(value for value, _ in found)
    return sum(error for _, error in found) / size if size > 0 else 0.0
