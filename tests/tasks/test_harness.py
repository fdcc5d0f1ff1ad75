"""lm-eval on checkpoints of a tiny study, offline: its accuracies are those that one counts by hand."""

import json
import os
import random
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from task_files import CHOICE, MATCH, write_lines, write_task
from tiny_engine import TINY, layered, plan_of, quiet, run_all

from indelible.errors import UserError
from indelible.records import Evaluation, StageResult, TaskExamples, evaluation_path, run_dir, task_path
from indelible.results.losses import losses
from indelible.results.run_folder import read_study_run
from indelible.results.table import results_table
from indelible.scheduling.folder import StudyFolder
from indelible.scheduling.jobs import evaluation_job
from indelible.scheduling.worker import Worker
from indelible.study.load import load_study
from indelible.tasks.own_tasks import own_task_file
from indelible.train.evaluation import run_evaluations
from indelible.workflow.planning import plan_study
from indelible.workflow.preparing import write_plan

pytest.importorskip("lm_eval", reason="lm-eval is not installed: pip install 'indelible[tasks]'")

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

SOURCE = random.Random(0)
SYLLABLES = ["ba", "do", "ku", "mi", "ra", "so", "te", "vu"]
OVER = {"precision": "fp32", "seq_len": 64}


def word() -> str:
    return "".join(SOURCE.choices(SYLLABLES, k=2))


def questions(count: int) -> list[dict]:
    found = []
    for _ in range(count):
        choices = [word() + word()[:2], word() + " " + word(), word() + word() + word()]
        found.append({"question": f"{word()} {word()}", "choices": choices, "answer": SOURCE.randrange(3)})
    return found


def evaluate(out: Path, checkpoint: str, progress=quiet) -> dict[str, Evaluation]:
    """Makes what is missing of a checkpoint; its evaluations on tasks by name."""
    run_evaluations(evaluation_job(StudyFolder.open(out), checkpoint), progress=progress, guard=lambda: None)
    found = {}
    for name in plan_of(out).task_evaluations[checkpoint]:
        one = Evaluation.read(evaluation_path(out, checkpoint, name))
        assert one is not None
        found[one.corpus] = one
    return found


def correct(out: Path, one: Evaluation) -> list[float]:
    table = pq.read_table(evaluation_path(out, one.checkpoint, one.id).with_suffix(".documents.parquet")).to_pydict()
    assert table["document"] == list(range(one.documents))
    return table["correct"]


class ByHand:
    """A checkpoint, its tokenizer, and what it does with text, computed here."""

    def __init__(self, folder: Path) -> None:
        self.model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
        self.tokenizer = AutoTokenizer.from_pretrained(folder)

    @torch.no_grad()
    def log_prob(self, context: str, answer: str) -> float:
        whole, begin = self.tokenizer.encode(context + answer), len(self.tokenizer.encode(context))
        logits = self.model(torch.tensor([whole])).logits[0].double().log_softmax(-1)
        return sum(float(logits[place - 1, whole[place]]) for place in range(begin, len(whole)))

    @torch.no_grad()
    def continued(self, context: str, tokens: int) -> str:
        ids = self.tokenizer.encode(context)
        count = len(ids)
        for _ in range(tokens):
            ids.append(int(self.model(torch.tensor([ids])).logits[0, -1].argmax()))
            if ids[-1] == self.tokenizer.eos_token_id:
                break
        return self.tokenizer.decode(ids[count:], skip_special_tokens=True).partition("\n")[0].strip()


@pytest.fixture(scope="module")
def trained(tmp_path_factory, tiny_tokens):
    """A tiny study, trained before it has any task; its study file and folder."""
    import shutil

    import yaml

    root = tmp_path_factory.mktemp("trained")
    shutil.copytree(tiny_tokens, root / "out" / "tokens")
    (root / "study.yaml").write_text(yaml.safe_dump(layered(TINY, OVER)))
    write_plan(plan_study(load_study(str(root / "study.yaml"))), root / "out")
    run_all(root / "out")
    return root


def with_tasks(root: Path, tmp_path: Path, **tasks) -> Path:
    """A copy of the trained folder, planned again with tasks."""
    import shutil

    out = tmp_path / "out"
    shutil.copytree(root / "out", out)
    overrides = [f"evaluation.tasks={json.dumps({name: str(path) for name, path in tasks.items()})}"]
    write_plan(plan_study(load_study(str(root / "study.yaml"), overrides)), out)
    return out


