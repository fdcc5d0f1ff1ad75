"""Batches of a stage, read from the memory-mapped stores in the order of the ledger. It has no state to save."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
import numpy.typing as npt

from indelible.data.ledger import Ledger

IntArray = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]


class WindowReader(Protocol):
    """What the loader needs of a token store."""

    def read(self, split: str, windows: IntArray, seq_len: int) -> tuple[IntArray, BoolArray | None]:
        """Tokens (N, seq_len + 1) and, for corpora with prompts, the mask (N, seq_len) of completion targets."""
        ...


@dataclass(frozen=True)
class Batch:
    """Some windows, ready for the model."""

    tokens: IntArray  # (N, seq_len + 1): inputs are [:, :-1], targets [:, 1:]
    valid: BoolArray  # (N, seq_len): targets that count in the loss


def read_batch(
    ledger: Ledger,
    stores: Mapping[str, WindowReader],
    rows: slice,
    loss_on: Literal["all", "completion"] = "all",
) -> Batch:
    """The windows of ledger rows ``rows``; fewer than asked at the end of the stage."""
    source = ledger.source[rows]
    window = ledger.window[rows].astype(np.int64)
    tokens = np.empty((len(window), ledger.seq_len + 1), np.int64)
    valid = np.ones((len(window), ledger.seq_len), np.bool_)
    for index, store in enumerate(ledger.sources):
        here = source == index
        if not here.any():
            continue
        tokens[here], mask = stores[store].read("train", window[here], ledger.seq_len)
        if loss_on == "completion" and mask is not None:
            valid[here] = mask
    return Batch(tokens, valid)


def read_heldout(
    store: WindowReader, num_windows: int, seq_len: int, loss_on: Literal["all", "completion"] = "all"
) -> Batch:
    """The first ``num_windows`` windows of a held-out split: always the same ones."""
    tokens, mask = store.read("heldout", np.arange(num_windows, dtype=np.int64), seq_len)
    use_mask = loss_on == "completion" and mask is not None
    return Batch(tokens, mask if use_mask else np.ones((num_windows, seq_len), np.bool_))
