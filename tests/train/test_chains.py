"""Chains of one to five stages, a corpus in two uses, given checkpoints at the first stage, and what results record."""

import json

import numpy as np
import pytest
from safetensors.torch import load_file
from tiny_engine import TINY, evaluated, job_of, layered, loop_of, losses_of, plan_of, run_all, runs_of
from token_folder import plan_on_arrays
from torch.utils.flop_counter import FlopCounterMode

from indelible.train import attention
from indelible.train.job import Progress
from indelible.train.stage import run_stage

FP32 = layered(TINY, {"precision": "fp32"})
LATER = {"tokens": 320, "global_batch_size": 4, "warmup_steps": 2}
FIVE = layered(
    FP32,
    {
        "corpora": {"talk": {**TINY["corpora"]["ft"], "language": 4}},
        "exposure": {"fraction": 0.5},
        "posttrain": {"patience": 2, "eval_interval": 1, "lr": 0.05},
        "stages": {
            "second": {**LATER, "corpus": "talk", "mix": [{"corpus": "post", "fraction": 0.2}], "dropout": 0.1},
            "relearn": {**LATER, "corpus": "post", "tokens": 256, "adapt": {"kind": "lora", "r": 4, "alpha": 8}},
        },
    },
)
NAMES = ["pretrain", "posttrain", "finetune", "second", "relearn"]


class Stopped(Exception):
    """A stop that somebody requested."""


def test_a_chain_of_five_stages_runs_from_its_study_file(tmp_path):
    out = plan_on_arrays(tmp_path, FIVE, 512)
    results = run_all(out)
    assert list(results) == NAMES
    for before, after in zip([None, *NAMES], NAMES, strict=False):
        assert results[after].parent == (results[before].id if before else None)
        assert evaluated(out, results[after].id).keys() == {"pre", "post", "ft", "talk"}
    assert results["second"].tokens_seen == {"talk": 320, "post": 64}
    assert results["relearn"].tokens_seen == {"post": 256}
    retained = [evaluated(out, results[name].id)["post"].nats_per_token for name in NAMES]
    assert retained[1] < retained[0], "learned"
    assert len(set(retained)) == 5


def test_a_chain_of_five_that_is_stopped_in_every_stage_is_bitwise_the_same(tmp_path, monkeypatch):
    monkeypatch.setattr("indelible.train.loop.REPORT_SECONDS", 0.0)
    whole, broken = plan_on_arrays(tmp_path / "whole", FIVE, 512), plan_on_arrays(tmp_path / "broken", FIVE, 512)
    results = run_all(whole)
    for run in runs_of(broken):
        stops = {1, 2}

        def stop(now: Progress, stops: set[int] = stops) -> None:
            if now.phase == "training" and now.step in stops:
                stops.discard(now.step)
                raise Stopped

        for _ in range(2):
            with pytest.raises(Stopped):
                run_stage(job_of(broken, run), progress=stop, guard=lambda: None)
        run_stage(job_of(broken, run), progress=stop, guard=lambda: None)
        expected = results[run.stage]
        state = load_file(broken / "runs" / run.id / "checkpoint" / "model.safetensors")
        kept = load_file(whole / "runs" / expected.id / "checkpoint" / "model.safetensors")
        assert state.keys() == kept.keys()
        assert all(state[name].equal(kept[name]) for name in kept)
        for corpus, loss in evaluated(whole, expected.id).items():
            assert evaluated(broken, run.id)[corpus].nats_per_token == loss.nats_per_token


def test_a_chain_of_one_stage(tmp_path):
    raw = {key: value for key, value in FP32.items() if key not in ("pipeline", "pretrain", "posttrain", "finetune")}
    out = plan_on_arrays(tmp_path, {**raw, "stages": {"only": {**LATER, "corpus": "ft", "lr": 0.01}}}, 512)
    results = run_all(out)
    assert list(results) == ["only"]
    assert results["only"].train_tokens == 320
    assert evaluated(out, results["only"].id).keys() == {"ft"}
    values = list(losses_of(out / "runs" / results["only"].id).values())
    assert values[-1] < values[0]


def test_continued_pretraining_from_a_given_checkpoint_with_exposure(tmp_path):
    first = plan_on_arrays(tmp_path / "first", layered(FP32, {"pretrain": {"lr": 0.01}}), 512)
    given = first / "runs" / run_all(first, until="pretrain")["pretrain"].id / "checkpoint"
    over = {"exposure": {"fraction": 1.0}, "stages": {"pretrain": {"init": str(given), "watch": {"steps": [0]}}}}
    out = plan_on_arrays(tmp_path / "out", layered(FP32, over), 512)
    results = run_all(out)
    assert list(results) == ["pretrain", "posttrain", "finetune"]
    assert results["pretrain"].parent is None
    assert results["pretrain"].tokens_seen == {"pre": 640, "post": 320}
    before = evaluated(first, given.parent.name)
    for corpus in ("pre", "post", "ft"):
        points = losses_of(out / "runs" / results["pretrain"].id, f"watch/{corpus}/nats_per_token")
        assert points[0] == before[corpus].nats_per_token, "it starts from exactly that model"
    assert plan_of(out).chains[0].start in plan_of(out).evaluations


def test_one_corpus_in_two_uses_is_counted_by_use(tmp_path):
    over = {"pipeline": {"pre": "pre", "post": "post", "ft": "pre"}, "finetune": {"replay_fraction": 0.25}}
    out = plan_on_arrays(tmp_path, layered(FP32, over), 512)
    result = run_all(out)["finetune"]
    assert result.tokens_seen == {"pre": 320, "pre:replay": 160}
    assert result.train_tokens == 480
    picture = json.loads((out / "runs" / result.id / "ledger.json").read_text())
    totals = {source: sum(row) for source, row in zip(picture["sources"], picture["tokens"], strict=True)}
    assert totals == result.tokens_seen
    assert evaluated(out, result.id).keys() == {"pre", "post"}


def test_the_warmup_that_was_taken_is_recorded(tmp_path):
    out = plan_on_arrays(tmp_path, layered(FP32, {"posttrain": {"warmup_steps": 3}}), 512)
    results = run_all(out)
    taken = {name: (result.total_steps, result.warmup_steps) for name, result in results.items()}
    assert taken == {"pretrain": (5, 1), "posttrain": (13, 3), "finetune": (3, 0)}, "2, 3 and 2 were asked for"
    rates = list(losses_of(out / "runs" / results["posttrain"].id, "train/lr").values())
    assert np.argmax(rates) == 2, "the peak is reached by the last update of the warmup"


def test_the_flops_of_a_result_are_those_that_torch_counts(tmp_path):
    study = layered(FP32, {"model": {"num_layers": 2, "hidden_size": 64, "intermediate_size": 160}, "seq_len": 64})
    out = plan_on_arrays(tmp_path, study, 512)
    result = run_all(out, until="pretrain")["pretrain"]
    loop = loop_of(out)
    loop.program.model.set_attn_implementation("eager")  # torch does not count its fused attention on a CPU
    with FlopCounterMode(display=False) as counter:
        assert loop._update()
    loop.program.model.set_attn_implementation(attention.NAME)
    assert result.train_tokens == 640
    assert result.flops / result.train_tokens == pytest.approx(counter.get_total_flops() / (4 * 64), rel=0.01)
