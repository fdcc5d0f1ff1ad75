"""Twenty fp32 steps of DPO give TRL's losses: the same start, pairs of messages, batches and optimizer."""

import sys
from pathlib import Path

import pytest

pytest.importorskip("trl", reason="TRL is a rival, not a part: pip install trl (the extra `bench`)")
sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
import posttrain_dpo as dpo


def test_losses_are_those_of_trl(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INDELIBLE_CACHE", str(tmp_path / "cache"))
    ours, theirs = dpo.parity(tmp_path)
    assert len(ours) == len(theirs) == 20
    assert theirs[-1] < 0.5 * theirs[0], "it learns"
    assert max(abs(one - other) for one, other in zip(ours, theirs, strict=True)) < 1e-5
