"""Batches of a stage and held-out windows, read from the memory-mapped stores. There is no state to save."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
import numpy.typing as npt

from indelible.data.ledger import Ledger
from indelible.errors import UserError

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


@dataclass(frozen=True)
class HeldoutSplit:
    """Which windows of a held-out split stop a stage, and which are reported; no window does both."""

    stop_windows: int  # the first ones of the split
    windows: int  # those that follow them

    @property
    def first_window(self) -> int:
        """The first window that is reported."""
        return self.stop_windows


def read_batch(
    ledger: Ledger,
    stores: Mapping[str, WindowReader],
    rows: slice,
    loss_on: Literal["all", "completion"] = "all",
) -> Batch:
    """The windows of ledger rows ``rows``; fewer than asked at the end of the stage.

    Args:
        ledger: the stage's data order.
        stores: its token stores by folder name.
        rows: which windows of the stage.
        loss_on: which targets count: all, or in corpora with prompts those of the completion.
    """
    source = ledger.source[rows]
    window = ledger.window[rows].astype(np.int64)
    tokens = np.empty((len(window), ledger.seq_len + 1), np.int64)
    valid = np.ones((len(window), ledger.seq_len), np.bool_)
    for index, store in enumerate(ledger.stores):  # of each use
        here = source == index
        if not here.any():
            continue
        tokens[here], mask = stores[store].read("train", window[here], ledger.seq_len)
        if loss_on == "completion" and mask is not None:
            valid[here] = mask
    return Batch(tokens, valid)


def split_heldout(corpus: str, available: int, *, stop_windows: int, windows: int, seq_len: int) -> HeldoutSplit:
    """Divides a held-out split into the windows that stop a stage and those that are reported.

    Args:
        corpus: its name, for the message.
        available: held-out windows that its store holds at ``seq_len``.
        stop_windows: requested for stopping; at most half of the split is taken.
        windows: requested to be reported; fewer are if the split is smaller.
        seq_len: predicted tokens a window.

    Raises:
        UserError: the split has not one window for each.
    """
    if available < 2:
        raise UserError(
            f"corpus {corpus!r}: its held-out split holds {available} window{'s' * (available != 1)} of {seq_len} "
            "tokens, and at least 2 are needed, one to stop a stage and one to report; raise "
            "data.split.heldout_fraction or max_heldout_tokens, give the corpus more text, or lower seq_len."
        )
    stop = min(stop_windows, available // 2)
    return HeldoutSplit(stop, min(windows, available - stop))


def read_heldout(
    store: WindowReader,
    first_window: int,
    num_windows: int,
    seq_len: int,
    loss_on: Literal["all", "completion"] = "all",
) -> Batch:
    """``num_windows`` windows of a held-out split from ``first_window`` on: always the same ones."""
    tokens, mask = store.read("heldout", np.arange(first_window, first_window + num_windows, dtype=np.int64), seq_len)
    if loss_on == "completion" and mask is not None:
        return Batch(tokens, mask)
    return Batch(tokens, np.ones((num_windows, seq_len), np.bool_))
