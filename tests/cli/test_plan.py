"""`plan`: what is to be run, what is done already, and what it costs."""

import json
import re
import time
from pathlib import Path

import pytest
import typer
from tiny_engine import TINY, layered, plan_of, run_all
from typer.testing import CliRunner

from indelible.cli import plan_commands
from indelible.records import evaluation_path
from indelible.study.load import load_study, resolve_study
from indelible.workflow.estimate import CPU_FLOPS_PER_CORE, Estimate, estimate
from indelible.workflow.planning import plan_study


@pytest.fixture(autouse=True)
def _own_cache(monkeypatch, tmp_path):
    monkeypatch.setenv("INDELIBLE_CACHE", str(tmp_path / "cache"))  # whatever `bench` measured here


def call(*arguments: str) -> str:
    app = typer.Typer()
    plan_commands.register(app)
    done = CliRunner().invoke(app, ["plan", *arguments], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.output


def estimate_of(raw: dict, out: Path | None = None, **how) -> Estimate:
    return estimate(plan_study(resolve_study(raw)), out, **how)


def test_it_is_json_for_machines():
    found = json.loads(call("quickstart", "--json"))
    assert (found["chains"], found["stage_runs"], found["evaluations"]) == (24, 36, 108)
    assert found["stages"]["finetune"]["runs"] == 24
    assert found["saving"] > 3
    assert (found["rate"], found["flops_per_second"]) == ("assumed", CPU_FLOPS_PER_CORE)
    assert [model["parameters"] for model in found["models"]] == [229_696]
    faster = json.loads(call("quickstart", "--json", "--flops-per-second", "1e12"))
    assert faster["hours"] == pytest.approx(found["hours"] * found["flops_per_second"] / 1e12)


def test_less_than_an_hour_is_said_in_minutes_and_seconds():
    said = [" ".join(call("quickstart", "--workers", "1", "--flops-per-second", speed).split())
            for speed in ("1e9", "1e11", "1e13")]  # fmt: skip
    assert " hours at most for what is left" in said[0]
    assert re.search(r": \d+ min \d\d s at most for what is left", said[1])
    assert re.search(r": \d+ s at most for what is left", said[2])


def test_parameters_are_said_by_arm_where_they_differ():
    raw = {**TINY, "model": {**TINY["model"], "hidden_size": [16, 32]}}
    models = estimate_of(raw).models
    assert [(model.parameters, model.where) for model in models] == [
        (10_544, {"model_hidden_size": 16}), (22_624, {"model_hidden_size": 32})
    ]  # fmt: skip
    assert "Model: 229,696 parameters." in " ".join(call("quickstart").split())
    text = " ".join(call("quickstart", "--set", "model.tie_embeddings=[true, false]").split())
    assert "229,696 parameters in 24 chains (tie_embeddings True); 360,768 parameters in 24 chains (tie" in text


def test_what_is_done_is_counted(tiny_study):
    out = tiny_study({"finetune": {"lr": [1e-3, 2e-3]}})
    raw = layered(TINY, {"finetune": {"lr": [1e-3, 2e-3]}})
    assert estimate_of(raw, out).remaining == "4 stage runs and 12 evaluations to be made"
    run_all(out, until="posttrain")
    found = estimate_of(raw, out)
    assert (found.already_done, found.evaluations_done) == (2, 6)
    assert found.remaining == "2 stage runs and 6 evaluations to be made"
    assert found.rate == "measured"
    run_all(out)
    found = estimate_of(raw, out)
    assert (found.already_done, found.remaining, found.hours) == (4, "nothing to do", 0.0)


def test_a_corpus_to_be_evaluated_on_trains_nothing_again(tiny_study):
    out = tiny_study()
    run_all(out)
    more = {"kind": "synthetic", "language": 9, "num_documents": 120, "document_words": 120, "num_words": 64}
    raw = layered(TINY, {"corpora": {"more": more}, "evaluation": {"corpora": ["more"]}})
    found = estimate_of(raw, out, flops_per_second=1e9)
    assert (found.already_done, found.evaluations, found.evaluations_done) == (3, 12, 9)
    assert found.remaining == "no training run, only 3 evaluations"
    assert found.hours > 0, "evaluations take time"
    assert estimate_of({**TINY, "evaluation": {**TINY["evaluation"], "windows": 4}}, out).remaining == (
        "no training run, only 9 evaluations"
    )


def test_an_evaluation_that_has_gone_is_to_be_made_again(tiny_study):
    out = tiny_study()
    run_all(out)
    plan = plan_of(out)
    checkpoint, wanted = next(iter(plan.evaluations.items()))
    evaluation_path(out, checkpoint, next(iter(wanted))).unlink()
    assert estimate_of(TINY, out).remaining == "no training run, only 1 evaluation"


def test_runs_behind_one_that_diverged_are_never_made(tiny_study):
    over = {"posttrain": {"max_loss": 1e-3}}
    out = tiny_study(over)
    results = run_all(out, until="posttrain")
    assert results["posttrain"].status == "diverged"
    found = estimate_of(layered(TINY, over), out)
    assert (found.already_done, found.unreachable, found.remaining) == (2, 1, "nothing to do")


def test_curves_that_are_asked_of_a_finished_run_are_a_run_to_be_made(tiny_study):
    out = tiny_study()
    run_all(out)
    raw = layered(TINY, {"finetune": {"watch": {"corpora": ["post"], "steps": [1, 2]}}})
    assert estimate_of(raw, out).remaining == "1 stage run and 0 evaluations to be made"


def test_storage_grows_with_the_workers():
    one, four = (estimate_of(TINY, workers=count) for count in (1, 4))
    assert one.kept_bytes == four.kept_bytes == 3 * 4 * 10_544
    assert four.peak_bytes - one.peak_bytes == 2 * 3 * one.resume_bytes_per_worker


def test_ten_thousand_runs_are_planned_in_two_seconds():
    raw = {
        "name": "large",
        "scale": "pico",
        "pipeline": {"pre": "general", "post": "music", "ft": "chemistry"},
        "exposure": {"fraction": [number / 10 for number in range(11)]},
        "posttrain": {"lr": [f"{number / 10}x" for number in range(1, 11)]},
        "finetune": {"lr": [f"{number / 10}x" for number in range(1, 11)]},
        "seeds": list(range(8)),
    }
    begun = time.process_time()
    found = estimate_of(raw)
    seconds = time.process_time() - begun
    assert found.stage_runs == 9_768
    assert seconds < 4.0, "2 seconds on a free core; here other work may share the core"


def test_every_shipped_study_plans_and_says_what_it_takes():
    for name in ("central", "mitigations", "unknowns"):
        planned = plan_study(load_study(name, ["seeds=[0]"]))
        assert estimate(planned).remaining.endswith("to be made")