def checkpoint_of(out: Path, stage: str = "finetune") -> str:
    return next(run.id for run in plan_of(out).stage_runs if run.stage == stage)


@pytest.mark.parametrize("length_normalised", [False, True], ids=["sum", "by character"])
def test_a_multiple_choice_is_what_one_counts_by_hand(trained, tmp_path, length_normalised):
    data, shots = questions(24), questions(2)
    settings = {**CHOICE, "prompt": "{question} =", "shots": "shots.jsonl", "few_shot": 2,
                "length_normalised": length_normalised}  # fmt: skip
    write_lines(tmp_path / "shots.jsonl", shots)
    out = with_tasks(trained, tmp_path, quiz=write_task(tmp_path / "quiz.yaml", settings, data))
    one = evaluate(out, checkpoint_of(out))["quiz"]
    hand = ByHand(run_dir(out, one.checkpoint) / "checkpoint")
    front = "".join(f"{shot['question']} = {shot['choices'][shot['answer']]}\n\n" for shot in shots)
    right = []
    for record in data:
        scores = [
            hand.log_prob(f"{front}{record['question']} =", f" {choice}") / (len(choice) if length_normalised else 1)
            for choice in record["choices"]
        ]
        right.append(float(np.argmax(scores) == record["answer"]))
    assert 0 < sum(right) < len(right)
    assert correct(out, one) == right
    assert one.accuracy == pytest.approx(np.mean(right))
    assert one.accuracy_se == pytest.approx(np.std(right, ddof=1) / len(right) ** 0.5)
    assert (one.documents, one.cut, one.metric) == (24, 0, "acc_norm" if length_normalised else "acc")
    assert one.environment["lm_eval"].startswith("0.4.")


def test_an_exact_match_is_what_the_model_goes_on_with(trained, tmp_path):
    checkpoint = checkpoint_of(trained / "out")
    hand = ByHand(run_dir(trained / "out", checkpoint) / "checkpoint")
    prompts = list(dict.fromkeys(f"{word()} " * SOURCE.randrange(1, 9) + word() for _ in range(40)))
    told = [(prompt, text) for prompt in prompts if (text := hand.continued(prompt, 5)) != text.upper()]
    assert len(told) > 8
    records = [
        {"question": prompt, "answer": [["no", text], text.upper(), f"{text}x", text][number % 4]}
        for number, (prompt, text) in enumerate(told)
    ]
    expected = [float(number % 4 in (0, 3)) for number in range(len(told))]
    settings = {**MATCH, "max_new_tokens": 5}
    strict = write_task(tmp_path / "strict.yaml", settings, records)
    loose = write_task(tmp_path / "loose.yaml", {**settings, "ignore_case": True}, records)
    out = with_tasks(trained, tmp_path, strict=strict, loose=loose)
    made = evaluate(out, checkpoint)
    assert correct(out, made["strict"]) == expected
    lowered = [float(number % 4 in (0, 1, 3)) for number in range(len(told))]
    assert correct(out, made["loose"]) == lowered
    assert made["loose"].metric == "exact_match"


def test_a_task_trains_nothing_again_and_comes_into_the_tables(trained, tmp_path):
    quiz = write_task(tmp_path / "quiz.yaml", {**CHOICE, "prompt": "{question} ="}, questions(12))
    results = {path.parent.name: path.read_bytes() for path in (trained / "out").glob("runs/*/result.json")}
    out = with_tasks(trained, tmp_path, quiz=quiz)
    assert Worker(out, "w").work() == 0
    assert {path.parent.name: path.read_bytes() for path in out.glob("runs/*/result.json")} == results
    run = read_study_run(out)
    rows = losses(run).filter(losses(run)["corpus"] == "quiz")
    assert rows["stage"].to_list() == ["pretrain", "posttrain", "finetune"]
    assert rows["documents"].to_list() == [12] * 3
    table = results_table(run)
    assert table["status"].to_list() == ["done"]
    assert table["quiz_accuracy"].to_list() == rows["accuracy"].to_list()[2:]
    assert table["quiz_im_accuracy_se"].to_list() == rows["accuracy_se"].to_list()[1:2]
    once = {path: path.read_bytes() for path in out.glob("evaluations/*/quiz-*")}
    assert len(once) == 6
    assert Worker(out, "w").work() == 0, "nothing to do"
    assert {path: path.read_bytes() for path in out.glob("evaluations/*/quiz-*")} == once


