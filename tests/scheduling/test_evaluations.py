"""Evaluations as units of their own: what a stage run did not make itself is made by a worker, and trains nothing."""

import json
import os
import shutil
import subprocess
from collections import Counter
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from indelible.errors import UserError
from indelible.records import Evaluation, StageResult
from indelible.scheduling import engine as engine_module
from indelible.scheduling.engine import load_engine
from indelible.scheduling.folder import StudyFolder
from indelible.scheduling.jobs import evaluation_job, stage_job
from indelible.scheduling.lease import Lease, LeaseObserver
from indelible.scheduling.run_index import RunIndex, Status
from indelible.scheduling.snapshot import snapshot_of
from indelible.scheduling.worker import Worker

Runs = list[tuple[str, str | None, dict[str, Any]]]
RUNS: Runs = [
    ("pretrain-a", None, {"steps": 2}),
    ("finetune-b", "pretrain-a", {"steps": 2}),
    ("finetune-c", "pretrain-a", {"steps": 2, "i": 1}),
]


def _work(fake: ModuleType, out: Path) -> None:
    engine = load_engine("fake_engine:run_stage")
    assert engine.run_stage is fake.run_stage
    assert Worker(out, "w", engine=engine).work() == 0


def _finished(out: Path) -> Counter[str]:
    return Counter((out / "finished.log").read_text().split())


def _losses(out: Path) -> dict[str, float | None]:
    found = (Evaluation.read(path) for path in out.glob("evaluations/*/*-????????????.json"))
    return {f"{one.checkpoint} {one.corpus}": one.nats_per_token for one in found if one is not None}


def test_a_stage_run_makes_its_own_evaluations_and_no_unit_is_left(tmp_path: Path, fake: ModuleType) -> None:
    out = fake.make_plan(tmp_path / "out", RUNS)
    _work(fake, out)
    assert _finished(out) == {"pretrain-a": 1, "finetune-b": 1, "finetune-c": 1}
    assert set(_losses(out)) == {"pretrain-a music", "finetune-b music", "finetune-c music"}
    assert set(snapshot_of(out).by_stage) == {"pretrain", "finetune"}
    assert not list(out.glob("evaluations/*/lease"))


def test_a_new_corpus_trains_nothing_again(tmp_path: Path, fake: ModuleType) -> None:
    out = fake.make_plan(tmp_path / "out", RUNS)
    _work(fake, out)
    results = {path: path.read_bytes() for path in out.glob("runs/*/result.json")}
    before = _losses(out)
    fake.make_plan(out, RUNS, corpora=("music", "chemistry"))
    planned = snapshot_of(out)
    assert planned.by_stage == {"pretrain": {"done": 1}, "finetune": {"done": 2}, "evaluate": {"planned": 3}}
    assert not planned.is_settled
    code, text = fake.run_quietly(out)
    assert code == 0
    assert "evaluations/finetune-b: done" in text
    assert "toy: 6 done" in text
    assert {path: path.read_bytes() for path in out.glob("runs/*/result.json")} == results
    assert {name: count for name, count in _finished(out).items() if "/" in name} == {
        f"evaluations/{name}": 1 for name, _, _ in RUNS
    }
    after = _losses(out)
    assert {key: after[key] for key in before} == before
    assert len(after) == 6
    assert fake.run_quietly(out)[1].strip() == "toy: 6 done. Nothing to do."


def test_evaluations_wait_for_their_checkpoint_and_no_longer(tmp_path: Path, fake: ModuleType) -> None:
    out = fake.make_plan(tmp_path / "out", RUNS[:1])
    _work(fake, out)
    fake.make_plan(out, RUNS, corpora=("music", "chemistry"))
    index = RunIndex(StudyFolder.open(out))
    assert {unit.id for unit, _ in index.ready()} == {"finetune-b", "finetune-c", "evaluations/pretrain-a"}
    assert "evaluations/finetune-b" not in index.scan()
    lease = Lease.take(out / "evaluations" / "pretrain-a", 1, "somebody")
    assert lease is not None
    assert index.scan()["evaluations/pretrain-a"].status is Status.RUNNING
    assert "evaluations/pretrain-a" not in [unit.id for unit, _ in index.ready()]
    lease.release("stopped")
    assert index.scan()["evaluations/pretrain-a"].status is Status.PLANNED


