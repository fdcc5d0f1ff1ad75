"""The card from the files of a study: known answers, documents in the intervals, and what is said beside them."""

import json
import math

import pytest
from fake_audit import DOCUMENTS, FakeAudit, write_fake_audit

from indelible.durability.findings import make_audit
from indelible.durability.trials import read_trials
from indelible.records import run_dir
from indelible.results.run_folder import read_study_run


def audit_of(tmp_path, **more):
    fake = FakeAudit(**more)
    return make_audit(tmp_path, write_fake_audit(tmp_path, fake))


def test_a_share_from_files(tmp_path):
    found = audit_of(tmp_path, forgetting={"m": 0.4}, noise=0.002)
    assert (found.capability, found.before) == (pytest.approx(1.0), pytest.approx(2.0))
    assert found.kept.unit == "share"
    row = next(one for one in found.customers if (one.later, one.gain, one.customer) == ("all", 0.8, "careful"))
    best = found.later[0].best_gain
    assert row.lost.value == pytest.approx(0.8 * best * 0.4, rel=0.02), (
        "0.4 nats for each nat gained, at the middle rate"
    )
    assert found.verdict == "not_durable"
    assert found.trials == 3 * 2 * 3
    assert 0 < found.noise < 0.01


def test_documents_are_in_the_interval_of_files_and_not_of_recipes(tmp_path):
    files = audit_of(tmp_path / "one", forgetting={"m": 0.4}, noise=0.002)
    assert files.kept.high - files.kept.low > 0.01, "seeds hardly differ; documents do"
    assert f"{DOCUMENTS} held-out documents" in files.scope.covers
    recipe = audit_of(tmp_path / "two", forgetting={"m": 0.4, "n": 0.4001}, noise=0.0)
    assert recipe.scope.unit == "checkpoint"
    assert recipe.kept.n == 2
    assert recipe.kept.high - recipe.kept.low < 0.005


def test_two_recipes_are_ranked(tmp_path):
    found = audit_of(
        tmp_path, forgetting={"a": 0.3, "b": 0.32, "c": 0.31, "x": 0.5, "y": 0.52, "z": 0.49}, against=("x", "y", "z"),
        base=None, seeds=(0,),
    )  # fmt: skip
    main = next(row for row in found.comparison if row.is_main)
    assert (main.verdict, main.difference.n) == ("keeps more", 3)
    assert main.difference.high < 0
    assert found.kept.unit == "nats"


def test_what_the_model_keeps_does_not_depend_on_what_it_is_compared_with(tmp_path):
    alone = audit_of(tmp_path / "one", forgetting={"m": 0.4}, seeds=(0, 1, 2))
    fake = FakeAudit(forgetting={"m": 0.4, "o": 0.9}, against=("o",))
    beside = make_audit(tmp_path / "two", write_fake_audit(tmp_path / "two", fake))
    assert beside.later == alone.later
    assert beside.kept.value == pytest.approx(alone.kept.value, abs=0.02)
    assert any("One checkpoint a side" in one for one in beside.warnings)


def test_a_base_that_is_no_worse_gives_nats(tmp_path):
    fake = FakeAudit(forgetting={"m": 0.4})
    asked = write_fake_audit(tmp_path, fake)
    for path in tmp_path.glob("evaluations/given-base/instruction-*.json"):
        path.write_text(path.read_text().replace('"nats_per_token":3.0', '"nats_per_token":1.9'))
    found = make_audit(tmp_path, asked)
    assert found.kept.unit == "nats"
    assert any("no capability to take a share of" in one for one in found.warnings)


def test_an_edge_of_the_rates_is_said(tmp_path):
    found = audit_of(tmp_path, forgetting={"m": 0.4}, lrs=(1e-4, 3e-5))
    assert {one.edge for one in found.later} == {"largest"}
    assert any("the largest rate that was tried gains most" in one for one in found.warnings)


def test_trials_that_are_not_done_leave_the_verdict_open(tmp_path):
    fake = FakeAudit(forgetting={"m": 0.4})
    asked = write_fake_audit(tmp_path, fake)
    run = next(name for name in read_study_run(tmp_path).results if name.startswith("finetune"))
    (run_dir(tmp_path, run) / "result.json").unlink()
    found = make_audit(tmp_path, asked)
    assert (found.unfinished, found.verdict) == (1, "cannot_tell")
    assert "1 trials are not done" in found.reason


def test_a_trial_whose_loss_was_no_number_ends_there(tmp_path):
    asked = write_fake_audit(tmp_path, FakeAudit(forgetting={"m": 0.4}))
    run = read_study_run(tmp_path)
    name = next(one for one in run.results if one.startswith("finetune"))
    file = run_dir(tmp_path, name) / "metrics.jsonl"
    key = "watch/instruction/nats_per_token"
    points = [json.loads(line) for line in file.read_text().splitlines()]
    points = [{**point, key: math.nan} if point["step"] == 32 and key in point else point for point in points]
    file.write_text("".join(json.dumps(point) + "\n" for point in points))
    settings = {one.name: one for one in asked.portion.settings}
    trial = next(one for one in read_trials(run, settings, "instruction").trials if one.run == name)
    assert trial.curve.steps[-1] == 16
    assert trial.relearned.keys() == {5, 20}
