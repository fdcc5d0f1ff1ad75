"""Held-out pairs of answers: log-probabilities of whole answers, and what is measured of them.

A checkpoint's evaluation keeps the log-probabilities of every pair, and so needs no reference: what a model has gained
on the one that its preference stage started from follows from two evaluations (`indelible.results.preference`).
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from indelible.data.loader import Batch
from indelible.data.pairs import ROWS, PairBatch
from indelible.objectives.preference import Floats, Measure, own_measures, ratio
from indelible.train.distributed import World
from indelible.train.evaluate import DocumentLosses, losses_by_document, target_losses
from indelible.train.heldout import ReportedPairs, ReportedWindows
from indelible.train.program import Program


@dataclass(frozen=True)
class PairLosses(DocumentLosses):
    """The losses of one model on some pairs. A document is a pair; tokens and nats are those of its better answer."""

    rejected_tokens: npt.NDArray[np.int64]  # targets of the worse answer
    rejected_nats: npt.NDArray[np.float64]  # sum of their losses
    prompt: npt.NDArray[np.int64]  # the same for equal prompts

    @property
    def standard_error(self) -> float | None:
        """Of `mean`, clustered by prompt."""
        return ratio(self.nats, self.tokens.astype(np.float64), self.prompt).standard_error

    @property
    def measures(self) -> dict[str, Measure]:
        """Accuracy and margin."""
        return own_measures(-np.stack([self.nats, self.rejected_nats], axis=1), self.prompt)


def reported_losses(program: Program, windows: ReportedWindows | ReportedPairs, world: World) -> DocumentLosses:
    """The losses on reported windows or pairs.

    Args:
        program: the model; it is left in the mode it was in.
        windows: what it is evaluated on.
        world: the ranks that share them; all get the same result.
    """
    if isinstance(windows, ReportedWindows):
        return losses_by_document(program, windows, world)
    nats, tokens = -answer_log_probs(program, windows.pairs, world), windows.pairs.answer_tokens
    return PairLosses(windows.numbers, tokens[:, 0], nats[:, 0], tokens[:, 1], nats[:, 1], windows.prompts)


def answer_log_probs(program: Program, pairs: PairBatch, world: World) -> Floats:
    """Log-probabilities of both answers of each pair, in fp32 arithmetic and without dropout: float64 (N, 2)."""
    rows = Batch(pairs.tokens, pairs.valid)
    own = target_losses(program, world.equal_slice_of(rows))
    losses = world.gather_rows(own, len(rows.valid))
    return -np.where(rows.valid, losses, 0.0).sum(1, dtype=np.float64).reshape(-1, ROWS)