def test_a_given_checkpoint_is_evaluated_at_once(tmp_path: Path, fake: ModuleType) -> None:
    given = tmp_path / "given"
    given.mkdir()
    (given / "model.safetensors").write_text("abcd")
    name = "given-" + "f" * 12
    runs: Runs = [("finetune-b", None, {"steps": 2, "init": {"class": "StageInit", "sha256": "f" * 64}})]
    out = fake.make_plan(tmp_path / "out", runs, given={name: given})
    index = RunIndex(StudyFolder.open(out))
    assert {unit.id for unit, _ in index.ready()} == {"finetune-b", f"evaluations/{name}"}
    _work(fake, out)
    assert set(_losses(out)) == {f"{name} music", "finetune-b music"}
    assert snapshot_of(out).by_stage["evaluate"] == {"done": 1}
    folder = StudyFolder.open(out)
    assert stage_job(folder, folder.runs["finetune-b"]).start_dir == given


def test_a_start_that_the_plan_does_not_name(tmp_path: Path, fake: ModuleType) -> None:
    runs: Runs = [("finetune-b", None, {"init": {"class": "StageInit", "sha256": "f" * 64}})]
    folder = StudyFolder.open(fake.make_plan(tmp_path / "out", runs))
    with pytest.raises(UserError, match=r"names no folder for given-ffffffffffff, from which finetune-b starts"):
        stage_job(folder, folder.runs["finetune-b"])


def test_jobs_ask_only_for_what_is_missing(tmp_path: Path, fake: ModuleType) -> None:
    out = fake.make_plan(tmp_path / "out", RUNS[:1])
    _work(fake, out)
    folder = StudyFolder.open(fake.make_plan(out, RUNS, corpora=("music", "chemistry")))
    job = evaluation_job(folder, "pretrain-a")
    assert (job.checkpoint_dir, job.evaluations_dir) == (
        out / "runs" / "pretrain-a" / "checkpoint",
        out / "evaluations" / "pretrain-a",
    )
    assert job.tokenizer_dir == out / "tokens" / "tokenizer-0123456789ab"
    wanted = {name: (spec.checkpoint, spec.store) for name, spec in job.evaluations.items()}
    assert wanted == {fake.evaluation_name("pretrain-a", "chemistry"): ("pretrain-a", "chemistry-0123456789ab")}
    job = stage_job(folder, folder.runs["finetune-b"])
    assert len(job.evaluations) == len(job.heldout) == 2
    assert {spec.checkpoint for spec in job.evaluations.values()} == {"finetune-b"}
    assert job.watch_stores == {"music": "music-0123456789ab", "chemistry": "chemistry-0123456789ab"}
    assert type(job).model_validate_json(job.model_dump_json()) == job


def test_a_checkpoint_that_has_gone_is_made_again_for_its_evaluations(tmp_path: Path, fake: ModuleType) -> None:
    out = fake.make_plan(tmp_path / "out", RUNS)
    _work(fake, out)
    before = _losses(out)
    shutil.rmtree(out / "runs" / "finetune-b" / "checkpoint")
    fake.make_plan(out, RUNS, corpora=("music", "chemistry"))
    _work(fake, out)
    expected = {"finetune-b": 2, "evaluations/pretrain-a": 1, "evaluations/finetune-c": 1}
    assert _finished(out) == {"pretrain-a": 1, "finetune-c": 1, **expected}  # finetune-b evaluated itself
    assert {key: _losses(out)[key] for key in before} == before
    # on another machine the new weights may differ in bits, so what was computed with the old ones is not kept for them
    superseded = out / "runs" / "finetune-b"
    assert (superseded / "result.superseded.json").exists()
    assert len(list(superseded.glob("evaluations.superseded/*-????????????.json"))) == 1


@pytest.mark.parametrize("how", ["io", "kill"])
def test_lost_attempts_are_tried_again(tmp_path: Path, fake: ModuleType, how: str) -> None:
    out = fake.make_plan(tmp_path / "out", RUNS[:1])
    _work(fake, out)
    (out / "fail_evaluations.json").write_text(json.dumps({"how": how, "at": 0, "times": 2}))
    fake.make_plan(out, RUNS[:1], corpora=("music", "chemistry"))
    assert fake.run_quietly(out, 1)[0] == 0
    assert (out / "evaluations" / "pretrain-a" / "lease" / "3.json").exists()


