"""LoRA, kept adapters, replay, dropout and activation checkpointing, through all three stages."""

import json

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from tiny_engine import TINY, evaluated, job_of, layered, loop_of, losses_of, plan_of, quiet, run_all, runs_of
from token_folder import plan_on_arrays
from transformers import AutoModelForCausalLM

from indelible.data.store import TokenStore
from indelible.errors import UserError
from indelible.train.stage import run_stage

LORA = {"method": "lora", "lora": {"r": 8, "alpha": 16}}
KEPT = {"method": "lora", "lora": {"r": 8, "alpha": 16, "merge": False}}


@pytest.fixture
def study(tmp_path):
    """Plans a tiny study over arrays: ``study(over)`` returns its folder."""

    def make(over: dict, name: str = "out"):
        return plan_on_arrays(tmp_path / name, layered({**TINY, "precision": "fp32"}, over), 512)

    return make


def checkpoint(out, result):
    return out / "runs" / result.id / "checkpoint"


def weights(out, result):
    return load_file(checkpoint(out, result) / "model.safetensors")


def heldout_nats(out, result, corpus: str) -> float:
    """The held-out loss by transformers alone."""
    store = TokenStore.open(out / "tokens" / plan_of(out).stores[corpus])
    tokens = torch.from_numpy(store.read("heldout", np.arange(8, 16), 32)[0])  # behind the 8 that stop a stage
    model = AutoModelForCausalLM.from_pretrained(checkpoint(out, result), dtype=torch.float32).eval()
    with torch.no_grad():
        logits = model(input_ids=tokens[:, :-1]).logits
    return torch.nn.functional.cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten()).item()


@pytest.mark.parametrize("method", ["full", "lora"])
@pytest.mark.parametrize("tied", [True, False])
def test_lora_is_merged_before_stage_three(study, tied, method):
    out = study({"posttrain": LORA, "finetune": LORA if method == "lora" else {}, "model": {"tie_embeddings": tied}})
    results = run_all(out)
    before, after = weights(out, results["pretrain"]), weights(out, results["posttrain"])
    moved = {
        name for name in after if not torch.equal(after[name], before.get(name, before["model.embed_tokens.weight"]))
    }
    kinds = ("o_proj.weight", "gate_proj.weight", "up_proj.weight", "down_proj.weight", "lm_head.weight")
    assert moved == {name for name in after if name.endswith(kinds)}
    assert (
        json.loads((checkpoint(out, results["posttrain"]) / "config.json").read_text())["tie_word_embeddings"] is False
    )
    assert not (checkpoint(out, results["posttrain"]) / "adapters.safetensors").exists()
    for stage in ("posttrain", "finetune"):
        reported = evaluated(out, results[stage].id)["post"].nats_per_token
        assert heldout_nats(out, results[stage], "post") == pytest.approx(reported, abs=1e-5)
    finetuned = weights(out, results["finetune"])
    moved = {name for name in after if not torch.equal(after[name], finetuned[name])}
    assert moved == (set(after) if method == "full" else {name for name in after if name.endswith(kinds)})


def test_kept_adapters_are_trained_on_from_exactly_where_they_were(study):
    out = study({"posttrain": KEPT, "finetune": {**KEPT, "lr": 1e-30, "weight_decay": 0.0}})
    results = run_all(out)
    two, three = (load_file(checkpoint(out, results[s]) / "adapters.safetensors") for s in ("posttrain", "finetune"))
    assert two.keys() == three.keys()
    assert all(torch.equal(two[name], three[name]) for name in two), "an update of 1e-30 changes nothing in fp32"
    assert any(two[name].abs().max() > 0 for name in two if "lora_B" in name)
    assert results["posttrain"].weights_sha256 == results["finetune"].weights_sha256
    base = weights(out, results["pretrain"])
    for name, weight in two.items():
        if "base_layer" in name and "lm_head" not in name:
            assert torch.equal(weight, base[name.removeprefix("base_model.model.").replace(".base_layer", "")])
    reported = evaluated(out, results["posttrain"].id)["post"].nats_per_token
    assert heldout_nats(out, results["posttrain"], "post") == pytest.approx(reported, abs=1e-5), "the folder is merged"


@pytest.mark.parametrize("finetune", [{}, {"method": "lora", "lora": {"r": 4, "alpha": 16}}])
def test_kept_adapters_that_stage_three_cannot_train_on_are_refused(study, finetune):
    with pytest.raises(UserError, match=r"keeps its adapters \(posttrain.lora.merge: false, r 8, .*method: lora with"):
        study({"posttrain": KEPT, "finetune": finetune})  # when it is planned
    out = study({"posttrain": KEPT, "finetune": KEPT}, name="kept")
    run_all(out, until="posttrain")
    job = job_of(out, runs_of(out, "finetune")[0])
    adapt = {"kind": "lora", **finetune["lora"]} if finetune else {"kind": "full"}
    with pytest.raises(
        UserError,
        match=r"kept its adapters \(merge: false, r 8, .*set stages.finetune.adapt to kind: lora .*method: lora\) with",
    ):
        run_stage(job.model_copy(update={"spec": {**job.spec, "adapt": adapt}}), progress=quiet, guard=lambda: None)


def test_dropout_of_stage_two_is_over_in_stage_three(study):
    out = study({"posttrain": {"dropout": 0.5}})
    results = run_all(out, until="posttrain")
    assert json.loads((checkpoint(out, results["posttrain"]) / "config.json").read_text())["attention_dropout"] == 0.0
    model = loop_of(out, "finetune").program.model.train()
    ids = torch.arange(20)[None]
    assert torch.equal(model(input_ids=ids).logits, model(input_ids=ids).logits)
    plain = run_all(study({}, name="plain"), until="posttrain")
    assert plain["posttrain"].weights_sha256 != results["posttrain"].weights_sha256
    assert plain["pretrain"].weights_sha256 == results["pretrain"].weights_sha256


def test_replay_trains_on_pretraining_windows_in_stages_two_and_three(study):
    fraction = {"replay_fraction": 0.25}
    out = study({"posttrain": {**fraction, "max_tokens": 2 * 15 * 32}, "finetune": {**fraction, "tokens": 320}})
    results = run_all(out)
    assert results["posttrain"].tokens_seen == {"post": 640, "pre": 320}, "5 of 20 windows in each of two passes of 10"
    assert results["finetune"].tokens_seen == {"ft": 320, "pre": 160}
    other = study({"posttrain": {"max_tokens": 2 * 15 * 32}}, name="plain")
    plain = run_all(other)
    before = evaluated(other, plain["posttrain"].id)["pre"].nats_per_token
    assert before > evaluated(out, results["posttrain"].id)["pre"].nats_per_token


def test_activation_checkpointing_changes_nothing(study):
    over = {"pretrain": {"dropout": 0.2}}
    plain = run_all(study(over, name="plain"), until="pretrain")["pretrain"]
    execution = {"activation_checkpointing": True}
    out = study(over, name="again")
    again = run_all(out, execution, until="pretrain")["pretrain"]
    assert again.weights_sha256 == plain.weights_sha256
    assert losses_of(out / "runs" / again.id) == losses_of(out.parent / "plain" / "runs" / plain.id)
    assert loop_of(out, "pretrain", execution).program.model.is_gradient_checkpointing
