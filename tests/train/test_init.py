"""Any causal language model of transformers enters after its own pretraining."""

import json
import shutil

import pytest
import torch
from tiny_engine import TINY, evaluated, job_of, layered, quiet, run_all, runs_of
from tiny_models import tiny_model
from token_folder import plan_on_arrays, write_tokenizer
from transformers import AutoModelForCausalLM

from indelible.errors import UserError
from indelible.train.stage import run_stage


def planned(tmp_path, kind: str, over: dict | None = None, at: str = "posttrain", prefix: str = "w", **shape):
    """A study that starts from a tiny model of another architecture, and that model's folder."""
    folder = tmp_path / "given"
    tiny_model(kind, **shape).save_pretrained(folder)
    write_tokenizer(folder, 64, prefix)
    init = {"init": {"from": str(folder), "at": at}}
    raw = layered({**TINY, "precision": "fp32", **init}, over or {})
    return plan_on_arrays(tmp_path / "out", raw, 64)


@pytest.mark.parametrize("kind", ["gpt2", "qwen2", "mistral"])
def test_a_model_of_another_architecture_goes_through_stages_two_and_three(tmp_path, kind):
    out = planned(tmp_path, kind, {"posttrain": {"patience": 3, "lr": 0.01}})
    assert [run.stage for run in runs_of(out)] == ["posttrain", "finetune"]
    results = run_all(out)
    posttrain = results["posttrain"]
    losses = evaluated(out, posttrain.id)
    assert losses["post"].nats_per_token < losses["ft"].nats_per_token
    assert posttrain.flops > 0
    checkpoint = out / "runs" / results["finetune"].id / "checkpoint"
    model = AutoModelForCausalLM.from_pretrained(checkpoint)
    assert model.config.model_type == kind
    assert (checkpoint / "tokenizer.json").read_bytes() == (tmp_path / "given" / "tokenizer.json").read_bytes()


def test_an_untrained_step_hands_on_the_given_weights(tmp_path):
    out = planned(tmp_path, "gpt2", {"finetune": {"lr": 1e-30, "weight_decay": 0.0}}, at="finetune")
    result = run_all(out)["finetune"]
    given = dict(AutoModelForCausalLM.from_pretrained(tmp_path / "given").named_parameters())
    after = AutoModelForCausalLM.from_pretrained(out / "runs" / result.id / "checkpoint").named_parameters()
    assert all(torch.allclose(weight, given[name], rtol=0, atol=1e-28) for name, weight in after), "zero biases move"


def test_another_checkpoint_is_another_run(tmp_path):
    out = planned(tmp_path / "a", "qwen2")
    other = planned(tmp_path / "b", "qwen2", seed=1)
    assert {run.id for run in runs_of(out)}.isdisjoint(run.id for run in runs_of(other))


def test_lora_on_a_given_tied_model(tmp_path):
    lora = {"posttrain": {"method": "lora", "lora": {"r": 4, "alpha": 8}}}
    out = planned(tmp_path, "qwen2", lora, tie_word_embeddings=True)
    result = run_all(out, until="posttrain")["posttrain"]
    config = json.loads((out / "runs" / result.id / "checkpoint" / "config.json").read_text())
    assert config["tie_word_embeddings"] is False


@pytest.mark.parametrize(
    ("shape", "prefix", "message"),
    [
        ({"vocab_size": 60}, "w", r"the model knows 60 token ids and the study's tokenizer uses 64"),
        ({}, "x", r"its tokenizer is not the study's: 64 of the study's 64 tokens"),
        ({"n_positions": 16}, "w", r"seq_len = 32: .* has a context of 16 tokens; lower seq_len"),
    ],
)
def test_a_model_that_does_not_fit_the_study_is_refused(tmp_path, shape, prefix, message):
    def plan_and_run():  # the context is checked when it is planned, tokens when it is run
        out = planned(tmp_path, "gpt2", prefix=prefix, **shape)
        run_stage(job_of(out, runs_of(out)[0]), progress=quiet, guard=lambda: None)

    with pytest.raises(UserError, match=message):
        plan_and_run()


def test_a_given_folder_that_has_gone_is_named(tmp_path):
    out = planned(tmp_path, "gpt2")
    shutil.rmtree(tmp_path / "given")
    with pytest.raises(UserError, match=r"the checkpoint that posttrain-.* starts from is not there"):
        run_stage(job_of(out, runs_of(out)[0]), progress=quiet, guard=lambda: None)
