"""What must hold of rows of whole documents, checked on the rows as they are read for training."""

import numpy as np

from indelible.data.row_reader import read_rows, row_counts, target_documents
from indelible.data.store import TokenStore
from indelible.study.row_rules import RowRules

_READ_ROWS = 256  # rows of a corpus that are read again, spread over it


def rows_hold_whole_documents(store: TokenStore, seq_len: int, rules: RowRules) -> bool:
    """Whether every training document stands in one row, whole (or cut or left out as the rules say), and fits it."""
    if rules.packing == "stream":
        return True
    plan = store.row_plan("train", seq_len, rules.packing, rules.too_long)
    is_cut = rules.too_long == "cut"
    kept = plan.documents if is_cut else plan.documents - plan.too_long
    is_once = len(plan.document) == kept == len(np.unique(plan.document))
    filled = np.bincount(plan.row, plan.size, minlength=len(plan))
    whole = np.array([len(store.document("train", int(number))[0]) for number in plan.document], np.int64)
    is_whole = bool((np.minimum(whole, seq_len + 1) == plan.size).all()) and (
        is_cut or bool((whole == plan.size).all())
    )
    return is_once and is_whole and bool((filled <= seq_len + 1).all()) and bool((np.diff(plan.first) > 0).all())


def rows_are_counted(store: TokenStore, seq_len: int, rules: RowRules) -> bool:
    """Whether rows, read as for training, train on as many tokens as are counted, each of a document of the row."""
    if rules.packing == "stream":
        return True
    counts = row_counts(store, "train", seq_len, rules)
    rows = np.unique(np.linspace(0, len(counts.trained) - 1, _READ_ROWS).round().astype(np.int64))
    batch = read_rows(store, "train", rows, seq_len, rules)
    documents = target_documents(store, "train", rows, seq_len, rules)
    is_same = np.array_equal(batch.valid.sum(1), counts.trained[rows])
    distinct = [len(np.unique(line[line >= 0])) for line in documents]
    # a document of one token at a row's start has no target
    return is_same and not (batch.valid & (documents < 0)).any() and bool((distinct <= counts.examples[rows]).all())
