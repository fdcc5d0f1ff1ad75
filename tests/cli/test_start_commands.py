"""`init` writes a study that plans; `doctor` and `schema` print what the library finds."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from indelible.cli.main import build_app
from indelible.errors import UserError
from indelible.study.load import load_study
from indelible.workflow.planning import plan_study
from indelible.workflow.starting import QUESTIONS

WORDS = [f"word{number}" for number in range(18)]


def call(*arguments: str, given: str | None = None):
    return CliRunner().invoke(build_app(arguments[0]), list(arguments), input=given)


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Three files of text, the second with prompts and completions; the working folder is theirs."""
    monkeypatch.chdir(tmp_path)
    for number, name in enumerate(("web", "tasks", "later")):
        lines = []
        for row in range(400):
            text = " ".join(
                WORDS[(row * 7 + number + i * (1 + row % 5)) % len(WORDS)] + str(row % 9) for i in range(60)
            )
            lines.append({"question": text[:80], "answer": text[80:]} if name == "tasks" else {"text": text})
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return tmp_path


PAIR = ("--prompt-column", "question", "--completion-column", "answer")
TARGETS = ("--pre", "web.jsonl", "--post", "tasks.jsonl", "--ft", "later.jsonl", *PAIR)


@pytest.mark.parametrize("question", list(QUESTIONS))
def test_the_file_plans_and_asks_the_question(files: Path, question: str) -> None:
    done = call("init", "mine.yaml", *TARGETS, "--question", question, "--seeds", "3")
    assert done.exit_code == 0, done.output
    text = (files / "mine.yaml").read_text()
    assert QUESTIONS[question].text in text
    study = load_study("mine.yaml")
    planned = plan_study(study)
    assert study.name == "mine"
    assert planned.summary["chains"] == len(study.arms) * 3
    assert study.arms[0].corpora["tasks"].has_prompts
    first = text.splitlines()[0]
    assert f"{planned.summary['chains']} chains" in first
    for stage in study.arms[0].stages.values():  # a budget that the text can give
        assert 0 < (stage.tokens or 0) < 400 * 60 * 6


def test_corpora_are_called_as_their_files_and_prompts_are_not_trained_on(files: Path) -> None:
    assert call("init", "mine.yaml", *TARGETS, "--question", "replay").exit_code == 0
    arm = load_study("mine.yaml").arms[0]
    assert arm.roles == {"pre": "web", "post": "tasks", "ft": "later"}
    assert arm.data.loss_on == "completion"
    (files / "music.jsonl").write_bytes((files / "later.jsonl").read_bytes())  # an offline corpus has this name
    plain = (*TARGETS[:2], "--post", "music.jsonl", *TARGETS[4:6])
    assert call("init", "plain.yaml", *plain, "--question", "replay").exit_code == 0
    arm = load_study("plain.yaml").arms[0]
    assert arm.roles == {"pre": "pre", "post": "post", "ft": "ft"}
    assert arm.data.loss_on == "all"


def test_prompt_and_completion_are_read_wherever_a_file_has_them_and_no_text(files: Path) -> None:
    (files / "more.jsonl").write_bytes((files / "tasks.jsonl").read_bytes().replace(b"word3", b"other"))
    assert call("init", "mine.yaml", *TARGETS[:4], "--ft", "more.jsonl", *PAIR, "--question", "exposure").exit_code == 0
    corpora = load_study("mine.yaml").arms[0].corpora
    assert [corpora[name].has_prompts for name in ("web", "tasks", "more")] == [False, True, True]


def test_columns_that_are_missing_are_named_with_role_file_and_flags(files: Path) -> None:
    done = call("init", "mine.yaml", *TARGETS[:6], "--question", "exposure")
    assert str(done.exception) == (
        "--post tasks.jsonl: no column 'text'; it has 'question', 'answer'. Name the column of its text with "
        "--text-column, or those of prompts and answers with --prompt-column and --completion-column."
    )
    wrong = ("--prompt-column", "ask", "--completion-column", "answer")
    done = call("init", "mine.yaml", *TARGETS[:6], *wrong, "--question", "exposure")
    assert "--post tasks.jsonl: no column 'text' and 'ask'; it has 'question', 'answer'" in str(done.exception)
    done = call("init", "mine.yaml", *TARGETS[:2], "--post", "web.jsonl", *TARGETS[4:], "--question", "exposure")
    assert "--prompt-column question --completion-column answer: none of web.jsonl, " in str(done.exception)
    assert not (files / "mine.yaml").exists()
    assert "`--pre general` takes text that is fetched for you" in str(call("init", "mine.yaml").exception)


def test_weak_spots_are_named(files: Path) -> None:
    (files / "few.jsonl").write_text("".join((files / "later.jsonl").read_text().splitlines(keepends=True)[:20] * 5))
    done = call(
        "init", "mine.yaml", "--pre", "web.jsonl", "--post", "web.jsonl", "--ft", "few.jsonl", "--question", "replay"
    )
    assert done.exit_code == 0, done.output
    assert "step(s) in all" in done.output  # a short fine-tune


def test_bad_requests_are_one_message(files: Path) -> None:
    def refused(*arguments: str) -> str:
        with pytest.raises(UserError) as caught:
            build_app("init")(["init", *arguments], standalone_mode=False)
        return str(caught.value)

    assert "no such file or folder" in refused("a.yaml", "--pre", "nowhere", *TARGETS[2:], "--question", "replay")
    assert "choose one of" in refused("a.yaml", *TARGETS, "--question", "why")
    (files / "short.jsonl").write_text('{"text": "a few words only"}\n')
    assert "a stage wants at least" in refused("a.yaml", "--pre", "short.jsonl", *TARGETS[2:], "--question", "replay")
    (files / "there.yaml").write_text("mine")
    assert "exists already" in refused("there.yaml", *TARGETS)
    assert (files / "there.yaml").read_text() == "mine"
    assert not (files / "a.yaml").exists()


def test_doctor_and_schema_print(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INDELIBLE_CACHE", str(tmp_path))
    done = call("doctor")
    assert done.exit_code == 0, done.output
    assert "torch" in done.output
    facts = json.loads(call("doctor", "--json").output)
    assert {"topic", "text", "state", "fix"} == set(facts[0])
    assert json.loads(call("schema").output)["title"] == "indelible study file"
