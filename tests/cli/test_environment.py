"""A command works, or says what it lacks, whatever terminal, user and machine it is started on."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from indelible import host
from indelible.cli.terminal import console, prepare_user

LINES = "".join(json.dumps({"text": f"λόγος number {n} \U0001f600"}, ensure_ascii=False) + "\n" for n in range(40))


def indelible(*arguments: str, cwd: Path, **environment: str | None) -> subprocess.CompletedProcess[bytes]:
    wanted = {**os.environ, "INDELIBLE_CACHE": str(cwd / "cache"), **environment}
    kept = {name: value for name, value in wanted.items() if value is not None}
    command = [sys.executable, "-m", "indelible.cli.main", *arguments]
    return subprocess.run(command, cwd=cwd, env=kept, capture_output=True, timeout=120)


def test_a_terminal_without_utf8_shows_escapes(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text(LINES, encoding="utf-8")
    done = indelible("corpora", "inspect", "a.jsonl", cwd=tmp_path, PYTHONIOENCODING="ascii")
    assert done.returncode == 0, done.stderr
    assert rb"\u03bb\u03cc\u03b3\u03bf\u03c2 number" in done.stdout
    done = indelible("corpora", "inspect", "a.jsonl", "--json", cwd=tmp_path, PYTHONIOENCODING="ascii")
    assert "\U0001f600" in json.loads(done.stdout)["samples"][0]["text"]
    done = indelible("plan", "étude.yaml", cwd=tmp_path, PYTHONIOENCODING="ascii")
    assert (done.returncode, rb"\xe9tude.yaml: no such study file" in done.stderr) == (2, True)


def test_names_with_brackets_and_colons_are_shown_as_they_are(tmp_path: Path) -> None:
    (tmp_path / "[draft]").mkdir()
    (tmp_path / "[draft]" / "a[b]:fire:.jsonl").write_text(LINES, encoding="utf-8")
    done = indelible("corpora", "inspect", "[draft]", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert b"[draft]" in done.stdout
    screen = console(width=80, record=True, file=open(os.devnull, "w"))  # noqa: SIM115
    screen.print("[bold]lr[/sweep] :fire:")
    assert screen.export_text().strip() == "[bold]lr[/sweep] :fire:"


def test_a_name_that_is_not_utf8_is_one_message(tmp_path: Path) -> None:
    name = os.fsdecode(b"caf\xe9.jsonl")
    (tmp_path / name).write_text(LINES, encoding="utf-8")
    done = indelible("corpora", "inspect", name, cwd=tmp_path)
    assert (done.returncode, rb"caf\xe9.jsonl: the name holds bytes" in done.stderr) == (2, True)
    done = indelible("plan", "quickstart", "--set", f"name={name}", cwd=tmp_path)
    assert (done.returncode, b"holds bytes that are not UTF-8" in done.stderr) == (2, True)


def test_a_user_without_home_and_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def nobody(*_: object) -> str:
        raise KeyError

    for name in ("HOME", "USER", "LOGNAME", "LNAME", "USERNAME", "INDELIBLE_CACHE"):
        monkeypatch.setenv(name, "")  # so that what is set below is taken away again
        monkeypatch.delenv(name)
    monkeypatch.setattr("pwd.getpwuid", nobody)
    prepare_user()
    assert "HOME" not in os.environ
    assert os.environ["LOGNAME"] == f"uid{os.getuid()}"
    monkeypatch.setenv("INDELIBLE_CACHE", str(tmp_path))
    prepare_user()
    assert os.environ["HOME"] == str(tmp_path)
    monkeypatch.undo()
    before = dict(os.environ)
    prepare_user()
    assert dict(os.environ) == before


def test_a_cache_that_cannot_be_written_stops_nothing_that_needs_none(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text(LINES, encoding="utf-8")
    os.utime(tmp_path / "a.jsonl", (1, 1))
    (tmp_path / "cache").write_text("a file where the folder should be")
    done = indelible("corpora", "inspect", "a.jsonl", cwd=tmp_path)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("chosen", "present", "found"),
    [
        (None, 2, ["0", "1"]),
        ("NoDevFiles", 0, []),
        ("NoDevFiles", 2, []),
        ("0", 0, []),
        ("0,1", 0, []),
        ("", 2, []),
        ("-1", 2, []),
        ("none", 2, []),
        ("1, 0", 2, ["1", "0"]),
        ("0,-1,1", 2, ["0"]),
        ("0,7,1", 2, ["0"]),
        ("0,0,1", 2, ["0"]),
        ("GPU-8932f937-d72c,1", 2, ["GPU-8932f937-d72c", "1"]),
        ("MIG-1", 0, []),
    ],
)
def test_the_list_of_gpus_ends_where_the_driver_ends_it(monkeypatch, chosen, present, found) -> None:
    monkeypatch.setattr(host, "_num_gpus", lambda: present)
    if chosen is None:
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    else:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", chosen)
    assert host.visible_gpus() == found
