"""The micro batches of a step's pairs: short pairs apart from long ones, so that little padding is computed.

Padding stands on the right, where under causal attention nothing that counts depends on it: rows without it have the
same losses but for the rounding of other shapes. With dropout all rows keep their full length and their order, since
masks are drawn over whole shapes and would be others.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from indelible.data.loader import Batch
from indelible.data.pairs import ROWS
from indelible.objectives import PairObjective
from indelible.objectives.base import ActiveGuard
from indelible.train.answers import pair_loss
from indelible.train.batch import padded
from indelible.train.distributed import World
from indelible.train.preference import Preference, StepPairs
from indelible.train.program import Program

GROUPS = 4  # of lengths, at most, that a step is divided into where micro batches may be of any shape
Indices = npt.NDArray[np.int64]


@dataclass(frozen=True)
class PairPiece:
    """Some pairs of this rank."""

    objective: PairObjective
    batch: Batch  # their rows, two a pair
    start: torch.Tensor  # log-probabilities at the start of the stage, (pairs, 2)
    numbers: Indices  # (pairs,), where they stand among the pairs of this rank
    size: int  # pairs; filled up with pairs that do not count
    divisor: float
    found: torch.Tensor  # (pairs of this rank, 2): log-probabilities now are put here

    def losses(self, program: Program, guard: ActiveGuard | None) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Forward: sums over the pairs of the objective, and of a guard over targets."""
        every = slice(0, ROWS * self.size)
        inputs, targets, weights, _ = padded(self.batch, every, ROWS * self.size, program.device.torch_device)
        start = self.start.new_zeros((self.size, ROWS))
        start[: len(self.start)] = self.start
        loss, held, now = program.run(pair_loss, self.objective, guard, inputs, targets, weights, start)
        self.found[torch.from_numpy(self.numbers)] = now[: len(self.numbers)]
        return loss, held


def pair_pieces(
    step: StepPairs, preference: Preference, micro_batch_size: int | None, world: World, device: torch.device
) -> tuple[list[PairPiece], torch.Tensor]:
    """The pairs of a step in micro batches, equally many on all ranks.

    Args:
        step: of all ranks.
        preference: the stage.
        micro_batch_size: sequences at a time, of which a pair is two; None = all.
        world: the ranks.
        device: where they are computed.

    Returns:
        The micro batches, and where they put their log-probabilities: (pairs of this rank, 2).
    """
    share = -(-len(step.pairs) // world.size)
    found = torch.zeros((share, ROWS), device=device)
    if not len(step.pairs):
        return [], found
    size = min(max(1, (micro_batch_size or ROWS * share) // ROWS), share)
    own = slice(world.rank * share, (world.rank + 1) * share)
    mine, start = step.pairs[own], torch.from_numpy(step.start[own]).to(device)
    trim = preference.trim
    if trim is None:
        groups = [np.arange(first, min(first + size, len(mine))) for first in range(0, share, size)]
    else:
        is_free = trim.is_free and world.size == 1
        groups = length_groups(mine.widths, size, preference.seq_len // GROUPS if is_free else None)
        groups += [np.zeros(0, np.int64)] * (-(-share // size) - len(groups))  # other ranks may have more
    divisor = len(step.pairs) / step.share
    pieces = []
    for group in groups:
        rows = (ROWS * group[:, None] + np.arange(ROWS)).ravel()
        batch = Batch(mine.tokens[rows], mine.valid[rows])
        if trim is not None:
            batch = batch.without_padding(trim.step)
        filled = len(group) if trim is not None and trim.is_free and world.size == 1 else size
        pieces.append(PairPiece(preference.objective, batch, start[group], group, filled, divisor, found))
    return pieces, found


def length_groups(widths: Indices, size: int, apart: int | None) -> list[Indices]:
    """Which pairs go through the model together: neighbours in length, at most ``size``.

    Args:
        widths: predicted tokens of each pair.
        size: pairs a group, at most.
        apart: pairs whose widths differ in how many times this they fill are never in one group; None = no matter.
    """
    order = np.argsort(widths, kind="stable").astype(np.int64)
    borders = np.zeros(0, np.int64) if apart is None else np.flatnonzero(np.diff((widths[order] - 1) // apart)) + 1
    return [run[at : at + size] for run in np.split(order, borders) for at in range(0, len(run), size)]
