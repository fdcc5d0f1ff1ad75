"""Batches of a stage and held-out windows, read from the memory-mapped stores. There is no state to save."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from indelible.data.batch import Batch, IntArray
from indelible.data.ledger import Ledger
from indelible.data.row_reader import counting, read_rows
from indelible.data.store import TokenStore
from indelible.errors import UserError
from indelible.study.row_rules import RowRules

__all__ = ["Batch", "HeldoutSplit", "read_batch", "read_heldout", "read_part", "split_heldout"]


@dataclass(frozen=True)
class HeldoutSplit:
    """Which windows of a held-out split stop a stage, and which are reported; no window does both."""

    stop_windows: int  # the first ones of the split
    windows: int  # those that follow them

    @property
    def first_window(self) -> int:
        """The first window that is reported."""
        return self.stop_windows


def read_batch(ledger: Ledger, stores: Mapping[str, TokenStore], rows: slice | IntArray) -> Batch:
    """The windows that stand in ``rows`` of a ledger.

    Args:
        ledger: data order of the stage.
        stores: token stores by folder name.
        rows: of the ledger; a slice beyond its end gives the last, smaller batch.
    """
    source = ledger.source[rows]
    window = ledger.window[rows].astype(np.int64)
    tokens = np.empty((len(window), ledger.seq_len + 1), np.int64)
    valid = np.ones((len(window), ledger.seq_len), np.bool_)
    positions = None  # of all rows of a stage, or of none: what is computed must not depend on the batch
    if any(ledger.rules_of(use).packing == "best_fit" for use in range(len(ledger.uses))):
        positions = np.tile(np.arange(ledger.seq_len), (len(window), 1))
    for index, name in enumerate(ledger.stores):  # of each use
        here = source == index
        if not here.any():
            continue
        part = read_part(stores[name], "train", window[here], ledger.seq_len, ledger.rules_of(index))
        tokens[here], valid[here] = part.tokens, part.valid
        if positions is not None and part.positions is not None:
            positions[here] = part.positions
    return Batch(tokens, valid, positions)


def read_part(store: TokenStore, split: str, rows: IntArray, seq_len: int, rules: RowRules) -> Batch:
    """Some rows of one store, with the targets that count by its rules."""
    if rules.packing != "stream":
        return read_rows(store, split, rows, seq_len, rules)
    tokens, mask = store.read(split, rows, seq_len)
    counts = counting(mask, rules.loss_on)
    return Batch(tokens, np.ones((len(rows), seq_len), np.bool_) if counts is None else counts)


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
    store: TokenStore, first_window: int, num_windows: int, seq_len: int, rules: RowRules | None = None
) -> Batch:
    """``num_windows`` windows of a held-out split from ``first_window`` on: always the same ones.

    Args:
        store: of the corpus.
        first_window: the first of them.
        num_windows: how many.
        seq_len: predicted tokens a window.
        rules: how documents become windows, and which targets count; None = a stream, and all.
    """
    rows = np.arange(first_window, first_window + num_windows, dtype=np.int64)
    return read_part(store, "heldout", rows, seq_len, rules or RowRules())
