"""Which held-out windows stop a stage and which are reported, read from the stores and checked."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from indelible.data.ledger import corpus_of
from indelible.data.loader import Batch, HeldoutSplit, read_heldout, split_heldout
from indelible.data.pairs import PairBatch
from indelible.data.row_reader import num_rows, target_documents
from indelible.data.store import TokenStore
from indelible.errors import UserError
from indelible.study.row_rules import RowRules
from indelible.study.stage_spec import EvaluationSpec


@dataclass(frozen=True)
class ReportedWindows:
    """Held-out windows of one corpus that losses are reported on, and the document of each of their targets."""

    heldout: Batch
    documents: npt.NDArray[np.int64]  # (N, T), numbers in the held-out split


@dataclass(frozen=True)
class ReportedPairs:
    """Held-out pairs of answers, and the prompt of each."""

    pairs: PairBatch
    numbers: npt.NDArray[np.int64]  # (N,), among the pairs of the held-out split that fit
    prompts: npt.NDArray[np.int64]  # (N,), the same for equal prompts


def windows_of(
    spec: EvaluationSpec, stores: Mapping[str, TokenStore], windows: int | None = None
) -> ReportedWindows | ReportedPairs:
    """The held-out windows that a loss is reported on: never those that stop a stage, always the same.

    Args:
        spec: the evaluation.
        stores: by folder name.
        windows: how many, where that is not what the evaluation says.

    Raises:
        UserError: the split is too small, or none of the windows' targets counts.
    """
    store = stores[spec.store]
    split = heldout_split(store, spec.stop_windows, windows or spec.windows, spec.seq_len, spec.rules)
    if store.has_pairs:
        return read_pairs(store, split.first_window, split.windows, spec.seq_len)
    heldout = read_counting(store, split.first_window, split.windows, spec.seq_len, spec.rules)
    numbers = np.arange(split.first_window, split.first_window + split.windows)
    return ReportedWindows(heldout, target_documents(store, "heldout", numbers, spec.seq_len, spec.rules))


def read_pairs(store: TokenStore, first: int, count: int, seq_len: int) -> ReportedPairs:
    """``count`` held-out pairs from number ``first`` on: always the same ones."""
    numbers = np.arange(first, first + count, dtype=np.int64)
    table = store.pairs("heldout")
    return ReportedPairs(table.read(numbers, seq_len), numbers, table.prompts(numbers, seq_len))


def heldout_split(store: TokenStore, stop_windows: int, windows: int, seq_len: int, rules: RowRules) -> HeldoutSplit:
    """Which held-out windows of a store stop a stage and which are reported."""
    corpus, available = corpus_of(store.folder.name), num_rows(store, "heldout", seq_len, rules)
    return split_heldout(corpus, available, stop_windows=stop_windows, windows=windows, seq_len=seq_len)


def read_counting(store: TokenStore, first: int, count: int, seq_len: int, rules: RowRules) -> Batch:
    """Held-out windows with at least one target that counts.

    Raises:
        UserError: there is none in them: their loss would be 0 / 0.
    """
    heldout = read_heldout(store, first, count, seq_len, rules)
    if not heldout.valid.any():
        raise UserError(
            f"corpus {corpus_of(store.folder.name)!r}: held-out windows {first} to {first + count - 1} hold no token "
            f"of a completion, and data.loss_on = {rules.loss_on} counts no others; raise evaluation.windows and "
            "evaluation.stop_windows, give the corpus shorter prompts or more text, or set data.loss_on: all."
        )
    return heldout
