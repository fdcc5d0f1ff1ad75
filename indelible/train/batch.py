"""From windows in memory to tensors on a device, always of one shape."""

import numpy as np
import torch

from indelible.data.loader import Batch


def padded(
    batch: Batch, rows: slice, size: int, device: torch.device
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Some rows of a batch, filled up with rows of weight 0.

    A constant shape keeps compiled programs from being compiled again for the last, smaller batch.

    Returns:
        Inputs and targets int64 (size, T), weights float32 (size, T).
    """
    tokens, valid = batch.tokens[rows], batch.valid[rows]
    missing = size - len(tokens)
    if missing:
        tokens = np.concatenate([tokens, np.zeros((missing, tokens.shape[1]), tokens.dtype)])
        valid = np.concatenate([valid, np.zeros((missing, valid.shape[1]), valid.dtype)])
    both = torch.from_numpy(tokens).to(device, non_blocking=True)
    weights = torch.from_numpy(valid.astype(np.float32)).to(device, non_blocking=True)
    return both[:, :-1].contiguous(), both[:, 1:].contiguous(), weights
