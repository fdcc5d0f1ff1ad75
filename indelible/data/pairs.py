"""Pairs of a better and a worse answer to one prompt, read from a token store whose documents are pairs.

A pair lies in its shard as prompt, better answer, end of text, worse answer, end of text; of conversations as their
common beginning and the rest of each, with a mask of what the assistant says there. It is read as two rows, each
prompt and one answer, padded on the right: under causal attention no token sees what stands behind it, so that padding
needs no mask. A pair whose prompt and longer answer do not fit into a row is left out and counted, never cut.
"""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

ROWS = 2  # of a pair: the better answer, then the worse one


@dataclass(frozen=True)
class PairBatch:
    """Some pairs, ready for the model: rows 2 i and 2 i + 1 are the better and the worse answer of pair i."""

    tokens: npt.NDArray[np.int64]  # (2 N, seq_len + 1): inputs are [:, :-1], targets [:, 1:]
    valid: npt.NDArray[np.bool_]  # (2 N, seq_len): targets that count: those of the answer, its end of text included;
    # of a conversation those of its assistant's turns

    def __len__(self) -> int:
        return len(self.tokens) // ROWS

    @property
    def answer_tokens(self) -> npt.NDArray[np.int64]:
        """Targets of each answer: (N, 2)."""
        return self.valid.sum(1).reshape(-1, ROWS)

    @property
    def widths(self) -> npt.NDArray[np.int64]:
        """Predicted tokens of the longer row of each pair up to the last that counts: (N,)."""
        last = self.valid.shape[1] - np.argmax(self.valid[:, ::-1], axis=1)
        return last.reshape(-1, ROWS).max(1)

    def __getitem__(self, pairs: slice) -> "PairBatch":
        rows = slice(ROWS * pairs.start, ROWS * pairs.stop)
        return PairBatch(self.tokens[rows], self.valid[rows])


class PairTable:
    """The pairs of one side of a store."""

    def __init__(
        self, tables: list[Path], tokens: list[npt.NDArray[Any]], parts: list[npt.NDArray[np.uint8]] | None = None
    ) -> None:
        """Reads where the pairs lie.

        Args:
            tables: the Parquet files with the documents of each shard.
            tokens: the tokens of each shard.
            parts: of conversations, for each token of each shard: 0 where it does not count; None = answers count
                whole.
        """
        import pyarrow.parquet as pq  # what trains needs no more than pyarrow

        self._tokens, self._parts = tokens, parts
        names = ["start", "tokens", "prompt_tokens", "chosen_tokens"]
        frames = [pq.read_table(path, columns=names) for path in tables]
        columns = {name: [frame[name].to_numpy().astype(np.int64) for frame in frames] for name in names}
        whole = {name: np.concatenate(parts) if parts else np.zeros(0, np.int64) for name, parts in columns.items()}
        self._shard = np.repeat(np.arange(len(frames)), [frame.num_rows for frame in frames])
        self._start, self._prompt = whole["start"], whole["prompt_tokens"]
        rejected = whole["tokens"] - whole["prompt_tokens"] - whole["chosen_tokens"]
        self._answers = np.stack([whole["chosen_tokens"], rejected], axis=1)  # (N, 2)
        self._fitting: dict[int, npt.NDArray[np.int64]] = {}

    def fitting(self, seq_len: int) -> npt.NDArray[np.int64]:
        """Numbers, in the store, of the pairs that fit into rows of ``seq_len`` predicted tokens: int64, rising."""
        if seq_len not in self._fitting:
            longest = self._prompt + self._answers.max(axis=1, initial=0)
            self._fitting[seq_len] = np.flatnonzero(longest <= seq_len + 1)
        return self._fitting[seq_len]

    def widths(self, numbers: npt.NDArray[np.int64], seq_len: int) -> npt.NDArray[np.int64]:
        """Predicted tokens of the longer row of some pairs: int64 (N,)."""
        chosen = self.fitting(seq_len)[np.asarray(numbers, np.int64)]
        return self._prompt[chosen] + self._answers[chosen].max(axis=1, initial=0) - 1

    def too_long(self, seq_len: int) -> int:
        """Pairs that do not fit."""
        return len(self._prompt) - len(self.fitting(seq_len))

    def read(self, numbers: npt.NDArray[np.int64], seq_len: int) -> PairBatch:
        """Reads pairs.

        Args:
            numbers: int64 (N,), each below the number of pairs that fit.
            seq_len: predicted tokens a row.
        """
        chosen = self.fitting(seq_len)[np.asarray(numbers, np.int64)]
        tokens = np.zeros((ROWS * len(chosen), seq_len + 1), np.int64)
        valid = np.zeros((ROWS * len(chosen), seq_len), np.bool_)
        for place, pair in enumerate(chosen.tolist()):
            shard, start, prompt = self._tokens[self._shard[pair]], int(self._start[pair]), int(self._prompt[pair])
            begin = start + prompt
            for side, size in enumerate(self._answers[pair].tolist()):
                row, end = ROWS * place + side, prompt + size
                tokens[row, :prompt] = shard[start : start + prompt]
                tokens[row, prompt:end] = shard[begin : begin + size]
                counts = np.zeros(end, np.bool_)
                counts[prompt:] = self._counting(pair, begin, size)
                valid[row, : end - 1] = counts[1:]
                begin += size
        return PairBatch(tokens, valid)

    def _counting(self, pair: int, begin: int, size: int) -> npt.NDArray[np.bool_] | bool:
        """Which of the tokens of an answer, ``size`` from ``begin`` on in its shard, count."""
        return True if self._parts is None else self._parts[self._shard[pair]][begin : begin + size] != 0

    def answer_tokens(self, numbers: npt.NDArray[np.int64], seq_len: int) -> npt.NDArray[np.int64]:
        """Tokens of both answers that count as they lie in the store, end of text included: int64 (N, 2)."""
        return self._counted[self.fitting(seq_len)[np.asarray(numbers, np.int64)]]

    @cached_property
    def _counted(self) -> npt.NDArray[np.int64]:
        """Of every pair, how many tokens of each answer count: int64 (N, 2)."""
        if self._parts is None:
            return self._answers
        found = np.zeros_like(self._answers)
        for pair, sizes in enumerate(self._answers.tolist()):
            begin = int(self._start[pair] + self._prompt[pair])
            for side, size in enumerate(sizes):
                found[pair, side] = np.count_nonzero(self._counting(pair, begin, size))
                begin += size
        return found

    def prompts(self, numbers: npt.NDArray[np.int64], seq_len: int) -> npt.NDArray[np.int64]:
        """A number for the prompt of each pair, the same for equal prompts: int64 (N,)."""
        known: dict[bytes, int] = {}
        found = []
        for pair in self.fitting(seq_len)[np.asarray(numbers, np.int64)].tolist():
            start = int(self._start[pair])
            text = self._tokens[self._shard[pair]][start : start + int(self._prompt[pair])].tobytes()
            found.append(known.setdefault(text, len(known)))
        return np.array(found, np.int64)
