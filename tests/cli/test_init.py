"""Start anywhere: given checkpoints enter at any stage with their tokenizer, and are known by their content."""

import json
import shutil
from pathlib import Path

import pytest
from tiny_engine import evaluated, plan_of, run_all

from indelible.errors import UserError
from indelible.study.identity import given_id
from indelible.study.load import load_study
from indelible.workflow.estimate import estimate
from indelible.workflow.planning import plan_study


@pytest.fixture
def given(tiny_study, tmp_path) -> Path:
    """The checkpoint of a pretraining run, moved away from its study."""
    out = tiny_study(name="origin")
    result = run_all(out, until="pretrain")["pretrain"]
    shutil.copytree(out / "runs" / result.id / "checkpoint", tmp_path / "given")
    return tmp_path / "given"


def init_study(tiny_study, given, at, name="after", **more) -> Path:
    """The folder of a planned study that starts from a checkpoint."""
    settings = {"init": {"from": str(given), "at": at}, "tokenizer": {"kind": "hf", "path": str(given)}}
    return tiny_study({**settings, **more}, name)


@pytest.mark.parametrize("at", ["pretrain", "posttrain", "finetune"])
def test_a_given_checkpoint_enters_at_its_stage(tiny_study, given, at):
    out = init_study(tiny_study, given, at)
    plan = plan_of(out)
    stages = ["pretrain", "posttrain", "finetune"]
    assert [run.stage for run in plan.stage_runs] == stages[stages.index(at) :]
    (chain,) = plan.chains
    assert plan.given == {chain.start: str(given.resolve())}
    assert len(plan.evaluations[chain.start]) == 3, "the start is evaluated like every other checkpoint"
    results = run_all(out)
    assert results["finetune"].status == "done"
    assert evaluated(out, results[at].id)["post"].nats_per_token > 0


def test_the_tokenizer_is_taken_along(given, tmp_path):
    study = tmp_path / "s.yaml"
    study.write_text(
        "name: s\nscale: pico\nseq_len: 32\npipeline: {pre: general, post: music, ft: chemistry}\nseeds: [0]\n"
        f"init: {{from: {given}, at: posttrain}}\n"
    )
    tokenizer = load_study(str(study)).data.tokenizer
    assert (tokenizer.kind, tokenizer.path) == ("hf", str(given))


def test_identity_is_the_content_and_not_the_place(tiny_study, given, tmp_path):
    here = plan_of(init_study(tiny_study, given, "finetune"))
    moved = tmp_path / "elsewhere"
    shutil.copytree(given, moved)
    there = plan_of(init_study(tiny_study, moved, "finetune", "there"))
    assert [run.id for run in here.stage_runs] == [run.id for run in there.stage_runs]
    assert list(here.given) == list(there.given)
    weights = bytearray((moved / "model.safetensors").read_bytes())
    weights[-1] ^= 1
    (moved / "model.safetensors").write_bytes(weights)
    changed = plan_of(init_study(tiny_study, moved, "finetune", "changed"))
    assert [run.id for run in here.stage_runs] != [run.id for run in changed.stage_runs]


def test_several_given_checkpoints_are_swept_in_one_study(tiny_study, given, tmp_path):
    other = tmp_path / "other"
    shutil.copytree(given, other)
    weights = bytearray((other / "model.safetensors").read_bytes())
    weights[-1] ^= 1
    (other / "model.safetensors").write_bytes(weights)
    starts = [{"from": str(folder), "at": "finetune"} for folder in (given, other)]
    out = tiny_study({"init": starts, "tokenizer": {"kind": "hf", "path": str(given)}}, "both")
    plan = plan_of(out)
    assert len(plan.given) == 2
    assert [chain.columns["init"] for chain in plan.chains] == [str(given), str(other)]
    assert [chain.start for chain in plan.chains] == list(plan.given)
    assert {chain.columns["pretrain_tokens"] for chain in plan.chains} == {None}, "a stage that is not run is null"


def test_a_given_checkpoint_is_priced_by_its_own_config(tiny_study, given):
    out = init_study(tiny_study, given, "finetune")
    planned = plan_study(load_study(str(out.parent / "after.yaml")))
    config = json.loads((given / "config.json").read_text())
    (shape,) = set(planned.shapes.values())
    assert (shape.vocab_size, shape.hidden_size) == (config["vocab_size"], 16)
    assert [model.parameters for model in estimate(planned).models] == [10_544]
    assert list(planned.given_folders) == [given_id(next(iter(planned.given.values())).sha256)]


def test_another_vocabulary_is_refused(tiny_study, given):
    with pytest.raises(UserError, match=r"the model knows 512 token ids and the study's tokenizer uses 5\d\d"):
        tiny_study(
            {"init": {"from": str(given), "at": "finetune"}, "tokenizer": {"kind": "bpe", "vocab_size": 600}}, "other"
        )


def test_a_folder_without_a_model_is_refused(tiny_study, tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=r"has no config.json; expected a Hugging Face folder"):
        init_study(tiny_study, tmp_path / "empty", "finetune")
