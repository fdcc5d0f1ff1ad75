"""Proportions that make a study say little are named before it runs; sound ones are silent."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from token_folder import markov_tokens, write_store

from indelible.study.load import load_study
from indelible.study.stage_spec import EvaluationSpec
from indelible.workflow.proportions import heldout_notes, proportions


def notes(*overrides: str) -> list[str]:
    return proportions(load_study("quickstart", list(overrides)))


def test_the_shipped_quickstart_is_in_proportion() -> None:
    assert notes() == []


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        # 16 windows of 128 are 2,048 tokens a step
        (["posttrain.tokens=209", "posttrain.max_tokens=100k"], "is 9.8 passes over its 209 tokens"),
        (["finetune.tokens=6144"], "finetune: 3 step(s) in all (6,144 tokens, 2,048 a step)"),
        (["posttrain.tokens=20480", "posttrain.eval_interval=100"], "10 passes over its data; `posttrain.eval_int"),
        (["evaluation.windows=4"], "evaluation.windows = 4: so few windows (512 tokens)"),
    ],
)  # fmt: skip
def test_what_is_out_of_proportion_is_said_once(overrides: list[str], said: str) -> None:
    found = [line for line in notes(*overrides) if said in line]
    assert len(found) == 1, notes(*overrides)


def test_the_advice_is_followed_into_silence() -> None:
    over: list[Any] = ["finetune.tokens=6144"]
    assert "`finetune.global_batch_size=4` at most" in notes(*over)[0]
    assert notes(*over, "finetune.global_batch_size=4") == []


def test_the_notes_of_a_small_text_at_a_large_scale_are_right_together(tmp_path: Path) -> None:
    path = tmp_path / "small.yaml"
    path.write_text(
        "name: small\nscale: 135m\nseeds: [0]\npipeline: {pre: general, post: music, ft: chemistry}\n"
        "exposure: {fraction: [0, 0.5, 1]}\nposttrain: {tokens: 43000}\n"
    )
    step, look, cap = proportions(load_study(str(path)))
    assert step.endswith(
        "11.4 passes over its 43,000 tokens; `posttrain.global_batch_size=4` makes about ten steps a pass."
    )
    assert "after 1,143 passes over its data; `posttrain.eval_interval=10` looks about once a pass with that b" in look
    assert "cap of 2,000,000,000 tokens is 46,512 passes over its 43,000 tokens" in cap
    assert "`posttrain.max_tokens=2150000` allows 50 passes" in cap
    followed = [line.split("`")[1] for line in (step, look, cap)]
    for number in range(4):  # in any part, what is left is still said, and with the same fixes
        left = proportions(load_study(str(path), followed[:number]))
        assert [line.split("`")[1] for line in left] == followed[number:]


def test_exposure_that_makes_pretraining_longer_is_named_once_with_the_fix() -> None:
    found = notes("pretrain.tokens=500000", "exposure.fraction=[0, 0.5, 1]")
    assert found == [
        "pretrain: all of music (λ 1: 100,000 tokens) is 20% on top of its own 500,000, so exposure makes it "
        "longer; take less of it, or more for pretrain, `pretrain.tokens=1000000` or above."
    ]
    assert notes("pretrain.tokens=1000000") == []
    assert notes("pretrain.tokens=500000", "exposure.fraction=0") == []


def test_a_pair_counts_as_two_rows() -> None:
    study = load_study("preferences", ["arms.preference.stages.between.tokens=1024"])  # 4 pairs, of 16 a step
    step, cap = proportions(study)
    assert "between: one step of 16 pairs (4,096 tokens) is 4.0 passes" in step
    followed = ["arms.preference.stages.between.tokens=1024", *(line.split("`")[1] for line in (step, cap))]
    assert followed[1] == "arms.preference.stages.between.global_batch_size=1"
    assert proportions(load_study("preferences", followed)) == []
    assert proportions(load_study("preferences")) == []


@pytest.mark.parametrize(("asked", "is_noted"), [(2_048, True), (12, True), (6, False), (4, False)])
def test_a_held_out_split_that_is_far_too_small_is_named_with_the_fix(
    tmp_path: Path, asked: int, is_noted: bool
) -> None:
    train, heldout = (markov_tokens(count, 256, 0) for count in (1_000, 8 * 32 + 1))
    store = write_store(tmp_path, "notes", train, heldout, 256)
    kinds = [EvaluationSpec(checkpoint="", store=store, stop_windows=4, windows=asked, seq_len=32, loss_on="all")] * 2
    found = heldout_notes(SimpleNamespace(heldout=kinds), tmp_path)  # type: ignore[arg-type]
    text = (
        f"notes: its held-out split has 4 of the {asked:,} windows asked to be reported (128 tokens), which leaves its "
        "losses uncertain; raise data.split.heldout_fraction, or give it more text."
    )
    assert found == ([text] if is_noted else [])


def test_before_the_tokens_are_there_nothing_is_said_of_them(tmp_path: Path) -> None:
    kind = EvaluationSpec(
        checkpoint="", store="notes-000000000000", stop_windows=4, windows=9, seq_len=32, loss_on="all"
    )
    assert heldout_notes(SimpleNamespace(heldout=[kind]), tmp_path) == []  # type: ignore[arg-type]
