"""One object for a study folder: what it holds, in what order, and what is refused."""

import json

import pytest
from fake_files import forget
from fake_study import FakeStudy, write_fake_study
from resolved_study import write_resolved_study

from indelible.errors import UserError
from indelible.records import Evaluation, Plan, StageResult, run_dir
from indelible.results.run_folder import read_metrics, read_study_run

PAPER = {"name": "x", "scale": "pico", "pipeline": {"pre": "general", "post": "music", "ft": "chemistry"}, "seeds": [0]}


@pytest.fixture
def folder(tmp_path):
    return write_fake_study(tmp_path / "run", FakeStudy(seeds=(0,), finetune_lrs=(1e-3,), is_traced=False))


def test_everything_is_read_as_records(folder):
    run = read_study_run(folder)
    assert isinstance(run.plan, Plan)
    assert set(run.results) == {one.id for one in run.plan.stage_runs}
    assert all(isinstance(one, StageResult) for one in run.results.values())
    assert all(isinstance(one, Evaluation) for one in run.evaluations.values())
    assert set(run.evaluations) == {name for wanted in run.plan.evaluations.values() for name in wanted}
    assert run.failures == {}


def test_what_is_not_there_is_absent(folder):
    name = next(iter(read_study_run(folder).plan.chains)).stages["finetune"]
    forget(folder, name)
    run = read_study_run(folder)
    assert name not in run.results
    assert set(run.plan.evaluations[name]).isdisjoint(run.evaluations)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("{", r"\.json: not a JSON file .* run the same command again"),
        ('{"format": 7}', r"\.json: format 7 where 1 is expected; another version of indelible wrote it"),
        ('{"format": 1}', r"\.json: id: Field required; the file was edited or cut"),
        ("[]", r"\.json: format 'list' where 1 is expected"),
    ],
)
def test_an_evaluation_that_cannot_be_read_is_named(folder, change, message):
    path = sorted((folder / "evaluations").glob("finetune*/music-*.json"))[0]
    path.write_text(change)
    with pytest.raises(UserError, match=message):
        read_study_run(folder)


def test_a_failure_of_evaluations_is_known_by_their_checkpoint(folder):
    checkpoint = read_study_run(folder).plan.chains[0].stages["finetune"]
    failure = {"format": 1, "id": f"evaluations/{checkpoint}", "kind": "error", "type": "ValueError", "message": "m",
               "attempt": 1, "failures": 1, "is_final": True}  # fmt: skip
    (folder / "evaluations" / checkpoint / "failure.json").write_text(json.dumps(failure))
    assert read_study_run(folder).failures == {}  # all are made: the failure is an old one
    next((folder / "evaluations" / checkpoint).glob("music-*.json")).unlink()
    assert read_study_run(folder).failures[checkpoint].message == "m"


def test_stages_corpora_and_checkpoints_of_any_chain(tmp_path):
    study = PAPER | {
        "init": {"from": "/models/base", "at": "posttrain"},
        "stages": {"second": {"corpus": "instruction"}},
    }
    run = read_study_run(write_resolved_study(tmp_path, study))
    chain = run.plan.chains[0]
    assert run.stages == ("posttrain", "finetune", "second")
    assert list(run.checkpoints(chain)) == ["start", "posttrain", "finetune", "second"]
    assert [run.own_corpus(name) for name in chain.stages.values()] == ["music", "chemistry", "instruction"]
    planned = run.planned_evaluations(chain, chain.start)
    assert sorted(planned) == ["chemistry", "general", "instruction", "music"]
    assert all(run.evaluations[name].corpus == corpus for corpus, name in planned.items())


def test_a_folder_of_the_earlier_format_is_refused_with_what_to_do(folder):
    (folder / "plan.json").write_text(json.dumps({"format": 1, "chains": [], "stage_runs": []}))
    with pytest.raises(UserError, match=r"plan\.json: format 1 where 2 is expected; .* Use that version"):
        read_study_run(folder)


def test_metrics_are_read_by_group_and_a_cut_last_line_is_left_out(tmp_path):
    folder = run_dir(tmp_path, "run")
    folder.mkdir(parents=True)
    lines = ['{"step": 0, "watch/music/nats_per_token": 2.0}', '{"step": 1, "train/loss": 3.0}']
    (folder / "metrics.jsonl").write_text("\n".join(lines) + "\n")
    assert [one["step"] for one in read_metrics(tmp_path, "run")] == [0, 1]
    assert [one["step"] for one in read_metrics(tmp_path, "run", "watch")] == [0]
    (folder / "metrics.jsonl").write_text("\n".join([*lines, '{"step": 2, "watch/mus']) + "\n")
    assert [one["step"] for one in read_metrics(tmp_path, "run", "watch")] == [0]
