"""The micro batches of an optimizer step: windows of text, and in a preference stage pairs of answers."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from indelible.data.loader import Batch
from indelible.objectives import NextToken
from indelible.objectives.base import ActiveGuard, ObjectiveSettings
from indelible.train.batch import padded
from indelible.train.context import StageContext
from indelible.train.distributed import World
from indelible.train.pair_pieces import PairPiece, pair_pieces
from indelible.train.preference import StepPairs
from indelible.train.program import Program

Losses = tuple[
    torch.Tensor, torch.Tensor | None
]  # sums over a micro batch: of the objective, and of a guard over targets


@dataclass(frozen=True)
class WindowPiece:
    """Some windows of this rank."""

    objective: ObjectiveSettings
    batch: Batch  # all windows of this rank
    first: int
    size: int  # rows; filled up with rows that do not count
    divisor: float  # of the sum of the objective

    def losses(self, program: Program, guard: ActiveGuard | None) -> Losses:
        """Forward."""
        rows = slice(self.first, self.first + self.size)
        micro = padded(self.batch, rows, self.size, program.device.torch_device)
        return program.step_loss(self.objective, guard, *micro)


def step_pieces(
    context: StageContext, batch: Batch, num_valid: int, pairs: StepPairs | None
) -> tuple[Sequence[WindowPiece | PairPiece], torch.Tensor]:
    """The micro batches of a step. In a preference stage its windows have the next-token loss, beside the pairs.

    Args:
        context: of the stage.
        batch: the windows of the step.
        num_valid: targets that count in the step.
        pairs: the pairs of the step; None in other stages.

    Returns:
        The micro batches, and where those of pairs put their log-probabilities: (pairs of this rank, 2).
    """
    device, world, training = context.program.device, context.world, context.spec.training
    micro = device.micro_batch_size
    if pairs is None or context.preference is None:
        share = world.share_of(training.global_batch_size)
        return window_pieces(batch, context.spec.objective, num_valid, share, micro, world), torch.zeros((0, 2))
    pieces, found = pair_pieces(pairs, context.preference, micro, world, device.torch_device)
    divisor = max(1, int(batch.valid.sum())) / (1 - pairs.share) if len(batch.valid) else 1.0
    share = math.ceil(len(batch.valid) / world.size)
    return [*pieces, *window_pieces(batch, NextToken(), divisor, share, micro, world)], found


def window_pieces(
    batch: Batch, objective: ObjectiveSettings, divisor: float, share: int, micro_batch_size: int | None, world: World
) -> list[WindowPiece]:
    """The windows of a step in micro batches of one shape, equally many on all ranks.

    Args:
        batch: of all ranks.
        objective: what is minimised.
        divisor: of its sum.
        share: windows that one rank takes, at most.
        micro_batch_size: sequences at a time; None = all.
        world: the ranks.
    """
    if not len(batch.tokens):
        return []
    mine, size = world.slice_of(batch, share), min(micro_batch_size or share, share)
    starts = range(0, min(len(batch.tokens), share), size)
    return [WindowPiece(objective, mine, first, size, divisor) for first in starts]
