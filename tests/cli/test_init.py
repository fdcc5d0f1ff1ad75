"""Start anywhere: a given checkpoint enters at stage 2 or 3 with its tokenizer, and is known by its content."""

import json
import shutil

import pytest
from tiny_engine import run_all

from indelible.cli.study_commands import plan_study
from indelible.errors import UserError


@pytest.fixture
def given(tiny_study, tmp_path):
    """The checkpoint of a pretraining run, moved away from its study."""
    out = tiny_study(name="origin")
    result = run_all(out, until="pretrain")["pretrain"]
    shutil.copytree(out / "runs" / result["id"] / "checkpoint", tmp_path / "given")
    return tmp_path / "given"


def init_study(tiny_study, given, at, name="after"):
    """The folder of a planned study that starts from a checkpoint."""
    return tiny_study({"init": {"from": str(given), "at": at}, "tokenizer": {"kind": "hf", "path": str(given)}}, name)


@pytest.mark.parametrize("at", ["posttrain", "finetune"])
def test_a_given_checkpoint_enters_at_its_stage(tiny_study, given, at):
    out = init_study(tiny_study, given, at)
    plan = json.loads((out / "plan.json").read_text())
    assert plan["stage_runs"][0]["stage"] == at
    assert plan["chains"][0]["pretrain_id"] is None
    results = run_all(out)
    assert results["finetune"]["status"] == "done"
    assert results[at]["losses"]["post"]["nats_per_token"] > 0


def test_the_tokenizer_is_taken_along(given, tmp_path):
    study = tmp_path / "s.yaml"
    study.write_text(
        "name: s\nscale: pico\npipeline: {pre: general, post: music, ft: chemistry}\nseeds: [0]\n"
        f"init: {{from: {given}, at: posttrain}}\n"
    )
    tokenizer = plan_study(str(study), []).study.data.tokenizer
    assert (tokenizer.kind, tokenizer.path) == ("hf", str(given))


def test_identity_is_the_content_and_not_the_place(tiny_study, given, tmp_path):
    here = json.loads((init_study(tiny_study, given, "finetune") / "plan.json").read_text())
    moved = tmp_path / "elsewhere"
    shutil.copytree(given, moved)
    there = json.loads((init_study(tiny_study, moved, "finetune", "there") / "plan.json").read_text())
    assert [run["id"] for run in here["stage_runs"]] == [run["id"] for run in there["stage_runs"]]
    weights = bytearray((moved / "model.safetensors").read_bytes())
    weights[-1] ^= 1
    (moved / "model.safetensors").write_bytes(weights)
    changed = json.loads((init_study(tiny_study, moved, "finetune", "changed") / "plan.json").read_text())
    assert [run["id"] for run in here["stage_runs"]] != [run["id"] for run in changed["stage_runs"]]


def test_another_vocabulary_is_refused(tiny_study, given):
    with pytest.raises(UserError, match=r"the model knows 512 token ids and the study's tokenizer uses 5\d\d"):
        tiny_study(
            {"init": {"from": str(given), "at": "finetune"}, "tokenizer": {"kind": "bpe", "vocab_size": 600}}, "other"
        )


def test_a_folder_without_a_model_is_refused(tiny_study, tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=r"has no config.json; expected a Hugging Face folder"):
        init_study(tiny_study, tmp_path / "empty", "finetune")
