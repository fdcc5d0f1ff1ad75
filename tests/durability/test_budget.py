"""Prices: by FLOPs before anything is done, by what the same kind of run took once it is."""

import pytest
from tiny_engine import TINY, layered

from indelible.durability.budget import RUN_SECONDS, START_SECONDS, price
from indelible.records import StageResult, run_dir
from indelible.study.load import resolve_study
from indelible.workflow.planning import plan_study

WATCHED = layered(TINY, {"seeds": [0, 1, 2]}) | {
    "stages": {"finetune": {"watch": {"corpora": ["post", "ft"], "steps": [0, 1, 2]}}}
}


def planned(over=None):
    return plan_study(resolve_study(layered(WATCHED, over or {})))


def finish(out, plan, seconds):
    """Writes results for runs of a plan, without training them."""
    for name, taken in seconds.items():
        run = plan.graph.runs[name]
        StageResult(
            id=name, stage=run.stage, status="done", stop_reason="max_tokens", steps=1, total_steps=1, warmup_steps=0,
            train_tokens=1, tokens_seen={}, trained_seconds=taken, eval_seconds=0.0, total_seconds=taken,
            tokens_per_second=1.0, flops=1.0, ledger_sha256="0", precision="fp32",
        ).write(run_dir(out, name) / "result.json")  # fmt: skip


def test_before_anything_is_done_it_is_the_flops_of_training_and_of_curves():
    plan = planned()
    found = price(plan, None, 1)
    flops = sum(cost.flops for cost in plan.costs.values())
    assert found.seconds == pytest.approx(START_SECONDS + RUN_SECONDS * len(plan.graph.runs) + flops / 5e10)
    assert (found.done, found.rate) == (0, "assumed")
    assert price(plan, None, 2).seconds < found.seconds


def test_what_was_done_tells_how_long_the_rest_takes(tmp_path):
    plan = planned()
    by_stage = {}
    for run in plan.graph.runs.values():
        by_stage.setdefault(run.stage, []).append(run.id)
    finish(tmp_path, plan, {by_stage["finetune"][0]: 40.0, by_stage["pretrain"][0]: 100.0})
    found = price(plan, tmp_path, 3)
    flops = {stage: plan.costs[names[0]].flops for stage, names in by_stage.items()}
    posttrain = flops["posttrain"] * 140 / (flops["pretrain"] + flops["finetune"])
    assert (found.rate, found.done) == ("measured", 2)
    assert found.seconds == pytest.approx(START_SECONDS + 140.0 + posttrain)
    assert price(plan, tmp_path, 30).seconds == pytest.approx(found.seconds), "a chain cannot be shortened"


def test_a_larger_study_never_costs_less(tmp_path):
    small, large = planned({"seeds": [0]}), planned()
    finish(tmp_path, small, {next(iter(small.graph.runs)): 3.0})
    assert price(small, tmp_path, 2).seconds <= price(large, tmp_path, 2).seconds
