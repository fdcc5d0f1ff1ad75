"""Weights from their files, and their digest: the same numbers are the same model, however files lay them out."""

import hashlib
from collections.abc import Mapping
from pathlib import Path

import torch


def weights_sha256(state: Mapping[str, torch.Tensor]) -> str:
    """Hex digest over names, shapes and bytes of fp32 weights, in the order of their names."""
    digest = hashlib.sha256()
    for name in sorted(state):
        tensor = state[name].detach().contiguous().cpu()
        digest.update(f"{name}{tuple(tensor.shape)}{tensor.dtype}".encode())
        digest.update(tensor.numpy().tobytes())
    return digest.hexdigest()


def read_state(folder: Path) -> dict[str, torch.Tensor]:
    """The weights of a checkpoint folder, fp32, from one safetensors file or its shards."""
    from safetensors.torch import load_file

    state: dict[str, torch.Tensor] = {}
    for file in sorted(folder.glob("model*.safetensors")):
        state.update(load_file(file))
    return {name: weight.float() for name, weight in state.items()}
