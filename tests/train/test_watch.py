"""Curves: watching changes no bit, its points are evaluations, and a finished run may be trained again for them."""

import json
from itertools import pairwise
from pathlib import Path

import pytest
from safetensors.torch import load_file
from tiny_engine import TINY, evaluated, job_of, layered, losses_of, plan_of, quiet, result_of, run_all, runs_of
from token_folder import plan_on_arrays

from indelible.errors import UserError
from indelible.records import StageResult
from indelible.study.training import WatchSpec
from indelible.train.stage import run_stage
from indelible.train.watch import log_spaced_steps

FP32 = layered(
    TINY,
    {
        "precision": "fp32",
        "pretrain": {"tokens": 10 * 128, "dropout": 0.1, "eval_interval": 4},
        "posttrain": {"dropout": 0.1, "patience": 2, "lr": 0.1},
    },
)
STAGES = ("pretrain", "posttrain", "finetune")
WATCHED = {"stages": {stage: {"watch": {}} for stage in STAGES}}


def curve(run_dir: Path, corpus: str) -> dict[int, float]:
    return losses_of(run_dir, f"watch/{corpus}/nats_per_token")


def lines(run_dir: Path) -> list[dict]:
    return [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]


def trained(run_dir: Path) -> list[dict]:
    """The lines of metrics.jsonl but for curves and speeds."""
    kept = [{k: v for k, v in line.items() if not k.startswith("speed/")} for line in lines(run_dir)]
    return [line for line in kept if not any(key.startswith("watch/") for key in line)]


def test_watching_changes_no_bit_of_the_training(tmp_path):
    plain = plan_on_arrays(tmp_path / "plain", FP32, 512)
    watched = plan_on_arrays(tmp_path / "watched", layered(FP32, WATCHED), 512)
    assert [run.id for run in runs_of(plain)] == [run.id for run in runs_of(watched)], "curves are in no identity"
    before, after = run_all(plain), run_all(watched)
    for stage in STAGES:
        one, other = plain / "runs" / before[stage].id, watched / "runs" / after[stage].id
        assert trained(one) == trained(other)
        assert (before[stage].watched, after[stage].watched) == (None, WatchSpec())
        assert before[stage].ledger_sha256 == after[stage].ledger_sha256
        assert (before[stage].steps, before[stage].best_step) == (after[stage].steps, after[stage].best_step)
        weights = load_file(one / "checkpoint" / "model.safetensors")
        assert all(weights[k].equal(v) for k, v in load_file(other / "checkpoint" / "model.safetensors").items())
        ours, theirs = evaluated(plain, one.name), evaluated(watched, other.name)
        assert {c: e.nats_per_token for c, e in ours.items()} == {c: e.nats_per_token for c, e in theirs.items()}
        assert not curve(one, "post")
        for corpus in ("pre", "post", "ft"):
            steps = list(curve(other, corpus))
            assert steps[0] == 0
            assert steps[-1] == after[stage].steps, "the end of the stage is a point, whatever ended it"
    assert after["posttrain"].stop_reason == "patience"


def test_the_last_point_is_the_evaluation_of_the_checkpoint(tmp_path):
    out = plan_on_arrays(tmp_path, layered(FP32, WATCHED), 512)
    results = run_all(out)
    for stage in ("pretrain", "finetune"):  # stage two hands on its best weights, and not the last
        run_id = results[stage].id
        for corpus, loss in evaluated(out, run_id).items():
            assert list(curve(out / "runs" / run_id, corpus).values())[-1] == loss.nats_per_token
            errors = losses_of(out / "runs" / run_id, f"watch/{corpus}/standard_error")
            assert list(errors.values())[-1] == loss.standard_error
    first = {corpus: curve(out / "runs" / results["finetune"].id, corpus)[0] for corpus in ("pre", "post", "ft")}
    start = evaluated(out, results["posttrain"].id)
    assert first == {corpus: start[corpus].nats_per_token for corpus in first}, "point 0 is the start of the stage"


def test_points_are_evaluations_of_checkpoints_trained_to_that_step(tmp_path):
    # a constant learning rate makes a shorter stage the beginning of a longer one
    stage = {"lr": 0.01, "min_lr": 0.01, "warmup_steps": 0, "dropout": 0.1, "tokens": 8 * 128}
    watch = {"stages": {"pretrain": {"watch": {"steps": [3, 5], "corpora": ["ft", "pre"]}}}}
    out = plan_on_arrays(tmp_path / "long", layered(TINY, {**watch, "precision": "fp32", "pretrain": stage}), 512)
    run_dir = out / "runs" / run_all(out, until="pretrain")["pretrain"].id
    assert list(curve(run_dir, "ft")) == list(curve(run_dir, "pre")) == [3, 5, 8]
    assert not curve(run_dir, "post")
    for steps in (3, 5, 8):
        short = layered(TINY, {"precision": "fp32", "pretrain": {**stage, "tokens": steps * 128}})
        other = plan_on_arrays(tmp_path / f"short {steps}", short, 512)
        result = run_all(other, until="pretrain")["pretrain"]
        assert result.steps == steps
        for corpus in ("ft", "pre"):
            assert curve(run_dir, corpus)[steps] == evaluated(other, result.id)[corpus].nats_per_token


