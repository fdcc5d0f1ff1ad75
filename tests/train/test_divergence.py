"""Divergence is a result, whatever shows it: the first evaluation, an update, the last update, the final losses."""

import json
import math

import numpy as np
import pytest
import torch
from tiny_engine import TINY, evaluated, job_of, layered, losses_of, quiet, run_all, runs_of
from token_folder import plan_on_arrays

from indelible.errors import UserError
from indelible.records import StageResult
from indelible.train import evaluate
from indelible.train.loop import Loop
from indelible.train.stage import run_stage

FP32 = layered(TINY, {"precision": "fp32"})
ONE_STEP = {"tokens": 4 * 32, "warmup_steps": 0}


@pytest.fixture
def study(tmp_path):
    """Plans a tiny study over arrays."""

    def make(over: dict, name: str = "out"):
        return plan_on_arrays(tmp_path / name, layered(FP32, over), 512)

    return make


def assert_diverged(out, stage: str) -> StageResult:
    """Runs up to a stage that must diverge; its result."""
    result = run_all(out, until=stage)[stage]
    run_dir = out / "runs" / result.id
    assert (result.status, result.stop_reason, result.weights_sha256) == ("diverged", "diverged", None)
    assert evaluated(out, result.id) == {}
    assert not (run_dir / "checkpoint").exists()
    assert not (run_dir / "resume").exists()
    assert (run_dir / "ledger.json").exists()
    assert StageResult.read(run_dir / "result.json") == result, "it can be written and read: no NaN stands in it"
    return result


def test_a_first_evaluation_that_is_not_a_number(study, monkeypatch):
    def ruin(model: torch.nn.Module, *args) -> None:
        for weight in model.parameters():
            torch.nn.init.constant_(weight, math.nan)

    monkeypatch.setattr("indelible.train.start.initialise", ruin)
    out = study({"pretrain": {"eval_interval": 1, "patience": 1}})
    result = assert_diverged(out, "pretrain")
    assert (result.steps, result.best_step, result.best_stop_loss) == (0, None, None)
    stop = losses_of(out / "runs" / result.id, "eval/pre/nats_per_token")
    assert math.isnan(float(stop[0])), "it is in the metrics as it was"


def test_a_first_evaluation_that_is_not_a_number_does_not_hide_later_ones(study, monkeypatch):
    # a loss that is no number compares as not better: kept as the best it would win for good
    out = study({"pretrain": {"eval_interval": 1, "patience": 3}})
    found = iter([math.nan, 6.0, 5.0, 7.0, 7.0, 7.0, 5.0])
    monkeypatch.setattr("indelible.train.stopping.mean_loss", lambda *args: next(found))
    result = run_all(out, until="pretrain")["pretrain"]
    assert (result.status, result.stop_reason, result.steps) == ("done", "patience", 5)
    assert (result.best_step, result.best_stop_loss) == (2, 5.0)


def test_a_last_update_that_ruins_the_weights(study):
    out = study({"pretrain": {**ONE_STEP, "lr": 1e38}})
    result = assert_diverged(out, "pretrain")
    assert (result.steps, result.total_steps) == (1, 1), "the update before was sound, its loss too"
    assert math.isfinite(losses_of(out / "runs" / result.id)[1])


def test_a_last_update_whose_ruin_the_loss_does_not_show(study):
    # weights of 1e30: their mean square overflows, every hidden state is zero, and the loss is that of a guess
    result = assert_diverged(study({"pretrain": {**ONE_STEP, "lr": 1e30}}), "pretrain")
    assert (result.steps, result.total_steps) == (1, 1)
    kept = {"posttrain": {**ONE_STEP, "max_tokens": 128, "lr": 1e30, "patience": 3, "eval_interval": 1}}
    result = run_all(study(kept, "kept"), until="posttrain")["posttrain"]
    assert (result.status, result.best_step) == ("done", 0), "the weights before it were kept and are sound"


def test_a_weight_that_no_held_out_window_shows(study, monkeypatch):
    update = Loop._update

    def ruin_one_row(self: Loop) -> bool:
        is_finite = update(self)
        if self.state.step == self.total_steps:
            with torch.no_grad():
                self.program.model.get_input_embeddings().weight[511] = math.nan  # the arrays hold no such token
        return is_finite

    monkeypatch.setattr(Loop, "_update", ruin_one_row)
    assert_diverged(study({"model": {"tie_embeddings": False}}), "pretrain")


def test_a_final_loss_that_is_infinite(study, monkeypatch):
    monkeypatch.setattr(evaluate, "target_losses", lambda program, heldout: np.full(heldout.valid.shape, np.inf))
    assert_diverged(study({}), "pretrain")


def test_a_final_loss_above_max_loss_on_the_stage_s_own_corpus(study):
    out = study({"pretrain": {**ONE_STEP, "lr": 2.0, "max_loss": 6.5}})
    result = assert_diverged(out, "pretrain")
    assert losses_of(out / "runs" / result.id)[1] < 6.5
    fine = study({"pretrain": {**ONE_STEP, "lr": 2.0, "max_loss": 1e6}}, "fine")
    kept = run_all(fine, until="pretrain")["pretrain"]
    assert kept.status == "done"
    assert evaluated(fine, kept.id)["pre"].nats_per_token > 6.5


def test_a_loss_above_max_loss_on_another_corpus_is_no_divergence(tmp_path):
    learn = {"tokens": 38_400, "max_tokens": None, "lr": 0.03, "patience": None, "eval_interval": None}
    more = {"corpus": "post", "tokens": 640, "lr": 1e-4, "global_batch_size": 4, "max_loss": 4.2}
    over = layered(FP32, {"posttrain": learn, "stages": {"more": more}})
    out = plan_on_arrays(tmp_path, over, 512, tokens=40_000)
    result = run_all(out)["more"]
    losses = evaluated(out, result.id)
    assert losses["post"].nats_per_token < 4.2 < losses["ft"].nats_per_token, "what the stage is to show"
    assert (result.status, losses["ft"].status) == ("done", "done")


def test_best_weights_that_were_restored_do_not_diverge(study):
    # the last update ruins the weights, but patience kept those before it
    over = {"posttrain": {"tokens": 128, "max_tokens": 128, "warmup_steps": 0, "lr": 1e38, "patience": 3}}
    out = study(over)
    result = run_all(out, until="posttrain")["posttrain"]
    assert (result.status, result.steps, result.best_step) == ("done", 1, 0)
    lines = (out / "runs" / result.id / "metrics.jsonl").read_text().splitlines()
    assert json.loads(lines[-1])["eval/post/nats_per_token"] == "nan"


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_gradient_that_is_not_finite_stops_before_the_update(study, monkeypatch, bad):
    clip = torch.nn.utils.clip_grad_norm_
    calls = []

    def third_is_bad(*args, **kwargs):
        calls.append(1)
        return clip(*args, **kwargs) * (bad if len(calls) == 3 else 1.0)

    monkeypatch.setattr(torch.nn.utils, "clip_grad_norm_", third_is_bad)
    result = assert_diverged(study({}), "pretrain")
    assert result.steps == 2


def test_a_descendant_of_a_diverged_stage_says_what_is_missing(study):
    out = study({"pretrain": {**ONE_STEP, "lr": 1e38}})
    assert_diverged(out, "pretrain")
    with pytest.raises(UserError, match="starts from is not there"):
        run_stage(job_of(out, runs_of(out, "posttrain")[0]), progress=quiet, guard=lambda: None)
