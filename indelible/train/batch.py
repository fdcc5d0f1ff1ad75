"""From windows in memory to tensors on a device, always of one shape."""

from typing import NamedTuple

import numpy as np
import torch

from indelible.data.loader import Batch


class MicroBatch(NamedTuple):
    """What one forward takes."""

    inputs: torch.Tensor  # int64 (N, T)
    targets: torch.Tensor  # int64 (N, T)
    weights: torch.Tensor  # float32 (N, T), 1 for targets that count
    positions: torch.Tensor | None  # int64 (N, T), where rows hold several documents; else None


def padded(batch: Batch, rows: slice, size: int, device: torch.device) -> MicroBatch:
    """Some rows of a batch, filled up with rows of weight 0.

    A constant shape keeps compiled programs from being compiled again for the last, smaller batch.
    """
    part = batch.rows(rows).filled_up(size)
    both = torch.from_numpy(part.tokens).to(device, non_blocking=True)
    weights = torch.from_numpy(part.valid.astype(np.float32)).to(device, non_blocking=True)
    places = None if part.positions is None else torch.from_numpy(part.positions).to(device, non_blocking=True)
    return MicroBatch(both[:, :-1].contiguous(), both[:, 1:].contiguous(), weights, places)
