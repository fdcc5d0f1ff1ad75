"""Which documents stand in which row, where documents stay whole: one a row, or as many as fit.

`best_fit` is best-fit-decreasing bin packing: from the longest document to the shortest, each goes into the fullest row
that still has room for it. What a row holds depends on the sizes alone, never on a seed.
"""

from bisect import bisect_left, insort
from collections import deque
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

IntArray = npt.NDArray[np.int64]


@dataclass(frozen=True)
class RowPlan:
    """The rows of one side of a corpus; documents are numbered through that side."""

    document: IntArray  # (examples,) of each example, row after row; in a row they rise
    size: IntArray  # (examples,) tokens of it that are read, from its first on
    first: IntArray  # (rows + 1,) first example of each row, and their number
    documents: int  # of the side, those that stand in no row included
    too_long: int  # documents of more than seq_len + 1 tokens: cut, or in no row
    longest: int  # tokens of the longest document

    def __len__(self) -> int:
        return len(self.first) - 1

    @property
    def row(self) -> IntArray:
        """(examples,) the row of each example."""
        return np.repeat(np.arange(len(self)), np.diff(self.first))


def plan_rows(
    sizes: IntArray, seq_len: int, packing: Literal["documents", "best_fit"], too_long: Literal["error", "drop", "cut"]
) -> RowPlan:
    """Places documents in rows.

    Args:
        sizes: tokens of each document, int64 (documents,).
        seq_len: predicted tokens a row, which so holds ``seq_len + 1`` tokens.
        packing: one document a row, or as many as fit.
        too_long: what becomes of a document that is longer than a row: its first tokens stand in it, or nothing does.
    """
    room = seq_len + 1
    is_longer = sizes > room
    kept = np.arange(len(sizes)) if too_long == "cut" else np.flatnonzero(~is_longer)
    read = np.minimum(sizes[kept], room)
    if packing == "best_fit":
        row = _best_fit(read, room)
        by_row = np.argsort(row, kind="stable")
        kept, read = kept[by_row], read[by_row]
        first = np.concatenate([[0], np.cumsum(np.bincount(row))]) if len(row) else np.zeros(1, np.int64)
    else:
        first = np.arange(len(kept) + 1)
    return RowPlan(
        kept.astype(np.int64),
        read.astype(np.int64),
        first.astype(np.int64),
        len(sizes),
        int(is_longer.sum()),
        int(sizes.max(initial=0)),
    )


def _best_fit(sizes: IntArray, room: int) -> IntArray:
    """The row of each document, rows in the order of their first documents."""
    row = np.empty(len(sizes), np.int64)
    open_rows: dict[int, deque[int]] = {}  # tokens of room left to the rows that have it, the oldest first
    rooms: list[int] = []  # the keys, rising
    count = 0
    for document in np.argsort(-sizes, kind="stable").tolist():
        size = int(sizes[document])
        place = bisect_left(rooms, size)
        if place < len(rooms):
            left = rooms[place]
            row[document] = number = open_rows[left].popleft()
            if not open_rows[left]:
                del open_rows[left], rooms[place]
        else:
            left, number = room, count
            row[document], count = count, count + 1
        left -= size
        if left:
            if left not in open_rows:
                open_rows[left] = deque()
                insort(rooms, left)
            open_rows[left].append(number)
    _, begins = np.unique(row, return_index=True)  # of each row its first document
    rank = np.empty(count, np.int64)
    rank[np.argsort(begins, kind="stable")] = np.arange(count)
    return rank[row]
