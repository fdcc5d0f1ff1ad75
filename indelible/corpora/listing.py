"""The files of a local corpus: found below its paths, named, hashed; what is passed over is said, nothing silently."""

import functools
import logging
import os
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from indelible.errors import UserError
from indelible.files import file_sha256, printable, read_json, write_json
from indelible.study.corpus_spec import LocalCorpus

_ENDINGS = {
    "jsonl": (".jsonl", ".ndjson", ".json"),
    "parquet": (".parquet",),
    "text": (".txt", ".text", ".md", ".rst"),
}
_FRESH_SECONDS = 2.0  # a file changed so lately may change again within its time stamp's resolution
_SHOWN = 5  # names in a notice
_log = logging.getLogger("indelible")


def format_of(path: Path, asked: str) -> str | None:
    """``jsonl``, ``parquet`` or ``text``; None if the ending does not tell."""
    if asked != "auto":
        return asked
    name = path.name.lower().removesuffix(".gz").removesuffix(".zst")
    return next((kind for kind, endings in _ENDINGS.items() if name.endswith(endings)), None)


def list_files(spec: LocalCorpus, cache_dir: Path) -> list[tuple[str, str, Path, str]]:
    """The files of a spec in order: (source, name, path, sha256).

    Hashes are cached by inode, size and both times of change, so that no edit escapes that the system notices.

    Raises:
        UserError: a path does not exist or cannot be read, or a file is empty or stands there twice and ``odd_files``
            is ``refuse``.
    """
    listed: list[tuple[str, str, Path, str]] = []
    seen: dict[str, Path] = {}
    with _HashCache(cache_dir) as hashes:
        for entry in map(Path, spec.path):
            for name, path in _files_of(entry, spec.format, cache_dir):
                try:
                    sha256, size = hashes.sha256(path), path.stat().st_size
                except OSError as error:
                    raise UserError(f"{shown(path)}: cannot be read ({error.strerror}).") from None
                twin = seen.get(sha256)
                is_odd = twin is not None or size == 0
                if is_odd and spec.odd_files == "refuse":
                    what = f"holds the same bytes as {shown(twin)}" if twin is not None else "is empty"
                    raise UserError(f"{shown(path)} {what}; remove it, or set odd_files: skip to pass over such files.")
                if not is_odd:
                    seen[sha256] = path
                    listed.append((printable(entry.name or entry.resolve().name), name, path, sha256))
    return listed


def shown(path: Path) -> str:
    """A path for messages and records: bytes of its name that are not UTF-8 are written as ``\\xe9``."""
    return printable(str(path))


@functools.cache
def _say(message: str) -> None:
    """Warns once a process: files are listed several times for one command."""
    _log.warning(message)


def _files_of(entry: Path, asked: str, cache_dir: Path) -> list[tuple[str, Path]]:
    """(name, path) of the files of one entry of ``path``, those of a folder by name."""
    try:
        is_file, is_folder = entry.is_file(), entry.is_dir()
    except OSError as error:
        raise UserError(f"{shown(entry)}: cannot be read ({error.strerror}).") from None
    if is_file:
        if format_of(entry, asked) is None:
            raise UserError(f"{shown(entry)}: what kind of file is this? Set format to jsonl, parquet or text.")
        return [(printable(entry.name), entry)]
    if not is_folder:
        raise UserError(f"{shown(entry)}: no such file or folder; give a path that exists where the command runs.")
    if _is_study_folder(entry):
        raise UserError(
            f"{shown(entry)}: this is the folder of a study run (it holds tokens or a plan); keep the text in a folder "
            "of its own."
        )
    found: list[Path] = []
    odd: list[str] = []
    visited = {_identity(entry)}
    for path, why in _walk(entry, visited, cache_dir):
        if why:
            odd.append(f"{printable(path.relative_to(entry).as_posix())} ({why})")
        elif format_of(path, asked) is None:
            odd.append(f"{printable(path.relative_to(entry).as_posix())} (unknown ending)")
        else:
            found.append(path)
    if not found:
        raise UserError(
            f"{shown(entry)}: no files to read among the {len(odd)} in this folder; files end in .jsonl, .json, "
            ".parquet, .txt, .md or .rst (.gz and .zst too), or set format."
        )
    if odd:
        more = f" and {len(odd) - _SHOWN} more" if len(odd) > _SHOWN else ""
        _say(f"{shown(entry)}: {len(found)} files are read; passed over: {', '.join(odd[:_SHOWN])}{more}")
    return sorted((printable(path.relative_to(entry).as_posix()), path) for path in found)


def _walk(folder: Path, visited: set[tuple[int, int]], cache_dir: Path) -> Iterator[tuple[Path, str]]:
    """(path, why it is passed over or "") of everything below a folder that is not hidden; links are followed once."""
    try:
        entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
    except OSError as error:
        raise UserError(f"{shown(folder)}: the folder cannot be read ({error.strerror}).") from None
    for entry in entries:
        path = Path(entry.path)
        if entry.name.startswith("."):
            continue
        if entry.is_symlink() and not path.exists():
            raise UserError(
                f"{shown(path)}: a link to {printable(os.readlink(path))}, which is not there (a disk that is not "
                "mounted, a download that is not done?); bring it back or remove the link."
            )
        if entry.is_file():
            yield path, ""
        elif not entry.is_dir():
            yield path, "neither file nor folder"
        elif _identity(path) in visited:
            yield path, "a link to a folder that is read already"
        elif _is_study_folder(path) or path.resolve() == cache_dir.resolve():
            yield path, "written by indelible"
        else:
            visited.add(_identity(path))
            yield from _walk(path, visited, cache_dir)


def _identity(folder: Path) -> tuple[int, int]:
    stat = folder.stat()
    return stat.st_dev, stat.st_ino


def _is_study_folder(folder: Path) -> bool:
    """Whether indelible writes a study run there: what it wrote must not become text of the next one."""
    return (folder / "tokens" / ".prepare.lock").exists() or (
        (folder / "plan.json").is_file() and (folder / "runs").is_dir()
    )


class _HashCache:
    """sha256 of files, remembered by path and by what changes with their bytes."""

    def __init__(self, cache_dir: Path) -> None:
        self._path = cache_dir / "file-hashes.json"
        self._known: dict[str, Any] = {}
        with suppress(UserError, OSError):  # a cache that cannot be read is an empty one
            found = read_json(self._path)
            self._known = found if isinstance(found, dict) else {}
        self._changed = False

    def sha256(self, path: Path) -> str:
        """The hash of a file's bytes.

        A program can set the time of the last change back, as archives do; the time of the inode's change it cannot.
        """
        stat = path.stat()
        stamp = [stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns]
        key = shown(path.resolve())
        known = self._known.get(key)
        if isinstance(known, list) and known[:-1] == stamp:
            return str(known[-1])
        sha256 = file_sha256(path)
        if time.time() - max(stat.st_mtime, stat.st_ctime) > _FRESH_SECONDS:
            self._known[key] = [*stamp, sha256]
            self._changed = True
        return sha256

    def __enter__(self) -> "_HashCache":
        return self

    def __exit__(self, *_: object) -> None:
        if self._changed:
            with suppress(OSError):  # a cache that cannot be written saves no time, that is all
                write_json(self._path, self._known)
