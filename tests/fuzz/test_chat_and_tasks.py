"""Conversations, pairs of answers, chat templates, task files and batteries: read, or refused in one message.

A hundred mutants of each kind; ``FUZZ_MUTANTS=2000`` takes more (docs/security.md has the figures).
"""

import json
from importlib import resources
from pathlib import Path
from typing import Any

import pytest
from chat_folder import CHATML, MARKED, write_chat_tokenizer
from chat_pairs import APART, WHOLE, records, whole
from fuzzing import COUNT, expect_both, feed
from mutations import mutants
from task_files import CAPITALS, CHOICE, MATCH, WORDS, write_task

from indelible.corpora import documents
from indelible.corpora.messages import Message
from indelible.data import chat_template
from indelible.data.chat import ChatTokenizer
from indelible.data.encode import Encoder
from indelible.durability.battery import read_battery
from indelible.durability.request import make_request
from indelible.study.corpus_spec import LocalCorpus
from indelible.tasks.examples import read_examples

TURNS = [Message("user", "What is it?"), Message("assistant", "It is <|im_end|> 7."), Message("user", "caf\xe9?"),
         Message("assistant", "Yes.")]  # fmt: skip
MARKS = [b"<|im_end|>", b"<|im_start|>", b'"role"', b'"content"', b'"assistant"', b'"system"', b'"tool_calls": []']


def lines(rows: list[Any]) -> bytes:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()


def talks() -> list[dict[str, Any]]:
    return [{"messages": [*row["prompt"], *row["chosen"]], "n": number} for number, row in enumerate(records(12))]


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_chat_tokenizer(tmp_path_factory.mktemp("tokenizer") / "tok")


@pytest.mark.parametrize(
    ("rows", "columns"),
    [(talks(), {"messages_column": "messages"}), (records(12), APART), (whole(records(12, turns=2)), WHOLE)],
    ids=["messages", "pairs", "pairs of conversations"],
)
def test_conversations(tmp_path: Path, tokenizer: Path, rows: list[Any], columns: dict[str, Any]) -> None:
    path = tmp_path / "a.jsonl"
    spec = LocalCorpus.model_validate({"path": str(path), **columns})
    encoder = Encoder(tokenizer / "tokenizer.json")

    def read(data: bytes) -> None:
        path.write_bytes(data)
        found = list(documents(spec, tmp_path / "cache"))
        list((encoder.encode_chat_pairs if spec.has_pairs else encoder.encode_chats)(found, "a"))

    expect_both(feed(mutants(lines(rows), COUNT, 21, MARKS), read))


@pytest.mark.parametrize("template", [CHATML, MARKED], ids=["plain", "with marks"])
def test_chat_templates(tmp_path: Path, tokenizer: Path, template: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chat_template, "MOST_SECONDS", 5.0)
    folder = write_chat_tokenizer(tmp_path / "tok")
    words = [b"{% endfor %}", b"{{ messages }}", b"{% if true %}", b"loop.last", b"range(99999)", b"| trim",
             b"{% for i in range(99999) %}", b"bos_token", b"{% macro f() %}", b"* 99999999",
             b"|center(9999999)"]  # fmt: skip

    def read(data: bytes) -> None:
        (folder / "chat_template.jinja").write_bytes(data)
        ChatTokenizer(folder).encode(TURNS)

    expect_both(feed(mutants(template.encode(), COUNT, 22, words), read))


@pytest.mark.parametrize(("settings", "rows"), [(CHOICE, CAPITALS), (MATCH, WORDS)], ids=["choice", "match"])
def test_task_files_and_their_data(tmp_path: Path, settings: dict[str, Any], rows: list[Any]) -> None:
    task = write_task(tmp_path / "task.yaml", {**settings, "limit": 2}, rows)
    data = tmp_path / settings["data"]
    original, records_of = task.read_bytes(), data.read_bytes()
    words = [b"shots: x", b"few_shot: 1", b"data: ../x", b"{question}", b'"choices"', b'"answer"', b"!function a.b"]

    def read_settings(content: bytes) -> None:
        task.write_bytes(content)
        read_examples("t", task)

    def read_data(content: bytes) -> None:
        data.write_bytes(content)
        read_examples("t", task)

    expect_both(feed(mutants(original, COUNT, 23, words), read_settings))
    task.write_bytes(original)
    expect_both(feed(mutants(records_of, COUNT, 24, words), read_data))


def test_batteries(tmp_path: Path) -> None:
    path, text = tmp_path / "battery.yaml", tmp_path / "x.jsonl"
    text.write_text('{"text": "a"}\n')
    shipped = resources.files("indelible.durability").joinpath("batteries", "quick.yaml").read_bytes()
    own = shipped + f"corpora:\n  mine: {{kind: local, path: {text}}}\n".encode()

    def read(content: bytes) -> None:
        path.write_bytes(content)
        make_request(["m"], "mine", [str(text)], read_battery(str(path)))

    words = [b"updates:", b"lrs: [1x]", b"seeds: [0]", b"corpora:", b"kind: offline", b"relearning: [1]"]
    expect_both(feed(mutants(own, COUNT, 25, words), read))
