"""Tasks before anything is trained: what plan counts, what is refused, and that no stage run knows of them."""

import json

import pytest
from task_files import CAPITALS, CHOICE, MATCH, write_lines, write_task
from tiny_engine import TINY, layered, plan_of, run_all

from indelible.errors import UserError
from indelible.records import Plan, TaskExamples, evaluation_path, task_path
from indelible.scheduling.folder import StudyFolder
from indelible.scheduling.jobs import evaluation_job, stage_job
from indelible.study.identity import task_evaluation_id
from indelible.study.load import resolve_study
from indelible.tasks import own_tasks
from indelible.workflow.estimate import estimate
from indelible.workflow.planning import plan_study
from indelible.workflow.tasks import study_tasks


def with_tasks(**tasks):
    return layered(TINY, {"evaluation": {"tasks": tasks}})


def planned(**tasks):
    return plan_study(resolve_study(with_tasks(**tasks)))


@pytest.fixture
def capitals(tmp_path, any_lm_eval):
    return str(write_task(tmp_path / "tasks" / "capitals.yaml", CHOICE))


def test_every_checkpoint_is_evaluated_and_nothing_is_trained_again(tmp_path, capitals, tiny_study):
    plain = plan_study(resolve_study(TINY))
    found = planned(capitals=capitals)
    assert found.graph.runs == plain.graph.runs
    assert found.graph.evaluations == plain.graph.evaluations
    assert found.graph.task_evaluations.keys() == found.graph.evaluations.keys()
    out = tiny_study()
    before = estimate(plain, out, flops_per_second=1e9)
    run_all(out)
    after = estimate(found, out, flops_per_second=1e9)
    assert (before.evaluations, after.evaluations, after.evaluations_done) == (9, 12, 9)
    assert after.remaining == "no training run, only 3 evaluations"
    assert 0 < after.hours < before.hours
    assert after.notes == before.notes


def test_the_id_is_of_the_content_and_not_of_the_price(capitals, tmp_path):
    (spec,) = planned(capitals=capitals).graph.tasks
    name = task_evaluation_id(spec, "given-0")
    assert name.startswith("capitals-")
    assert task_evaluation_id(spec.model_copy(update={"tokens": 7}), "given-0") == name
    for change in ({"lm_eval": "0.4.99"}, {"tokenizer": "x"}, {"few_shot": 3}, {"limit": 3}, {"content": "0"}):
        assert task_evaluation_id(spec.model_copy(update=change), "given-0") != name
    assert task_evaluation_id(spec, "given-1") != name
    data = tmp_path / "tasks" / "capitals.jsonl"
    write_lines(data, [*CAPITALS, CAPITALS[0]])
    (changed,) = planned(capitals=capitals).graph.tasks
    assert task_evaluation_id(changed, "given-0") != name
    assert changed.tokens > spec.tokens


def test_the_folder_has_the_examples_and_a_stage_run_no_task(capitals, tiny_study):
    out = tiny_study({"seq_len": 64, "evaluation": {"tasks": {"capitals": capitals}}})
    plan = plan_of(out)
    (spec,) = plan.tasks
    stored = TaskExamples.read(task_path(out, spec.stored_name))
    assert stored is not None
    assert len(stored.examples) == len(CAPITALS)
    folder = StudyFolder.open(out)
    for run in plan.stage_runs:
        assert "tasks" not in stage_job(folder, run).model_dump()
        assert len(stage_job(folder, run).evaluations) == 3
        job = evaluation_job(folder, run.id)
        assert [one.checkpoint for one in job.tasks.values()] == [run.id]
        (name,) = job.tasks
        assert not folder.is_evaluated(run.id)
        for made in (*job.tasks, *job.evaluations):
            evaluation_path(out, run.id, made).parent.mkdir(parents=True, exist_ok=True)
            evaluation_path(out, run.id, made).write_text("{}")
        assert folder.is_evaluated(run.id)
    again = json.loads((out / "plan.json").read_text())
    again["task_evaluations"][run.id] = {name: 1}
    (out / "plan.json").write_text(json.dumps(again))
    with pytest.raises(UserError, match=f"evaluation '{name}' of {run.id} is not sound"):
        Plan.read(out / "plan.json")


