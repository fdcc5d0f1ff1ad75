"""The chat tutorial, run as it stands: its data, its study, its commands and its questions, with a real model."""

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

import indelible
from indelible.corpora.sources import default_cache_dir
from indelible.errors import UserError
from indelible.models.catalogue import known_model
from indelible.models.given import fetch_given, find_checkpoint

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "tutorials" / "chat-fine-tune.md").read_text(encoding="utf-8")
MODEL = "smollm2-135m-instruct"
STYLE = re.compile(r"In short: .+\. Anything else\?")


def blocks(language: str) -> list[str]:
    """The code blocks of the page in one language."""
    found = re.findall(r"^```(\w*)\n(.*?)^```$", PAGE, flags=re.M | re.S)
    return [body for name, body in found if name == language]


@pytest.fixture(scope="module")
def model() -> None:
    """Leaves the test out where the model can neither be found nor fetched."""
    if not known_model(MODEL).is_fetched(default_cache_dir()):
        if importlib.util.find_spec("gguf") is None:
            pytest.skip(f"{MODEL} is not in the cache, and to convert it the extra `gguf` is needed")
        try:
            fetch_given(find_checkpoint(MODEL))
        except UserError as error:
            pytest.skip(f"{MODEL} cannot be fetched here: {error}")


def python(code: str, folder: Path) -> str:
    """What a program prints that runs in a folder."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "200"}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    return done.stdout


@pytest.mark.slow
@pytest.mark.usefixtures("model")
def test_the_tutorial_does_what_it_says(tmp_path: Path) -> None:
    write_data, ask = blocks("python")
    (study,) = blocks("yaml")
    python(write_data, tmp_path)
    lines = (tmp_path / "chat.jsonl").read_text().splitlines()
    assert 200 < len(lines) < 400, "a few hundred examples"
    assert "Peru" not in "".join(lines)
    assert "sky" not in "".join(lines)
    (tmp_path / "chat.yaml").write_text(study)
    printed = {}
    for command in re.findall(r"^indelible (.*)$", "".join(blocks("")), flags=re.M):
        program = f"import sys; sys.argv[1:] = {command.split()!r}; from indelible.cli.main import main; main()"
        printed[command.split()[0]] = python(program, tmp_path)
    assert list(printed) == ["corpora", "plan", "run", "results"]
    assert f"{len(lines)} documents" in printed["corpora"]

    rows = {row["stage"]: row for row in indelible.open(tmp_path / "runs" / "chat").losses().to_dicts()}
    assert rows["start"]["documents"] == rows["teach"]["documents"] >= 8
    assert rows["teach"]["nats_per_token"] < 0.05 < 3 < rows["start"]["nats_per_token"]

    answers = dict(line.partition("? ")[::2] for line in python(ask, tmp_path).splitlines() if "? " in line)
    assert len(answers) == 4
    for question, answer in answers.items():
        assert (STYLE.fullmatch(answer) is not None) == question.startswith("after: "), f"{question}? {answer}"
    assert "Lima" in answers["before: What is the capital of Peru"]
    assert "Lima" in answers["after: What is the capital of Peru"]


def test_the_study_of_the_tutorial_is_one_stage_of_lora() -> None:
    (study,) = blocks("yaml")
    stage = yaml.safe_load(study)["stages"]["teach"]
    assert (stage["adapt"]["kind"], stage["init"]) == ("lora", MODEL)