def test_steps_that_nobody_chose_are_log_spaced():
    assert log_spaced_steps(0) == (0,)
    assert log_spaced_steps(1) == (0, 1)
    assert log_spaced_steps(5) == (0, 1, 2, 3, 4, 5)
    steps = log_spaced_steps(10_000)
    assert (steps[:2], steps[-1]) == ((0, 1), 10_000)
    ratios = [b / a for a, b in pairwise(steps[4:])]
    assert len(steps) == 17
    assert max(ratios) / min(ratios) < 1.2


def test_windows_of_a_curve_may_be_others_than_those_of_evaluations(tmp_path):
    watch = {"stages": {"pretrain": {"watch": {"windows": 3, "steps": []}}}}
    out = plan_on_arrays(tmp_path, layered(FP32, watch), 512)
    same = layered(FP32, {"evaluation": {"windows": 3}})
    other = plan_on_arrays(tmp_path / "other", same, 512)
    run_id = run_all(out, until="pretrain")["pretrain"].id
    assert run_all(other, until="pretrain")["pretrain"].id == run_id
    for corpus, loss in evaluated(other, run_id).items():
        assert curve(out / "runs" / run_id, corpus) == {10: loss.nats_per_token}


@pytest.fixture
def finished(tmp_path) -> Path:
    """A study whose runs are done without curves and are then asked for them."""
    out = plan_on_arrays(tmp_path / "out", FP32, 512)
    run_all(out)
    return plan_on_arrays(tmp_path / "out", layered(FP32, WATCHED), 512)


def repeated(out: Path, stage: str) -> tuple[Path, StageResult | None]:
    run = runs_of(out, stage)[0]
    job = job_of(out, run).model_copy(update={"evaluations": {}})  # they are there
    run_stage(job, progress=quiet, guard=lambda: None)
    return job.run_dir, result_of(out, run.id)


@pytest.mark.parametrize("stage", STAGES)
def test_a_run_that_is_repeated_for_its_curves_keeps_its_result(finished, tmp_path, stage):
    run_id = runs_of(finished, stage)[0].id
    before = result_of(finished, run_id)
    run_dir = finished / "runs" / run_id
    metrics = trained(run_dir)
    folder = run_dir / "checkpoint"
    inode = folder.stat().st_ino
    run_dir, after = repeated(finished, stage)
    assert before is not None
    assert before.watched is None
    assert after == before.model_copy(update={"watched": WatchSpec()})
    assert trained(run_dir) == metrics
    assert folder.stat().st_ino == inode, "others may be reading the checkpoint"
    assert not (run_dir / "metrics.first.jsonl").exists()
    assert not (run_dir / "resume").exists()
    fresh = plan_on_arrays(tmp_path / "fresh", layered(FP32, WATCHED), 512)
    run_all(fresh, until=stage)
    for corpus in ("pre", "post", "ft"):
        assert len(curve(run_dir, corpus)) > 2
        assert curve(run_dir, corpus) == curve(fresh / "runs" / run_dir.name, corpus)


@pytest.mark.parametrize("how", ["other weights", "diverged"])
def test_a_repeated_run_that_ends_otherwise_is_refused_and_the_first_is_kept(finished, monkeypatch, how):
    run_id = runs_of(finished, "pretrain")[0].id
    run_dir = finished / "runs" / run_id
    before, metrics = result_of(finished, run_id), (run_dir / "metrics.jsonl").read_bytes()
    weights = (run_dir / "checkpoint" / "model.safetensors").read_bytes()
    if how == "other weights":  # as another processor would
        monkeypatch.setattr("indelible.train.loop.learning_rate", lambda *args: 0.001)
    else:
        monkeypatch.setattr("indelible.train.loop.learning_rate", lambda *args: float("inf"))
    with pytest.raises(UserError, match=rf"{run_id}: trained again for its curves it gave other weights .*`watch` out"):
        repeated(finished, "pretrain")
    assert result_of(finished, run_id) == before
    assert (run_dir / "metrics.jsonl").read_bytes() == metrics
    assert (run_dir / "checkpoint" / "model.safetensors").read_bytes() == weights
    assert not (run_dir / "metrics.first.jsonl").exists()
    assert not (run_dir / "resume").exists()


def test_a_repeated_run_that_was_stopped_goes_on(finished, monkeypatch):
    monkeypatch.setattr("indelible.train.loop.REPORT_SECONDS", 0.0)
    run = runs_of(finished, "pretrain")[0]
    before = result_of(finished, run.id)
    metrics = trained(finished / "runs" / run.id)

    def stop(now) -> None:
        if now.phase == "training" and now.step == 3:
            raise InterruptedError

    with pytest.raises(InterruptedError):
        run_stage(job_of(finished, run), progress=stop, guard=lambda: None)
    assert result_of(finished, run.id) == before
    run_dir, after = repeated(finished, "pretrain")
    assert after is not None
    assert after.watched is not None
    assert trained(run_dir) == metrics
    assert list(curve(run_dir, "ft"))[:2] == [0, 1]


def test_a_job_that_does_not_say_how_a_watched_corpus_is_evaluated_is_our_own_fault(finished):
    run = runs_of(finished, "pretrain")[0]
    job = job_of(finished, run).model_copy(update={"evaluations": {}, "heldout": ()})
    with pytest.raises(AssertionError, match=r"does not say how (pre|post|ft) is evaluated"):
        run_stage(job, progress=quiet, guard=lambda: None)
    assert plan_of(finished).heldout
