"""Held-out losses: sums over tokens divided by their number, in fp32, without dropout, on windows that never change."""

import math
from dataclasses import dataclass

import numpy as np
import torch

from indelible.data.loader import Batch
from indelible.train.distributed import World
from indelible.train.program import Program

EVAL_TOKENS = 4096  # predicted tokens per forward: large enough to be fast, small enough for any vocabulary


@dataclass(frozen=True)
class HeldoutLoss:
    """Loss of one model on one held-out split."""

    nats_per_token: float
    bits_per_byte: float
    tokens: int  # targets that count
    windows: int

    def as_json(self, loss_on: str) -> dict[str, float | int | str]:
        """The entry of result.json."""
        return {
            "nats_per_token": self.nats_per_token,
            "bits_per_byte": self.bits_per_byte,
            "tokens": self.tokens,
            "windows": self.windows,
            "loss_on": loss_on,
        }


def evaluate(program: Program, heldout: Batch, bytes_per_token: float, world: World) -> HeldoutLoss:
    """Mean loss over the valid targets of some windows.

    Args:
        program: the model; it is left in the mode it was in.
        heldout: the windows.
        bytes_per_token: bytes of text per token of this split, to express the loss in bits per byte.
        world: the ranks that share the windows; all get the same result.
    """
    total = world.sum(total_loss(program, world.equal_slice_of(heldout)))
    tokens = int(heldout.valid.sum())
    nats = total / tokens if tokens else math.nan
    return HeldoutLoss(nats, nats / math.log(2) / bytes_per_token, tokens, len(heldout.valid))


@torch.no_grad()
def total_loss(program: Program, heldout: Batch) -> float:
    """Sum of the losses at the valid targets of some windows, nats; the program is left in the mode it was in."""
    was_training = program.model.training
    program.model.eval()
    num_windows, seq_len = heldout.valid.shape
    size = max(1, min(num_windows, EVAL_TOKENS // seq_len))
    total = 0.0
    for start in range(0, num_windows, size):
        inputs, targets, weights = padded(heldout, slice(start, start + size), size, program.device.torch_device)
        with program.device.whole_fp32():
            total += program.loss_sum(inputs, targets, weights).double().item()
    program.model.train(was_training)
    return total


def padded(
    batch: Batch, rows: slice, size: int, device: torch.device
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Inputs, targets (int64) and weights (float32), each (size, T): some rows of a batch, filled up with weight 0.

    A constant shape keeps compiled programs from being compiled again for the last, smaller batch.
    """
    tokens, valid = batch.tokens[rows], batch.valid[rows]
    missing = size - len(tokens)
    if missing:
        tokens = np.concatenate([tokens, np.zeros((missing, tokens.shape[1]), tokens.dtype)])
        valid = np.concatenate([valid, np.zeros((missing, valid.shape[1]), valid.dtype)])
    both = torch.from_numpy(tokens).to(device, non_blocking=True)
    weights = torch.from_numpy(valid.astype(np.float32)).to(device, non_blocking=True)
    return both[:, :-1].contiguous(), both[:, 1:].contiguous(), weights
