"""Twenty fp32 steps on answers alone give TRL's losses: rows padded on the right, and several documents a row."""

import sys
from pathlib import Path

import pytest

pytest.importorskip("trl", reason="TRL is a rival, not a part: pip install trl (the extra `bench`)")
sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
import posttrain_sft as sft


@pytest.mark.parametrize("packing", sft.PACKINGS)
def test_losses_are_those_of_trl(packing, tmp_path, monkeypatch):
    monkeypatch.setenv("INDELIBLE_CACHE", str(tmp_path / "cache"))
    ours, theirs = sft.parity(tmp_path, packing)
    assert len(ours) == len(theirs) == 20
    assert ours[-1] < ours[0] - 0.5, "the model learns"
    assert max(abs(one - other) for one, other in zip(ours, theirs, strict=True)) < 1e-5


def test_rows_are_as_few_as_those_of_trl(tmp_path, monkeypatch):
    """TRL packs by the same rule, best-fit-decreasing."""
    from datasets import Dataset
    from trl import pack_dataset

    monkeypatch.setenv("INDELIBLE_CACHE", str(tmp_path / "cache"))
    sft.write_inputs(tmp_path, 400, 12)
    loop = sft.loop_of(tmp_path, "best_fit", sft.TINY)
    store = loop.context.stores[loop.ledger.stores[0]]
    plan = store.row_plan("train", sft.TINY["seq_len"], "best_fit", "drop")
    documents = [store.document("train", int(number))[0].tolist() for number in plan.document]
    packed = pack_dataset(Dataset.from_dict({"input_ids": documents}), sft.TINY["seq_len"] + 1, "bfd")
    assert len(plan) == len(packed)
    sizes = [sorted(plan.size[a:b].tolist()) for a, b in zip(plan.first, plan.first[1:], strict=False)]
    assert sorted(sizes) == sorted(sorted(row) for row in packed["seq_lengths"])
