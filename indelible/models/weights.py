"""The digest of a model's weights: the same numbers are the same model, however a file lays them out."""

import hashlib
from collections.abc import Mapping

import torch


def weights_sha256(state: Mapping[str, torch.Tensor]) -> str:
    """Hex digest over names, shapes and bytes of fp32 weights, in the order of their names."""
    digest = hashlib.sha256()
    for name in sorted(state):
        tensor = state[name].detach().contiguous().cpu()
        digest.update(f"{name}{tuple(tensor.shape)}{tensor.dtype}".encode())
        digest.update(tensor.numpy().tobytes())
    return digest.hexdigest()
