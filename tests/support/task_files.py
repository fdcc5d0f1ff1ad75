"""Task files of a few examples, and a stand-in for the version of lm-eval where it is not installed."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

CHOICE: dict[str, Any] = {
    "kind": "multiple_choice", "data": "capitals.jsonl", "prompt": "Question: {question}\nAnswer:",
    "choices": "choices",
}  # fmt: skip
MATCH: dict[str, Any] = {"kind": "exact_match", "data": "words.jsonl", "prompt": "{question}", "max_new_tokens": 4}
CAPITALS = [
    {"question": "Capital of France?", "choices": ["Paris", "Rome", "Oslo"], "answer": 0},
    {"question": "Capital of Italy?", "choices": ["Bern", "Rome"], "answer": "Rome"},
    {"question": "Capital of {question}?", "choices": ["{{ 7 * 7 }}", "49", "{% set x %}"], "answer": 2},
    {"question": "Capital of Norway?", "choices": ["Oslo", "Lima", "Rome", "Cairo"], "answer": 0},
    {"question": "Capital of Peru?", "choices": ["Oslo", "Lima"], "answer": 1},
]
WORDS = [{"question": "one two", "answer": "three"}, {"question": "two", "answer": ["three", "four"]}]


def write_lines(path: Path, records: list[Any]) -> Path:
    """Writes records as JSON lines."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(one) + "\n" for one in records))
    return path


def write_task(path: Path, settings: dict[str, Any], records: list[Any] | None = None) -> Path:
    """Writes a task file and the data that it names; returns its path."""
    default = CAPITALS if settings["kind"] == "multiple_choice" else WORDS
    write_lines(path.parent / settings["data"], default if records is None else records)
    path.write_text(yaml.safe_dump(settings, sort_keys=False))
    return path


@pytest.fixture
def any_lm_eval(monkeypatch: pytest.MonkeyPatch) -> str:
    """lm-eval is there, as far as planning can tell; its version."""
    monkeypatch.setattr("indelible.tasks.own_tasks.version", lambda name: "0.4.13")
    return "0.4.13"
