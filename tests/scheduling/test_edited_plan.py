"""A plan.json that was edited by hand: what it is a hash of decides, before anything of it is written."""

import json
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from fake_files import edit_json

from indelible.errors import UserError
from indelible.records import Plan
from indelible.scheduling.engine import Engine
from indelible.scheduling.folder import StudyFolder
from indelible.scheduling.launcher import _check_specs
from indelible.scheduling.worker import Worker
from indelible.study.identity import canonical, check_id, digest_of, task_evaluation_id, task_form
from indelible.study.stage_spec import TaskEvaluation

SPEC = {"init": None, "steps": 2}
RUN = f"pretrain-{digest_of(SPEC)[:12]}"


def work(out: Path, fake: ModuleType) -> int:
    return Worker(out, "w", engine=Engine(fake.run_stage, fake.run_evaluations), beat_seconds=30).work()


def failure_of(folder: Path) -> str:
    return str(json.loads((folder / "failure.json").read_text())["message"])


@pytest.mark.parametrize(
    ("field", "value"), [("windows", -1), ("windows", 0), ("stop_windows", -5), ("seq_len", 0), ("windows", 2**63)]
)
def test_counts_of_an_evaluation_that_cannot_be(tmp_path: Path, fake: ModuleType, field: str, value: int) -> None:
    out = fake.make_plan(tmp_path / "out", [(RUN, None, {"steps": 2})])
    edit_json(out / "plan.json", lambda plan: plan["heldout"][0].update({field: value}))
    with pytest.raises(UserError, match=rf"plan\.json: heldout\.0\.{field}: .*(greater|less) than .*edited"):
        Plan.read(out / "plan.json")


@pytest.mark.parametrize(("field", "value"), [("windows", 5), ("stop_windows", 3), ("seq_len", 16)])
def test_an_evaluation_of_other_windows_is_not_made(tmp_path: Path, fake: ModuleType, field: str, value: int) -> None:
    """Its name says which windows it is of: with a possible number, too, it would be another evaluation's loss."""
    out = fake.make_plan(tmp_path / "out", [(RUN, None, {"steps": 2})])
    edit_json(out / "plan.json", lambda plan: plan["heldout"][0].update({field: value}))
    work(out, fake)
    assert "are not those that its name is a hash of" in failure_of(out / "runs" / RUN)
    assert not (out / "evaluations").exists() or not list((out / "evaluations").rglob("music-*.json"))


def test_a_stage_run_of_another_spec_is_not_begun(tmp_path: Path, fake: ModuleType) -> None:
    out = fake.make_plan(tmp_path / "out", [(RUN, None, {"steps": 3})])
    with pytest.raises(UserError, match=rf"plan\.json: the settings of {RUN} are not those"):
        _check_specs(StudyFolder.open(out))
    work(out, fake)
    assert "are not those that its name is a hash of" in failure_of(out / "runs" / RUN)
    assert not (out / "runs" / RUN / "spec.json").exists(), "it would be taken for the run's own later"
    fake.make_plan(out, [(RUN, None, {"steps": 2})])  # as it was
    _check_specs(StudyFolder.open(out))
    (out / "runs" / RUN / "failure.json").unlink()
    assert work(out, fake) == 0
    assert (out / "runs" / RUN / "result.json").is_file()


def test_an_evaluation_on_a_task_is_what_its_name_says() -> None:
    task = TaskEvaluation(checkpoint="", task="t", content="c" * 64, own_name=None, lm_eval="0.4.9", tokenizer="k",
                          few_shot=2, limit=8, metric=None, tokens=64)  # fmt: skip
    name = task_evaluation_id(task, "a")
    check_id(name, task_form(task.model_copy(update={"tokens": 1}), "a"), "plan.json")
    for other in ({"few_shot": 3}, {"limit": None}, {"lm_eval": "0.4.8"}):
        with pytest.raises(UserError, match=rf"plan\.json: the settings of {name} "):
            check_id(name, task_form(task.model_copy(update=other), "a"), "plan.json")


def test_a_curve_of_a_corpus_that_is_not_there(tmp_path: Path, fake: ModuleType) -> None:
    out = fake.make_plan(tmp_path / "out", [(RUN, None, {"steps": 2})])
    edit_json(out / "plan.json", lambda plan: plan["stage_runs"][0].update({"watch": {"corpora": ["other"]}}))
    with pytest.raises(UserError, match=rf"watch of {RUN} names a corpus that has no store"):
        Plan.read(out / "plan.json")


@pytest.mark.parametrize(
    "edit",
    [
        lambda spec: spec.pop("data"),
        lambda spec: spec.update(seq_len=-1),
        lambda spec: spec["data"]["main"].update(windows=-1),
        lambda spec: spec["training"].update(lr="fast"),
    ],
)
def test_the_engine_refuses_a_spec_that_is_none(
    tiny_study: Callable[..., Path], edit: Callable[[dict[str, Any]], object]
) -> None:
    from tiny_engine import job_of, quiet, runs_of

    from indelible.train.stage import run_stage

    out = tiny_study()
    job = job_of(out, runs_of(out, "pretrain")[0])
    spec = json.loads(json.dumps(job.spec))
    edit(spec)
    with pytest.raises(UserError, match=rf"{job.run_id}: spec\..*plan\.json was edited"):
        run_stage(job.model_copy(update={"spec": spec}), progress=quiet, guard=lambda: None)


def test_a_real_plan_says_what_its_names_are_hashes_of(tiny_study: Callable[..., Path]) -> None:
    """Else every study would be refused: also one with curves, exposure, a mix and pairs of settings."""
    out = tiny_study({"exposure": {"fraction": [0, 0.5]}, "finetune": {"watch": {}, "replay_fraction": [0, 0.1]}})
    folder = StudyFolder.open(out)
    _check_specs(folder)
    for checkpoint, wanted in folder.plan.evaluations.items():
        for name, kind in wanted.items():
            check_id(name, canonical(folder.plan.heldout[kind]) | {"checkpoint": checkpoint}, "plan.json")
            with pytest.raises(UserError):
                check_id(name, canonical(folder.plan.heldout[kind]) | {"checkpoint": "x"}, "plan.json")