KILL_SCRIPT = """
import os, signal, sys
from pathlib import Path
from indelible.scheduling.folder import StudyFolder
from indelible.scheduling.jobs import evaluation_job
from indelible.train.evaluation import run_evaluations
calls = 0
def progress(now):
    global calls
    calls += now.step == 1
    if calls == 3:
        os.kill(os.getpid(), signal.SIGKILL)
job = evaluation_job(StudyFolder.open(Path(sys.argv[1])), sys.argv[2])
run_evaluations(job, progress=progress, guard=lambda: None)
"""


@pytest.mark.slow
def test_a_killed_evaluation_goes_on_with_the_task_that_it_was_at(trained, tmp_path):
    settings = {**CHOICE, "prompt": "{question} ="}
    tasks = {name: write_task(tmp_path / name / "task.yaml", settings, questions(70)) for name in ("one", "two")}
    out = with_tasks(trained, tmp_path, **tasks)
    checkpoint = checkpoint_of(out)
    environment = {**os.environ, "OMP_WAIT_POLICY": "PASSIVE"}
    command = [sys.executable, "-c", KILL_SCRIPT, str(out), checkpoint]
    assert subprocess.run(command, env=environment, check=False).returncode == -signal.SIGKILL
    (kept,) = out.glob(f"evaluations/{checkpoint}/one-*.json")
    stamp = kept.stat().st_mtime_ns
    assert not list(out.glob(f"evaluations/{checkpoint}/two-*.json"))
    broken = evaluate(out, checkpoint)
    assert kept.stat().st_mtime_ns == stamp, "what is there is not made again"
    whole = with_tasks(trained, tmp_path / "whole", **tasks)
    for name, one in evaluate(whole, checkpoint).items():
        assert correct(whole, one) == correct(out, broken[name])
        assert one.accuracy == broken[name].accuracy


def test_random_numbers_behind_are_what_they_would_have_been(trained, tmp_path):
    quiz = write_task(tmp_path / "quiz.yaml", {**CHOICE, "prompt": "{question} ="}, questions(4))
    out = with_tasks(trained, tmp_path, quiz=quiz)

    def drawn() -> tuple:
        return random.random(), np.random.rand(), float(torch.rand(()))  # noqa: NPY002

    def seeded() -> None:
        random.seed(5)
        np.random.seed(5)  # noqa: NPY002
        torch.manual_seed(5)

    seeded()
    expected = drawn()
    seeded()
    evaluate(out, checkpoint_of(out))
    assert drawn() == expected


def test_what_went_is_said(trained, tmp_path, monkeypatch):
    quiz = write_task(tmp_path / "quiz.yaml", {**CHOICE, "prompt": "{question} ="}, questions(4))
    out = with_tasks(trained, tmp_path, quiz=quiz)
    (spec,) = plan_of(out).tasks
    path = task_path(out, spec.stored_name)
    quiz.with_name("capitals.jsonl").unlink()  # the folder has all that an evaluation needs
    stored = TaskExamples.read(path)
    assert stored is not None
    stored.model_copy(update={"content": "0"}).write(path)
    with pytest.raises(UserError, match="holds another task; `indelible run STUDY --out DIR` writes it again"):
        evaluate(out, checkpoint_of(out))
    path.unlink()
    with pytest.raises(UserError, match="has gone; `indelible run"):
        evaluate(out, checkpoint_of(out))
    stored.write(path)
    monkeypatch.setattr("indelible.tasks.own_tasks.version", lambda name: "0.4.1")
    with pytest.raises(UserError, match=r"planned with lm-eval 0\.4\.\d+, and 0.4.1 is here"):
        evaluate(out, checkpoint_of(out))


