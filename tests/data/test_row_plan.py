"""Rows of whole documents: each document once, none divided, and as few rows as best-fit-decreasing gives."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from indelible.data.row_plan import plan_rows

SIZES = st.lists(st.integers(1, 30), min_size=0, max_size=60)


def _plain_best_fit(sizes: list[int], room: int) -> int:
    """Rows of the textbook's algorithm, looking at every row."""
    left: list[int] = []
    for size in sorted(sizes, reverse=True):
        fitting = [number for number, space in enumerate(left) if space >= size]
        if fitting:
            left[min(fitting, key=lambda number: left[number])] -= size
        else:
            left.append(room - size)
    return len(left)


@given(sizes=SIZES, seq_len=st.integers(1, 24), packing=st.sampled_from(["documents", "best_fit"]))
def test_each_document_stands_whole_in_one_row(sizes, seq_len, packing):
    array = np.array(sizes, np.int64)
    plan = plan_rows(array, seq_len, packing, "drop")
    kept = np.flatnonzero(array <= seq_len + 1)
    assert sorted(plan.document.tolist()) == kept.tolist()
    assert (plan.size == array[plan.document]).all()
    assert plan.too_long == len(sizes) - len(kept)
    assert plan.documents == len(sizes)
    filled = np.bincount(plan.row, plan.size, minlength=len(plan))
    assert (filled <= seq_len + 1).all()
    assert (np.diff(plan.first) > 0).all()
    firsts = plan.document[plan.first[:-1]]
    assert (np.diff(firsts) > 0).all(), "rows stand in the order of their first documents"
    if packing == "documents":
        assert len(plan) == len(kept)
    else:
        assert len(plan) == _plain_best_fit(array[kept].tolist(), seq_len + 1)


def test_an_example_of_best_fit():
    plan = plan_rows(np.array([4, 3, 6, 2, 5]), 7, "best_fit", "error")  # rows of 8 tokens
    rows = [plan.document[a:b].tolist() for a, b in zip(plan.first, plan.first[1:], strict=False)]
    assert rows == [[0], [1, 4], [2, 3]]


@given(sizes=SIZES, packing=st.sampled_from(["documents", "best_fit"]))
def test_cut_documents_keep_their_first_tokens(sizes, packing):
    plan = plan_rows(np.array(sizes, np.int64), 9, packing, "cut")
    assert sorted(plan.document.tolist()) == list(range(len(sizes)))
    assert (plan.size == np.minimum(np.array(sizes, np.int64)[plan.document], 10)).all()
    assert plan.longest == max(sizes, default=0)


def test_many_documents_fill_their_rows():
    sizes = np.random.default_rng(0).integers(1, 2049, 200_000)
    plan = plan_rows(sizes, 2048, "best_fit", "error")
    assert plan.size.sum() / (len(plan) * 2049) > 0.99


@pytest.mark.parametrize("packing", ["documents", "best_fit"])
def test_no_documents_no_rows(packing):
    assert len(plan_rows(np.zeros(0, np.int64), 8, packing, "drop")) == 0
    assert len(plan_rows(np.array([100]), 8, packing, "drop")) == 0