def test_an_evaluation_that_fails_is_shown_and_blocks_nothing(tmp_path: Path, fake: ModuleType) -> None:
    out = fake.make_plan(tmp_path / "out", RUNS[:1])
    _work(fake, out)
    (out / "fail_evaluations.json").write_text(json.dumps({"how": "error", "at": 0}))
    fake.make_plan(out, RUNS, corpora=("music", "chemistry"))
    code, text = fake.run_quietly(out)
    assert code == 1
    assert "evaluations/pretrain-a: failed (ValueError: wrong by design)" in text
    by_stage = snapshot_of(out).by_stage
    assert (by_stage["finetune"], by_stage["evaluate"]) == ({"done": 2}, {"failed": 1})
    (out / "fail_evaluations.json").unlink()
    assert fake.run_quietly(out)[0] == 0  # the same command tries it again


def test_an_engine_that_makes_no_evaluations_is_a_failure(tmp_path: Path, fake: ModuleType) -> None:
    out = fake.make_plan(tmp_path / "out", RUNS[:1])
    _work(fake, out)
    fake.make_plan(out, RUNS[:1], corpora=("music", "chemistry"))
    idle = engine_module.Engine(fake.run_stage, lambda job, *, progress, guard: None)
    assert Worker(out, "w", engine=idle).work() == 0
    failure = json.loads((out / "evaluations" / "pretrain-a" / "failure.json").read_text())
    assert failure["id"] == "pretrain-a"
    name = fake.evaluation_name("pretrain-a", "chemistry")
    assert failure["message"] == f"evaluations/pretrain-a: the engine came back without making {name}."


def test_the_progress_of_a_killed_evaluation_counts(tmp_path: Path) -> None:
    from indelible.scheduling import failures

    for generation in (1, 2):
        lease = Lease.take(tmp_path, generation, "w")
        assert lease is not None
        (tmp_path / f"music-{generation}.documents.parquet").write_text("saved")
        lease.abandon()  # as if killed
        assert failures.failures_before(tmp_path, LeaseObserver().look(tmp_path)) == 0
    lease = Lease.take(tmp_path, 3, "w")
    assert lease is not None
    lease.abandon()
    assert failures.failures_before(tmp_path, LeaseObserver().look(tmp_path)) == 1


def test_a_diverged_run_is_not_evaluated(tmp_path: Path, fake: ModuleType) -> None:
    out = fake.make_plan(tmp_path / "out", [("pretrain-a", None, {"diverges": True}), ("finetune-b", "pretrain-a", {})])
    _work(fake, out)
    snapshot = snapshot_of(out)
    assert snapshot.by_stage == {"pretrain": {"diverged": 1}, "finetune": {"diverged": 1}}
    assert snapshot.is_finished


def test_the_engines_module_says_who_evaluates(fake: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    assert load_engine("fake_engine:run_on_gpus").run_evaluations is fake.run_evaluations
    monkeypatch.delattr(fake, "run_evaluations")
    monkeypatch.setattr(engine_module, "_EVALUATIONS", "json:dumps")  # indelible's own would import torch
    assert load_engine("fake_engine:run_on_gpus").run_evaluations is json.dumps


def test_time_left_counts_evaluations_that_are_left(tmp_path: Path, fake: ModuleType) -> None:
    out = fake.make_plan(tmp_path / "out", RUNS)
    _work(fake, out)
    for path in out.glob("runs/*/result.json"):  # two units of work took ten seconds each
        StageResult.read(path).model_copy(update={"total_seconds": 10.0}).write(path)
    assert snapshot_of(out).seconds_left() == 0.0
    fake.make_plan(out, RUNS, corpora=("music", "chemistry"))
    # three times two corpora, four windows of eight tokens, at the speed of all stages together
    assert snapshot_of(out).seconds_left() == pytest.approx(3 * 2 * 4 * 8 / 0.2)


def test_a_killed_launch_of_evaluations_goes_on(tmp_path: Path, fake: ModuleType) -> None:
    out = fake.make_plan(tmp_path / "out", RUNS[:1])
    _work(fake, out)
    more = [f"corpus{i}" for i in range(3)]
    fake.make_plan(out, RUNS[:1], corpora=("music", *more))
    (out / "fail_evaluations.json").write_text(json.dumps({"how": "kill", "at": 0, "times": 1}))
    launcher = subprocess.Popen(fake.command(out, 1), stdout=subprocess.DEVNULL)
    launcher.wait(60)
    assert launcher.returncode == 0
    assert len(_losses(out)) == 4
    assert os.listdir(out / "evaluations") == ["pretrain-a"]
