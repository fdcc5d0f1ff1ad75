"""Held-out losses: sums over tokens divided by their number, in fp32, without dropout, on windows that never change.

Two ways to the same number: `mean_loss` keeps a sum and is what stops a stage; `losses_by_document` keeps the loss of
every target, from which the standard error comes. They agree to the rounding of fp32 sums.
"""

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from indelible.data.loader import Batch
from indelible.train.batch import padded
from indelible.train.distributed import World
from indelible.train.heldout import ReportedWindows
from indelible.train.program import Program

EVAL_TOKENS = 4096  # predicted tokens per forward: large enough to be fast, small enough for any vocabulary


def mean_loss(program: Program, heldout: Batch, world: World) -> float:
    """Mean loss over the valid targets of some windows, nats per token.

    Args:
        program: the model; it is left in the mode it was in.
        heldout: the windows.
        world: the ranks that share the windows; all get the same result.
    """
    total = world.sum(total_loss(program, world.equal_slice_of(heldout)))
    tokens = int(heldout.valid.sum())
    return total / tokens if tokens else math.nan


@torch.no_grad()
def total_loss(program: Program, heldout: Batch) -> float:
    """Sum of the losses at the valid targets of some windows, nats; the program is left in the mode it was in."""
    was_training = program.model.training
    program.model.eval()
    num_windows, seq_len = heldout.valid.shape
    size = max(1, min(num_windows, EVAL_TOKENS // seq_len))
    total = 0.0
    for start in range(0, num_windows, size):
        micro = padded(heldout, slice(start, start + size), size, program.device.torch_device)
        with program.device.whole_fp32():
            total += program.loss_sum(*micro).item()  # a Python number: sums are in double
    program.model.train(was_training)
    return total


@torch.no_grad()
def target_losses(program: Program, heldout: Batch) -> npt.NDArray[np.float32]:
    """The loss at every target of some windows, nats: (N, T); the program is left in the mode it was in."""
    was_training = program.model.training
    program.model.eval()
    num_windows, seq_len = heldout.valid.shape
    size = max(1, min(num_windows, EVAL_TOKENS // seq_len))
    parts = [np.zeros((0, seq_len), np.float32)]
    for start in range(0, num_windows, size):
        micro = padded(heldout, slice(start, start + size), size, program.device.torch_device)
        with program.device.whole_fp32():
            losses = program.token_losses(micro.inputs, micro.targets, micro.positions).cpu().numpy()
        parts.append(losses[: num_windows - start])
    program.model.train(was_training)
    return np.concatenate(parts)


@dataclass(frozen=True)
class DocumentLosses:
    """The losses of one model on some windows, summed by document."""

    document: npt.NDArray[np.int64]  # number in the held-out split, rising
    tokens: npt.NDArray[np.int64]  # targets that count
    nats: npt.NDArray[np.float64]  # sum of their losses

    @property
    def mean(self) -> float:
        """Nats per token; NaN without a target."""
        tokens = int(self.tokens.sum())
        return float(self.nats.sum()) / tokens if tokens else math.nan

    @property
    def standard_error(self) -> float | None:
        """Of `mean`, clustered by document: targets of one text are not independent. None with less than two.

        The ratio estimator's linearisation with the factor G / (G - 1) for G documents (Cochran, Sampling Techniques,
        section 6.3 and 9A).
        """
        clusters, tokens = len(self.document), int(self.tokens.sum())
        if clusters < 2 or not tokens:
            return None
        residuals = self.nats - self.mean * self.tokens
        return math.sqrt(clusters / (clusters - 1) * float((residuals**2).sum())) / tokens


def losses_by_document(program: Program, windows: ReportedWindows, world: World) -> DocumentLosses:
    """The losses of some windows, summed by the documents that their targets belong to.

    Args:
        program: the model; it is left in the mode it was in.
        windows: what it is evaluated on.
        world: the ranks that share the windows; all get the same result.
    """
    valid = windows.heldout.valid
    own = target_losses(program, world.equal_slice_of(windows.heldout))
    losses = world.gather_rows(own, len(valid))
    numbers, place = np.unique(windows.documents[valid], return_inverse=True)
    nats = np.asarray(np.bincount(place, losses[valid].astype(np.float64), minlength=len(numbers)), np.float64)
    return DocumentLosses(numbers, np.bincount(place, minlength=len(numbers)), nats)
