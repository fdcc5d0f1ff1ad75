"""The doctor names what is there and what is wrong, each by itself."""

import subprocess
from pathlib import Path

import pytest

from indelible import __version__
from indelible.workflow import doctor


def _by_topic(facts: list[doctor.Fact]) -> dict[str, list[doctor.Fact]]:
    found: dict[str, list[doctor.Fact]] = {}
    for fact in facts:
        found.setdefault(fact.topic, []).append(fact)
    return found


def test_a_machine_in_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INDELIBLE_CACHE", str(tmp_path))
    facts = _by_topic(doctor.examine())
    assert facts["indelible"][0].text.startswith(__version__)
    assert "torch " in facts["libraries"][0].text
    assert str(tmp_path) in facts["cache"][0].text
    topics = {"indelible", "libraries", "processor", "devices", "memory", "precision", "compiler", "cache", "corpora"}
    assert topics | {"disk", "slurm"} <= set(facts)
    assert not [fact for fact in doctor.examine() if fact.state == "bad"]
    assert list(tmp_path.iterdir()) == []  # it changes nothing


def test_what_is_wrong_is_said_with_a_fix_and_hides_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> str:
        raise RuntimeError("no such thing")

    monkeypatch.setattr(doctor, "this_machine", broken)
    monkeypatch.setattr("indelible.train.device.compiler_fault", lambda kind: "no C++ compiler")
    monkeypatch.setattr(doctor.metadata, "version", _without_peft(doctor.metadata.version))
    monkeypatch.setattr(doctor, "visible_gpus", lambda: ["0"])
    squeue = tmp_path / "squeue"
    squeue.write_text("#!/bin/sh\necho 'Unable to contact slurm controller' >&2\nexit 1\n")
    squeue.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    facts = _by_topic(doctor.examine())
    assert facts["processor"][0].state == "bad"
    assert "RuntimeError: no such thing" in facts["processor"][0].text
    assert facts["compiler"][0].state == "note"
    assert "g++" in facts["compiler"][0].fix
    assert facts["libraries"][1].text == "missing: peft"
    assert facts["devices"][0].state == "bad"
    assert "Unable to contact" in facts["slurm"][0].text
    assert facts["disk"]


def _without_peft(version):
    def ask(name: str) -> str:
        if name == "peft":
            raise doctor.metadata.PackageNotFoundError(name)
        return version(name)

    return ask


def test_a_cache_that_cannot_be_written_is_bad(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("INDELIBLE_CACHE", str(tmp_path / "file" / "cache"))
    cache = _by_topic(doctor.examine())["cache"][0]
    assert cache.state == "bad"
    assert "INDELIBLE_CACHE" in (cache.fix + cache.text)


def test_a_hanging_squeue_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def hang(*_: object, **__: object) -> None:
        raise subprocess.TimeoutExpired("squeue", 10)

    monkeypatch.setattr(doctor.shutil, "which", lambda name: "/usr/bin/squeue")
    monkeypatch.setattr(doctor.subprocess, "run", hang)
    assert _by_topic(doctor.examine())["slurm"][0].state == "bad"
