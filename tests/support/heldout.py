"""Held-out losses without this project's engine: windows by numpy, losses by transformers."""

import json
from pathlib import Path

import numpy as np
import torch
from transformers import AutoModelForCausalLM


def read_windows(store: Path, first: int, count: int, seq_len: int) -> np.ndarray:
    """Held-out windows with numpy alone, as docs/token-store.md says: int64 (count, seq_len + 1)."""
    manifest = json.loads((store / "manifest.json").read_text())
    (shard,) = manifest["shards"]["heldout"]
    tokens = np.load(store / shard["files"][0]["name"])
    places = range(first, first + count)
    return np.stack([tokens[i * seq_len : i * seq_len + seq_len + 1] for i in places]).astype(np.int64)


def losses_by_transformers(checkpoint: Path, windows: np.ndarray) -> np.ndarray:
    """The loss of every target of some windows (N, T + 1), nats: float64 (N, T)."""
    model = AutoModelForCausalLM.from_pretrained(checkpoint, dtype=torch.float32).eval()
    tokens = torch.from_numpy(windows)
    with torch.no_grad():
        logits = model(input_ids=tokens[:, :-1]).logits.double()
    targets = tokens[:, 1:].reshape(-1)
    losses = torch.nn.functional.cross_entropy(logits.flatten(0, 1), targets, reduction="none")
    return losses.view(len(windows), -1).numpy()


def nats_by_transformers(checkpoint: Path, windows: np.ndarray) -> float:
    """The mean loss of some windows, nats per token."""
    return float(losses_by_transformers(checkpoint, windows).mean())
