"""Names, paths and numbers on the command line that nobody meant: one message, and nothing is read before all is known.

In this process: what is tried is the whole of `main`.
"""

import json
import sys
from pathlib import Path

import pytest
import yaml

from indelible.cli import main as cli
from indelible.cli.models_commands import _has_chat_template
from indelible.cli.terminal import at_home
from indelible.errors import UserError
from indelible.study.load import load_study

TEXT = "".join(json.dumps({"text": f"Document {n} on matter {n * 7}. " + "some words here " * 30}) + "\n"
               for n in range(150))  # fmt: skip
LONG = "x" * 5000


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("INDELIBLE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    for name in ("a", "b", "c"):
        (tmp_path / f"{name}.jsonl").write_text(TEXT.replace("words", f"words {name}"))
    return tmp_path


def call(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str]:
    """Exit code, and what was printed."""
    monkeypatch.setattr(sys, "argv", ["indelible", *arguments])
    code = 0
    try:
        cli.main()
    except SystemExit as end:
        code = int(end.code or 0)
    printed = capsys.readouterr()
    return code, printed.out + printed.err


def init(file: str, pre: str = "a.jsonl", *more: str) -> list[str]:
    return ["init", "--pre", pre, "--post", "b.jsonl", "--ft", "c.jsonl", *more, "--", file]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (init("a.jsonl/x.yaml"), "a.jsonl: File exists; give a place"),
        (init("x" * 300 + ".yaml"), "File name too long; give a place"),
        (init(""), ". exists already"),
        (init("s.yaml", "~no-such-user/x"), "no such file or folder, and no offline corpus"),
        (init("s.yaml", LONG), "no such file or folder, and no offline corpus"),
        (init("s.yaml", " "), "no such file or folder, and no offline corpus"),
        (init("s.yaml", "a\0b"), "no such file or folder, and no offline corpus"),
        (init("s.yaml", "a.jsonl", "--seeds", "1000000000"), "--seeds"),
        (init("s.yaml", "a.jsonl", "--prompt-column", "text"), "prompt_column and completion_column go together"),
        (init("s.yaml", "a.jsonl", "--text-column", "x: {y}\n# z"), "no column 'x: {y}\\n# z'"),
        (["corpora", "inspect", "a.jsonl", "--prompt-column", "text"], "prompt_column and completion_column go"),
        (["corpora", "inspect", LONG], "no file or folder"),
        (["export", LONG, "--to", "x"], "File name too long"),
        (["status", LONG], "no plan.json"),
        (["results", "a.jsonl/x"], "a.jsonl/x"),
        (["models", "inspect", LONG], "models inspect"),
        (["models", "inspect", "~no-such-user/x"], "no such folder"),
        (["models", "inspect", "../../x y/z"], "models inspect"),
        (["audit", "m", "--keep", "a.jsonl", "--later", "b.jsonl", "--plan", "--battery", ""], "--battery : no such"),
        (["audit", "m", "--keep", LONG, "--later", "b.jsonl", "--plan"], "no such file or folder"),
        (["audit", "m", "--keep", "~no-such-user/x", "--later", "b.jsonl", "--plan"], "no such file or folder"),
        (["audit", "m", "--keep", "\udce9", "--later", "b.jsonl", "--plan"], r"audit: \xe9: the name holds bytes"),
        (["audit", "\udce9", "--keep", "a.jsonl", "--later", "b.jsonl", "--plan"], r"audit: \xe9: the name holds"),
        (["audit", "m", "--keep", "a.jsonl", "--later", "b.jsonl", "--plan", "--require", "9" * 400 + "nats"],
         "expected a share"),
    ],
    ids=lambda value: str(value)[:40] if isinstance(value, str) else None,
)  # fmt: skip
def test_what_cannot_be_is_one_message(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    code, said = call(monkeypatch, capsys, *arguments)
    assert (code, message in said) == (2, True), said[-600:]
    assert not Path("s.yaml").exists()


def test_a_text_whose_name_no_study_can_hold(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("\udce9.jsonl").write_text(TEXT)
    code, said = call(monkeypatch, capsys, *init("s.yaml", "\udce9.jsonl"))
    assert (code, r"\xe9.jsonl: the name holds bytes that are not UTF-8" in said) == (2, True), said
    folder = Path("d")
    folder.mkdir()
    Path("\udce9.jsonl").rename(folder / "\udce9.jsonl")
    assert call(monkeypatch, capsys, *init("s.yaml", "d"))[0] == 0


def test_all_names_are_looked_at_before_anything_is_read(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The first of them may be a corpus that is fetched for minutes."""
    read: list[object] = []
    monkeypatch.setattr("indelible.workflow.first_look.inspect_corpus", lambda *given, **more: read.append(given))
    code, said = call(monkeypatch, capsys, "init", "--pre", "general", "--post", "a.jsonl", "--ft", "nosuch", "s.yaml")
    assert (code, "--ft 'nosuch': no such file or folder" in said, read) == (2, True, [])


@pytest.mark.parametrize("name", ['we: {ird}, #\n "x".jsonl', "-x.jsonl", "\u00fc [b].jsonl", "~.jsonl"])
def test_a_name_that_yaml_could_misread_is_read_back(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    Path(name).write_text(TEXT)
    pre = f"./{name}" if name.startswith(("-", "~")) else name  # the one is an option, the other a home folder
    code, said = call(monkeypatch, capsys, *init("-s.yaml", pre))
    assert code == 0, said
    assert "Next: indelible plan ./-s.yaml   then   indelible run ./-s.yaml --out runs/-s" in said
    corpus = load_study("./-s.yaml").arms[0].corpora["pre"]
    assert corpus.model_dump()["path"] == (pre,)
    assert yaml.safe_load(Path("-s.yaml").read_text())["corpora"]["pre"]["path"] == pre


def test_a_command_that_is_shown_can_be_pasted(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    said = call(monkeypatch, capsys, *init("my study.yaml"))[1]
    assert "indelible plan 'my study.yaml'   then   indelible run 'my study.yaml' --out 'runs/my study'" in said


@pytest.mark.parametrize(
    ("given", "read"),
    [
        ("~/x", "/home/me/x"), ("--out=~/x", "/home/me/x"), ("--out", "--out"), ("~", "~"), ("~other/x", "~other/x"),
        ("a~/x", "a~/x"), ("--set=corpora.a.path=~/x", "corpora.a.path=~/x"), ("-o~/x", "-o~/x"),
    ],
)  # fmt: skip
def test_a_home_folder_that_the_shell_left(monkeypatch: pytest.MonkeyPatch, given: str, read: str) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    assert at_home(given).removeprefix("--out=").removeprefix("--set=") == read


def test_a_revision_is_the_hubs(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    Path("ckpt").mkdir()
    code, said = call(monkeypatch, capsys, "models", "inspect", "ckpt", "--revision", "main")
    assert (code, "this is a folder here, which has no revisions" in said) == (2, True), said


@pytest.mark.parametrize("content", ["[]", '"chat_template"', "{}"])
def test_settings_of_a_tokenizer_that_are_odd(content: str) -> None:
    Path("tokenizer_config.json").write_text(content)
    assert not _has_chat_template(Path())


def test_settings_of_a_tokenizer_that_are_no_json() -> None:
    Path("tokenizer_config.json").write_text("[")
    with pytest.raises(UserError, match=r"tokenizer_config\.json: not a JSON file"):
        _has_chat_template(Path())