def test_an_example_that_no_model_can_read_is_refused_before_training(tmp_path, any_lm_eval, tiny_study):
    long = [*CAPITALS, {"question": "why " * 40, "choices": ["a", "b"], "answer": 0}]
    file = write_task(tmp_path / "long.yaml", CHOICE, long)
    with pytest.raises(UserError, match=r"tasks\.long: \d of 6 examples are longer than the 32 tokens that a model"):
        tiny_study({"evaluation": {"tasks": {"long": str(file)}}})
    few = write_task(tmp_path / "few.yaml", {**MATCH, "max_new_tokens": 30})
    with pytest.raises(UserError, match=r"tasks\.few: .* a smaller max_new_tokens"):
        tiny_study({"evaluation": {"tasks": {"few": str(few)}}}, "other")


def test_without_lm_eval_there_is_one_message_with_the_fix(tmp_path, monkeypatch):
    def absent(name):
        raise own_tasks.PackageNotFoundError

    monkeypatch.setattr(own_tasks, "version", absent)
    file = str(write_task(tmp_path / "capitals.yaml", CHOICE))
    with pytest.raises(
        UserError, match=r"evaluation\.tasks\.c: .* not installed here; pip install 'indelible\[tasks\]'"
    ):
        planned(c=file)
    assert not planned().graph.tasks, "a study without tasks needs none"
    monkeypatch.setattr(own_tasks, "version", lambda name: "0.5.1")
    with pytest.raises(UserError, match=r"lm-eval 0\.5\.1 is installed, and 0\.4 is known here"):
        planned(c=file)


def test_names_of_own_tasks_are_looked_up(tmp_path, any_lm_eval, monkeypatch):
    folder = tmp_path / "lm_eval" / "tasks" / "some"
    folder.mkdir(parents=True)
    (folder / "a.yaml").write_text("include: base\ntask: sciq\n")
    (folder / "b.yaml").write_text('"task": "mmlu_anatomy"\ntag:\n- x\n')
    (folder / "c.yaml").write_text("group: mmlu\ntask:\n  - mmlu_anatomy\n")
    spec = type("Spec", (), {"submodule_search_locations": [str(tmp_path / "lm_eval")]})
    monkeypatch.setattr(own_tasks, "find_spec", lambda name: spec)
    own_tasks._index.cache_clear()
    try:
        study = resolve_study(with_tasks(sciq={"limit": "1k"}, anatomy={"name": "mmlu_anatomy", "few_shot": 5}))
        sciq, anatomy = study_tasks(study, "tokenizer-0").specs
        assert (sciq.own_name, sciq.limit, sciq.few_shot, sciq.tokens) == ("sciq", 1000, None, 0)
        assert (anatomy.own_name, anatomy.few_shot) == ("mmlu_anatomy", 5)
        assert sciq.content != anatomy.content
        notes = estimate(planned(sciq={}), flops_per_second=1e9).notes
        assert any("the hours leave out lm-eval's own tasks (sciq)" in note for note in notes)
        with pytest.raises(UserError, match=r"'sciqq' is no task of lm-eval 0.4.13 \(did you mean 'sciq'\?\)"):
            planned(sciqq={})
        with pytest.raises(UserError, match="'mmlu' is a group of lm-eval's tasks"):
            planned(mmlu={})
    finally:
        own_tasks._index.cache_clear()


@pytest.mark.parametrize(
    ("tasks", "message"),
    [
        ({"post": {}}, "'post' has this name in tables; name the task otherwise"),
        ({"a b": {}}, "use letters, digits and _ only"),
        ({"a": {}, "a_im": {}}, "the accuracy of task 'a' after stage 2 has this name in tables"),
        ({"a": {"file": "x.yaml", "limit": 3}}, "file and limit: a task file says all of that itself"),
        ({"a": {"few_shot": [0, 5]}}, "evaluation.tasks must be the same in all arms"),
        ({"a": {"fewshot": 5}}, r"evaluation.tasks.a.fewshot: unknown key \(did you mean 'few_shot'\?\)"),
        ({"a": {"limit": 0}}, "evaluation.tasks.a.limit = 0"),
        ({"a": 3}, "evaluation.tasks.a = 3"),
    ],
)
def test_what_a_study_file_may_say(tasks, message):
    with pytest.raises(UserError, match=message):
        resolve_study(layered(TINY, {"evaluation": {"tasks": tasks}}))


def test_a_study_may_name_an_accuracy_after_any_stage(capitals):
    raw = with_tasks(capitals=capitals) | {"views": {"L_first": {"after": "pretrain", "corpus": "capitals"}}}
    (chain,) = plan_study(resolve_study(raw)).graph.chains
    assert chain.views["L_first"] == (chain.runs["pretrain"], "capitals")
    assert chain.views["capitals"] == (chain.runs["finetune"], "capitals")
    assert chain.views["capitals_im"] == (chain.runs["posttrain"], "capitals")
