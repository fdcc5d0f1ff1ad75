"""What became of documents that stay whole, as it is said on a terminal."""

import io
from pathlib import Path

import pytest
from rich.console import Console

from indelible.console.packing_view import packing_line, print_packing
from indelible.records import PackedRows, PackedSide

SIDE = PackedSide(
    corpus="chat", split="train", seq_len=64, loss_on="assistant", packing="best_fit", too_long="drop", documents=119,
    documents_too_long=72, longest_tokens=141, rows=33, tokens=1850, trained_tokens=642, rows_without_trained=2,
)  # fmt: skip


def test_a_side_is_one_line():
    assert packing_line(SIDE) == (
        "chat train, packing best_fit: 119 documents in 33 rows of 64 tokens, 86% full; 72 longer than a row left out; "
        "642 of 1,850 tokens count (loss_on: assistant); 2 rows train on nothing."
    )


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"too_long": "cut"}, "72 longer than a row cut to 65 tokens"),
        ({"documents_too_long": 0, "rows_without_trained": 0}, "86% full; 642 of"),
        ({"rows": 0, "tokens": 0}, "0% full"),
    ],
)
def test_what_is_not_there_is_not_said(change, said):
    assert said in packing_line(SIDE.model_copy(update=change))


def test_a_folder_without_such_corpora_says_nothing(tmp_path: Path):
    out = io.StringIO()
    print_packing(tmp_path, Console(file=out, width=200))
    assert not out.getvalue()
    PackedRows(sides=(SIDE,)).write(tmp_path / "packing.json")
    print_packing(tmp_path, Console(file=out, width=200))
    assert out.getvalue().startswith("chat train, packing best_fit")
