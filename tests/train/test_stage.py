"""A stage run from job to result: what it writes, and that what it reports can be checked from outside."""

import json
import math
import os

import pytest
import torch
from heldout import nats_by_transformers, read_windows
from safetensors.torch import load_file
from tiny_engine import evaluated, job_of, plan_of, quiet, run_all, runs_of
from transformers import AutoTokenizer

from indelible.errors import UserError
from indelible.train.stage import run_stage

PATIENT = {"posttrain": {"patience": 2}}


def test_transformers_and_numpy_alone_give_the_reported_losses(tiny_study):
    out = tiny_study({"exposure": {"fraction": 0.5}, **PATIENT})
    results = run_all(out)
    plan = plan_of(out)
    for stage in ("pretrain", "posttrain", "finetune"):
        checkpoint = out / "runs" / results[stage].id / "checkpoint"
        losses = evaluated(out, results[stage].id)
        assert losses.keys() == {"pre", "post", "ft"}
        for corpus, loss in losses.items():
            windows = read_windows(out / "tokens" / plan.stores[corpus], 8, loss.windows, 32)  # behind those that stop
            assert nats_by_transformers(checkpoint, windows) == pytest.approx(loss.nats_per_token, abs=5e-7)
            assert loss.tokens == windows[:, 1:].size
    AutoTokenizer.from_pretrained(out / "runs" / results["finetune"].id / "checkpoint")


def test_a_checkpoint_names_its_architecture(tiny_study):
    out = tiny_study()
    run_id = run_all(out, until="pretrain")["pretrain"].id
    config = json.loads((out / "runs" / run_id / "checkpoint" / "config.json").read_text())
    assert config["architectures"] == ["LlamaForCausalLM"], "vLLM and converters look for it"
    assert config.get("use_cache", True), "who generates with it wants the cache"


@pytest.mark.parametrize(("umask", "mode"), [(0o022, 0o644), (0o002, 0o664), (0o077, 0o600)])
def test_weights_may_be_read_by_whoever_reads_the_folder(tiny_study, umask, mode):
    out = tiny_study()
    before = os.umask(umask)
    try:
        run_id = run_all(out, until="pretrain")["pretrain"].id
    finally:
        os.umask(before)
    files = list((out / "runs" / run_id / "checkpoint").iterdir())
    assert "model.safetensors" in {file.name for file in files}
    assert {file.name: file.stat().st_mode & 0o777 for file in files} == {file.name: mode for file in files}


def test_the_loss_of_an_untrained_model_is_that_of_chance(tiny_study):
    out = tiny_study({"model": {"init_std": 1e-4}, "pretrain": {"lr": 1e-12}})
    result = run_all(out, until="pretrain")["pretrain"]
    losses = evaluated(out, result.id)
    assert len(losses) == 3
    for loss in losses.values():
        assert loss.nats_per_token == pytest.approx(math.log(512), abs=1e-3)


def test_bits_per_byte_is_the_loss_of_the_text_over_its_bytes(tiny_study):
    out = tiny_study()
    result = run_all(out, until="pretrain")["pretrain"]
    losses = evaluated(out, result.id)
    assert len(losses) == 3
    for corpus, loss in losses.items():
        manifest = json.loads((out / "tokens" / plan_of(out).stores[corpus] / "manifest.json").read_text())
        shards = manifest["shards"]["heldout"]
        tokens, size = sum(s["tokens"] for s in shards), sum(s["bytes"] for s in shards)
        assert loss.bits_per_byte == pytest.approx(loss.nats_per_token * tokens / size / math.log(2))


def test_early_stopping_hands_on_exactly_the_weights_that_it_kept(tiny_study):
    out = tiny_study({**PATIENT, "posttrain": {"patience": 2, "lr": 0.3, "max_tokens": 6400}})
    result = run_all(out, until="posttrain")["posttrain"]
    run_dir = out / "runs" / result.id
    lines = [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]
    evaluations = {
        line["step"]: line["eval/post/nats_per_token"] for line in lines if "eval/post/nats_per_token" in line
    }
    assert 0 in evaluations, "the loss before the first step is a candidate too"
    best = min(evaluations, key=evaluations.__getitem__)
    assert result.stop_reason == "patience"
    assert result.best_step == best < result.steps
    assert result.best_stop_loss == evaluations[best]
    assert all(loss >= evaluations[best] for loss in evaluations.values())
    store = out / "tokens" / plan_of(out).stores["post"]
    stop, reported = read_windows(store, 0, 8, 32), read_windows(store, 8, 8, 32)
    assert nats_by_transformers(run_dir / "checkpoint", stop) == pytest.approx(result.best_stop_loss, abs=5e-7)
    loss = evaluated(out, result.id)["post"].nats_per_token
    assert nats_by_transformers(run_dir / "checkpoint", reported) == pytest.approx(loss, abs=5e-7)
    assert abs(loss - result.best_stop_loss) > 1e-4, "the windows that stop a stage are not those that are reported"


