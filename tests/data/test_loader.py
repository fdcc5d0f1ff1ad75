"""Batches by use, and the held-out windows that stop a stage apart from those that are reported."""

import dataclasses
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from indelible.data.ledger import Ledger
from indelible.data.loader import HeldoutSplit, read_batch, read_heldout, split_heldout
from indelible.errors import UserError
from indelible.study.row_rules import RowRules

SEQ = 4


class Numbered:
    """A store whose window i holds the tokens base + i; its even windows are prompts."""

    def __init__(self, base: int, has_mask: bool = False) -> None:
        self.base, self.has_mask = base, has_mask

    def read(self, split: str, windows: np.ndarray, seq_len: int) -> tuple[np.ndarray, np.ndarray | None]:
        base = self.base + (1000 if split == "heldout" else 0)
        tokens = np.repeat(base + windows[:, None], seq_len + 1, axis=1)
        mask = np.repeat(windows[:, None] % 2 == 1, seq_len, axis=1)
        return tokens, mask if self.has_mask else None


def test_a_batch_reads_each_use_from_its_store():
    source, window = np.array([0, 1, 2, 0, 1], np.uint8), np.array([5, 6, 7, 8, 9], np.uint32)
    ledger = Ledger(("a-1", "b-2", "a-1"), ("a", "b", "a:replay"), source, window, SEQ)
    completions = dataclasses.replace(ledger, rules=(RowRules(loss_on="completion"),) * 3)
    stores = {"a-1": Numbered(100), "b-2": Numbered(200, has_mask=True)}
    batch = read_batch(ledger, stores, slice(0, 4))
    assert batch.tokens[:, 0].tolist() == [105, 206, 107, 108]
    assert batch.tokens.shape == (4, SEQ + 1)
    assert batch.valid.all()
    last = read_batch(completions, stores, slice(1, 9))
    assert last.tokens[:, 0].tolist() == [206, 107, 108, 209]
    assert last.valid[:, 0].tolist() == [False, True, True, True]


def test_held_out_windows_start_where_they_are_asked_to():
    store = Numbered(0, has_mask=True)
    batch = read_heldout(store, 3, 2, SEQ)
    assert batch.tokens[:, 0].tolist() == [1003, 1004]
    assert batch.valid.all()
    rules = RowRules(loss_on="completion")
    assert read_heldout(store, 3, 2, SEQ, rules).valid[:, 0].tolist() == [True, False]
    assert read_heldout(Numbered(0), 0, 3, SEQ, rules).valid.shape == (3, SEQ)


@given(available=st.integers(2, 1000), stop=st.integers(1, 300), windows=st.integers(1, 300))
def test_no_window_both_stops_and_is_reported(available, stop, windows):
    split = split_heldout("music", available, stop_windows=stop, windows=windows, seq_len=SEQ)
    assert split.stop_windows == min(stop, available // 2) >= 1
    assert split.first_window == split.stop_windows
    assert 1 <= split.windows <= windows
    assert split.first_window + split.windows <= available
    if available >= stop + windows and stop <= available // 2:
        assert split == HeldoutSplit(stop, windows)


@pytest.mark.parametrize("available", [0, 1])
def test_a_held_out_split_of_one_window_is_refused(available):
    with pytest.raises(
        UserError,
        match=rf"corpus 'music': its held-out split holds {available} windows? of 4 tokens, and at least 2 are needed.*"
        "raise data.split.heldout_fraction or max_heldout_tokens, give the corpus more text, or lower seq_len",
    ):
        split_heldout("music", available, stop_windows=8, windows=8, seq_len=SEQ)


def test_training_imports_neither_polars_nor_torch_for_its_windows():
    modules = "indelible.data.store, indelible.data.loader, indelible.data.ledger, indelible.data.fingerprint"
    code = f"import sys, {modules}; print(*[m for m in ('polars', 'pandas', 'torch', 'rich') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


def test_a_batch_without_the_stage_s_own_corpus_reads_the_others():
    source, window = np.array([1, 2, 2], np.uint8), np.array([6, 7, 8], np.uint32)
    ledger = Ledger(("a-1", "b-2", "c-3"), ("a", "b", "c"), source, window, SEQ)
    batch = read_batch(ledger, {"b-2": Numbered(200), "c-3": Numbered(300)}, slice(0, 3))
    assert batch.tokens[:, 0].tolist() == [206, 307, 308]
