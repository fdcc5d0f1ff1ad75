"""Rows of a token store by number, whatever its documents are packed by; and how many tokens of each row count."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from indelible.data.batch import Batch, BoolArray, IntArray
from indelible.data.chat import ASSISTANT, COMPLETION
from indelible.data.pairs import ROWS
from indelible.data.row_plan import RowPlan
from indelible.data.store import TokenStore
from indelible.study.corpus_spec import LossOn
from indelible.study.row_rules import RowRules


def counting(mask: npt.NDArray[np.bool_] | npt.NDArray[np.uint8] | None, loss_on: LossOn) -> BoolArray | None:
    """Which of some tokens count in the loss; None = all.

    Args:
        mask: of a store: bool, true in completions; or the bits of `indelible.data.chat`; None in one without parts.
        loss_on: which tokens are trained on. Of a prompt and its completion, the assistant says the completion.
    """
    if mask is None or loss_on == "all":
        return None
    if mask.dtype == np.bool_:
        return mask.astype(np.bool_, copy=False)
    return (mask & (ASSISTANT if loss_on == "assistant" else COMPLETION)) != 0


def num_rows(store: TokenStore, split: str, seq_len: int, rules: RowRules) -> int:
    """Rows of ``seq_len`` predicted tokens that a side of a store holds.

    Raises:
        UserError: a document is longer than a row, and the rules have no word on that.
    """
    if rules.packing == "stream":
        return store.num_windows(split, seq_len)
    return len(store.row_plan(split, seq_len, rules.packing, rules.too_long))


def read_rows(store: TokenStore, split: str, rows: IntArray, seq_len: int, rules: RowRules) -> Batch:
    """Reads rows of whole documents by number.

    A row has the tokens of its documents one after the other from its start on, then padding of id 0. The first token
    of a document is no target. With ``best_fit`` each document has positions of its own, and so has the padding.
    """
    assert rules.packing != "stream"
    plan = store.row_plan(split, seq_len, rules.packing, rules.too_long)
    tokens = np.zeros((len(rows), seq_len + 1), np.int64)
    valid = np.zeros((len(rows), seq_len + 1), np.bool_)
    places = np.zeros((len(rows), seq_len + 1), np.int64)
    for line, row in enumerate(np.asarray(rows, np.int64).tolist()):
        at = 0
        for example in range(*_examples(plan, row)):
            size = int(plan.size[example])
            ids, mask = store.document(split, int(plan.document[example]))
            here = slice(at, at + size)
            tokens[line, here] = ids[:size]
            counts = counting(mask, rules.loss_on)
            valid[line, here] = True if counts is None else counts[:size]
            valid[line, at] = False
            places[line, here] = np.arange(size)
            at += size
        places[line, at:] = np.arange(seq_len + 1 - at)
    return Batch(tokens, valid[:, 1:], places[:, :-1] if rules.packing == "best_fit" else None)


def _examples(plan: RowPlan, row: int) -> tuple[int, int]:
    if not 0 <= row < len(plan):
        raise IndexError(f"row {row}, of {len(plan)}")
    return int(plan.first[row]), int(plan.first[row + 1])


def target_documents(store: TokenStore, split: str, rows: IntArray, seq_len: int, rules: RowRules) -> IntArray:
    """The document that each target of some rows belongs to, numbered through the split: int64 (N, seq_len).

    A target of padding has the number -1.
    """
    if rules.packing == "stream":
        return store.target_documents(split, rows, seq_len)
    plan = store.row_plan(split, seq_len, rules.packing, rules.too_long)
    documents = np.full((len(rows), seq_len + 1), -1, np.int64)
    for line, row in enumerate(np.asarray(rows, np.int64).tolist()):
        mine = slice(*_examples(plan, row))
        filled = np.repeat(plan.document[mine], plan.size[mine])
        documents[line, : len(filled)] = filled
    return documents[:, 1:]


@dataclass(frozen=True)
class RowCounts:
    """How much stands in each row of one side of a store."""

    examples: IntArray  # (rows,) documents; 0 in a stream, whose windows do not heed them
    tokens: IntArray  # (rows,) without padding; of a window its predicted tokens, of a pair those of both its rows
    trained: IntArray  # (rows,) targets that count in the loss


def row_counts(store: TokenStore, split: str, seq_len: int, rules: RowRules) -> RowCounts:
    """Counts every row of one side of a store: reads its mask where there is one. A pair of answers is one row."""
    if store.has_pairs:
        answers = store.pairs(split).answer_tokens(np.arange(store.num_windows(split, seq_len)), seq_len)
        rows = len(answers)
        return RowCounts(np.ones(rows, np.int64), np.full(rows, ROWS * seq_len, np.int64), answers.sum(1))
    if rules.packing == "stream":
        rows = store.num_windows(split, seq_len)
        full = np.full(rows, seq_len, np.int64)
        if not store.has_mask or rules.loss_on == "all":
            return RowCounts(np.zeros(rows, np.int64), full, full)
        trained = [np.zeros(0, np.int64)]
        for mask in store.masks(split):
            count = max(len(mask) - 1, 0) // seq_len
            counts = counting(mask[1 : count * seq_len + 1], rules.loss_on)
            assert counts is not None
            trained.append(counts.reshape(count, seq_len).sum(1))
        return RowCounts(np.zeros(rows, np.int64), full, np.concatenate(trained))
    plan = store.row_plan(split, seq_len, rules.packing, rules.too_long)
    targets = plan.size - 1
    if store.has_mask and rules.loss_on != "all":
        for example, (document, size) in enumerate(zip(plan.document.tolist(), plan.size.tolist(), strict=True)):
            counts = counting(store.document(split, document)[1], rules.loss_on)
            assert counts is not None
            targets[example] = np.count_nonzero(counts[1:size])
    row = plan.row

    def summed(values: IntArray) -> IntArray:
        return np.bincount(row, values, minlength=len(plan)).astype(np.int64)  # exact: below 2^53

    return RowCounts(np.diff(plan.first), summed(plan.size), summed(targets))