def test_restored_weights_that_give_another_loss_are_an_error(tiny_study, monkeypatch):
    from indelible.train.loop import Loop

    out = tiny_study({**PATIENT, "posttrain": {"patience": 2, "lr": 0.3, "max_tokens": 6400}})
    run_all(out, until="pretrain")
    monkeypatch.setattr(Loop, "restore_best", lambda self: None)
    with pytest.raises(RuntimeError, match=r"the restored weights of step \d+ give .*, where .* was seen"):
        run_stage(job_of(out, runs_of(out, "posttrain")[0]), progress=quiet, guard=lambda: None)


def test_what_stage_three_loads_is_bitwise_the_best_checkpoint_of_stage_two(tiny_study):
    out = tiny_study({**PATIENT, "finetune": {"lr": 1e-30, "weight_decay": 0.0}})
    results = run_all(out)
    states = [
        load_file(out / "runs" / results[s].id / "checkpoint" / "model.safetensors") for s in ("posttrain", "finetune")
    ]
    assert states[0].keys() == states[1].keys()
    for name, weight in states[0].items():
        assert weight.dtype == torch.float32
        assert torch.equal(weight, states[1][name]), "an update of 1e-30 is lost in fp32, so nothing may differ"
    assert results["posttrain"].weights_sha256 == results["finetune"].weights_sha256


def test_a_stage_with_nothing_left_hands_on_its_parent(tiny_study):
    out = tiny_study({"exposure": {"fraction": 1.0}, "posttrain": {"allocation": "matched"}})
    results = run_all(out, until="posttrain")
    assert results["posttrain"].stop_reason == "empty"
    assert results["posttrain"].steps == 0
    assert results["posttrain"].weights_sha256 == results["pretrain"].weights_sha256
    before, after = evaluated(out, results["pretrain"].id), evaluated(out, results["posttrain"].id)
    assert {c: one.nats_per_token for c, one in after.items()} == {c: one.nats_per_token for c, one in before.items()}
    assert len(after) == 3


def test_a_smaller_last_batch_is_trained(tiny_study):
    out = tiny_study({"finetune": {"tokens": 10 * 32, "global_batch_size": 4}})
    result = run_all(out)["finetune"]
    assert result.steps == 3
    assert result.train_tokens == 10 * 32 == result.tokens_seen["ft"]


def test_divergence_is_a_result_and_stops_before_the_bad_update(tiny_study):
    out = tiny_study({"pretrain": {"lr": 50.0, "max_loss": 8.0, "warmup_steps": 0}})
    result = run_all(out, until="pretrain")["pretrain"]
    assert (result.status, result.stop_reason, result.weights_sha256) == ("diverged", "diverged", None)
    assert evaluated(out, result.id) == {}
    run_dir = out / "runs" / result.id
    assert not (run_dir / "checkpoint").exists()
    last = json.loads((run_dir / "metrics.jsonl").read_text().splitlines()[-1])
    assert last["step"] == result.steps
    assert not last["train/loss"] < 8.0


def test_micro_batches_give_the_full_batch(tiny_study):
    whole, split = tiny_study(name="whole"), tiny_study(name="split")
    run_id = run_all(whole, until="pretrain")["pretrain"].id
    assert run_all(split, {"micro_batch_size": 3}, until="pretrain")["pretrain"].id == run_id
    expected = evaluated(whole, run_id)
    assert len(expected) == 3
    for corpus, loss in expected.items():
        assert evaluated(split, run_id)[corpus].nats_per_token == pytest.approx(loss.nats_per_token, abs=1e-5)


def test_the_same_job_gives_the_same_bits_also_after_other_runs_in_the_process(tiny_study):
    first = run_all(tiny_study({"exposure": {"fraction": 0.5}}, name="a"))
    run_all(tiny_study({"posttrain": {"dropout": 0.1}}, name="other"))
    again = run_all(tiny_study({"exposure": {"fraction": 0.5}}, name="b"))
    for stage, result in first.items():
        assert again[stage].weights_sha256 == result.weights_sha256


def test_seeds_differ_in_initialisation_and_order(tiny_study):
    a = run_all(tiny_study({"seeds": [0]}, name="a"), until="pretrain")["pretrain"]
    b = run_all(tiny_study({"seeds": [1]}, name="b"), until="pretrain")["pretrain"]
    assert a.weights_sha256 != b.weights_sha256
    assert a.ledger_sha256 != b.ledger_sha256


def test_a_missing_parent_checkpoint_is_named(tiny_study):
    out = tiny_study()
    entry = runs_of(out, "posttrain")[0]
    with pytest.raises(UserError, match=r"checkpoint: the checkpoint that posttrain-.* starts from is not there"):
        run_stage(job_of(out, entry), progress=quiet, guard=lambda: None)


def test_tokens_seen_and_the_ledger_picture_count_every_source(tiny_study):
    out = tiny_study({"exposure": {"fraction": 1.0}, "posttrain": {"replay_fraction": 0.1, "max_tokens": 4 * 12 * 32}})
    results = run_all(out, until="posttrain")
    assert results["pretrain"].tokens_seen == {"pre": 640, "post": 320}
    seen = results["posttrain"].tokens_seen
    assert seen["pre"] == seen["post"] / 5, "2 of 20 pretraining windows in each pass over 10"
    picture = json.loads((out / "runs" / results["pretrain"].id / "ledger.json").read_text())
    totals = {source: sum(row) for source, row in zip(picture["sources"], picture["tokens"], strict=True)}
    assert totals == {"pre": 640, "post": 320}
