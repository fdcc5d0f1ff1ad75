"""Some rows in memory, ready for the model."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

IntArray = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Batch:
    """Some rows: windows of a stream, or whole documents."""

    tokens: IntArray  # (N, seq_len + 1): inputs are [:, :-1], targets [:, 1:]
    valid: BoolArray  # (N, seq_len): targets that count in the loss
    positions: IntArray | None = None  # (N, seq_len): of each input in its document, where attention is reset at the
    # borders of documents; None = from 0 in every row, and nothing is reset

    def rows(self, rows: slice) -> "Batch":
        """Some of the rows."""
        positions = None if self.positions is None else self.positions[rows]
        return Batch(self.tokens[rows], self.valid[rows], positions)

    def without_padding(self, step: int = 8) -> "Batch":
        """The batch without the columns at its end in which no target counts, to a multiple of ``step``.

        In a causal model nothing that counts depends on them. Only for rows without positions.
        """
        assert self.positions is None
        used = np.flatnonzero(self.valid.any(axis=0))
        width = min(self.valid.shape[1], -(-(int(used[-1]) + 1) // step) * step if len(used) else step)
        return Batch(self.tokens[:, : width + 1], self.valid[:, :width])

    def filled_up(self, size: int) -> "Batch":
        """The batch with rows at its end that do not count, ``size`` in all."""
        if not (missing := size - len(self.tokens)):
            return self
        width = self.valid.shape[1]
        tokens = np.concatenate([self.tokens, np.zeros((missing, width + 1), self.tokens.dtype)])
        valid = np.concatenate([self.valid, np.zeros((missing, width), np.bool_)])
        positions = self.positions
        if positions is not None:
            positions = np.concatenate([positions, np.tile(np.arange(width), (missing, 1))])
        return Batch(tokens, valid, positions)