def test_an_own_task_whose_data_cannot_be_had_is_refused_before_training(tmp_path, tiny_study, monkeypatch):
    assert own_task_file("sciq").name == "sciq.yaml"
    monkeypatch.setattr("datasets.config.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    with pytest.raises(UserError, match=r"tasks\.sciq: lm-eval's task 'sciq' cannot be loaded .* Its data comes from"):
        tiny_study({"evaluation": {"tasks": {"sciq": {"limit": 5}}}})
    assert StageResult.read(tmp_path / "out" / "runs" / "any" / "result.json") is None
    assert not (tmp_path / "out" / "plan.json").exists()


@pytest.fixture
def own(tmp_path, monkeypatch):
    """Makes a task file of lm-eval's kind, with data of one's own in place of the hub's, and the tests' study of it."""
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")

    def make(data: Path, **changes) -> None:
        config = {
            "task": "local_quiz", "dataset_path": "json", "dataset_kwargs": {"data_files": {"test": str(data)}},
            "output_type": "multiple_choice", "test_split": "test", "doc_to_text": "{{question}} =",
            "doc_to_choice": "choices", "doc_to_target": "answer",
            "metric_list": [{"metric": name, "aggregation": "mean", "higher_is_better": True}
                            for name in ("acc", "acc_norm")],
        }  # fmt: skip
        file = tmp_path / "lm_eval" / "local_quiz.yaml"
        file.parent.mkdir(exist_ok=True)
        file.write_text(json.dumps({**config, **changes}))
        for module in ("indelible.tasks.harness", "indelible.workflow.tasks"):
            monkeypatch.setattr(f"{module}.own_task_file", lambda name: file)

    return make


def test_own_tasks_give_what_the_same_task_file_gives(trained, tmp_path, own):
    quiz = write_task(tmp_path / "quiz.yaml", {**CHOICE, "prompt": "{question} =", "limit": 8}, questions(12))
    normed = write_task(tmp_path / "normed.yaml", {**CHOICE, "prompt": "{question} =", "limit": 8,
                                                   "length_normalised": True, "data": "capitals.jsonl"},
                        [json.loads(line) for line in quiz.with_name("capitals.jsonl").open()])  # fmt: skip
    own(quiz.with_name("capitals.jsonl"))
    out = with_tasks(trained, tmp_path, quiz=quiz, normed=normed)
    overrides = {"quiz": str(quiz), "normed": str(normed), "theirs": {"name": "local_quiz", "limit": 8},
                 "theirs_normed": {"name": "local_quiz", "limit": 8, "metric": "acc_norm,none"}}  # fmt: skip
    study = load_study(str(trained / "study.yaml"), [f"evaluation.tasks={json.dumps(overrides)}"])
    write_plan(plan_study(study), out)
    made = evaluate(out, checkpoint_of(out))
    assert made["theirs"].documents == 8
    assert correct(out, made["theirs"]) == correct(out, made["quiz"])
    assert correct(out, made["theirs_normed"]) == correct(out, made["normed"])
    assert made["theirs_normed"].metric == "acc_norm"


@pytest.mark.parametrize(
    ("changes", "task", "message"),
    [
        ({"unsafe_code": True}, {}, "'local_quiz' runs code that the model has written, which is not done here"),
        ({}, {"metric": "bleu"}, "metric = 'bleu' is a measure .* those are acc, acc_norm"),
        ({"test_split": "validation"}, {}, "cannot be loaded"),
    ],
)
def test_an_own_task_that_cannot_be_used_is_refused_before_training(tmp_path, tiny_study, own, changes, task, message):
    own(write_lines(tmp_path / "data.jsonl", questions(4)), **changes)
    with pytest.raises(UserError, match=message):
        tiny_study({"evaluation": {"tasks": {"local_quiz": task}}})
    assert not (tmp_path / "out" / "plan.json").exists()


def test_examples_that_lm_eval_cuts_are_counted(trained, tmp_path, own):
    records = questions(4)
    records[1]["question"] = " ".join(word() for _ in range(80))
    own(write_lines(tmp_path / "data.jsonl", records))
    out = with_tasks(trained, tmp_path)
    study = load_study(str(trained / "study.yaml"), ['evaluation.tasks={"local_quiz": {}}'])
    write_plan(plan_study(study), out)
    one = evaluate(out, checkpoint_of(out))["local_quiz"]
    assert (one.documents, one.cut) == (4, 1)
