"""One's own files: JSON lines, Parquet and plain text, alone or in folders."""

import codecs
import gzip
import io
import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import zstandard

from indelible.corpora.columns import check_length, document_of, missing_column, wanted_columns
from indelible.corpora.document import Document
from indelible.corpora.textcut import cut
from indelible.corpora.zst import open_zst
from indelible.errors import UserError
from indelible.files import file_sha256, read_json, write_json
from indelible.study.corpus_spec import LocalCorpus

_ENDINGS = {"jsonl": (".jsonl", ".ndjson"), "parquet": (".parquet",), "text": (".txt", ".text", ".md", ".rst")}
_TEXT_BLOCK = 1 << 20  # characters of a text file held at once
_PARQUET_ROWS = 1024  # held at once
_MAX_LINE_BYTES = 256_000_000  # of a JSON line; a file without line ends must not fill the memory
_FRESH_SECONDS = 2.0  # a file changed so lately may change again within its time stamp's resolution


def format_of(path: Path, asked: str) -> str | None:
    """``jsonl``, ``parquet`` or ``text``; None if the ending does not tell."""
    if asked != "auto":
        return asked
    name = path.name.lower().removesuffix(".gz").removesuffix(".zst")
    return next((kind for kind, endings in _ENDINGS.items() if name.endswith(endings)), None)


def _files_of(entry: Path, asked: str) -> list[tuple[str, Path]]:
    """(name, path) of the files of one entry of ``path``; hidden ones and, in folders, unknown endings are left out."""
    if entry.is_file():
        if format_of(entry, asked) is None:
            raise UserError(f"{entry}: what kind of file is this? Set format to jsonl, parquet or text.")
        return [(entry.name, entry)]
    if not entry.is_dir():
        raise UserError(f"{entry}: no such file or folder; give a path that exists, from where the command runs.")
    found = []
    for folder, folders, files in os.walk(entry):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        found += [Path(folder) / name for name in files if not name.startswith(".")]
    chosen = [path for path in found if path.is_file() and format_of(path, asked)]
    if not chosen:
        raise UserError(
            f"{entry}: no files to read among the {len(found)} in this folder; files end in .jsonl, .parquet, .txt, "
            ".md or .rst (.gz and .zst too), or set format."
        )
    return sorted((path.relative_to(entry).as_posix(), path) for path in chosen)


def list_files(spec: LocalCorpus, cache_dir: Path) -> list[tuple[str, str, Path, str]]:
    """The files of a spec in order: (source, name, path, sha256). Hashes are cached by size and time of change.

    Raises:
        UserError: a path does not exist, or a file is empty or stands there twice and ``odd_files`` is ``refuse``.
    """
    listed: list[tuple[str, str, Path, str]] = []
    seen: dict[str, Path] = {}
    with _HashCache(cache_dir) as hashes:
        for entry in map(Path, spec.path):
            for name, path in _files_of(entry, spec.format):
                sha256 = hashes.sha256(path)
                twin = seen.get(sha256)
                is_odd = twin is not None or path.stat().st_size == 0
                if is_odd and spec.odd_files == "refuse":
                    what = f"holds the same bytes as {twin}" if twin is not None else "is empty"
                    raise UserError(f"{path} {what}; remove it, or set odd_files: skip to pass over such files.")
                if not is_odd:
                    seen[sha256] = path
                    listed.append((entry.name, name, path, sha256))
    return listed


class _HashCache:
    """sha256 of files, remembered by path, size and time of change."""

    def __init__(self, cache_dir: Path) -> None:
        self._path = cache_dir / "file-hashes.json"
        self._known: dict[str, list[Any]] = read_json(self._path) if self._path.exists() else {}
        self._changed = False

    def sha256(self, path: Path) -> str:
        """The hash of a file's bytes."""
        stat = path.stat()
        stamp = [stat.st_size, stat.st_mtime_ns]
        key = str(path.resolve())
        if (known := self._known.get(key)) and known[:2] == stamp:
            return str(known[2])
        sha256 = file_sha256(path)
        if time.time() - stat.st_mtime > _FRESH_SECONDS:
            self._known[key] = [*stamp, sha256]
            self._changed = True
        return sha256

    def __enter__(self) -> "_HashCache":
        return self

    def __exit__(self, *_: object) -> None:
        if self._changed:
            write_json(self._path, self._known)


def _open(path: Path) -> BinaryIO:
    if path.name.lower().endswith(".gz"):
        return gzip.open(path, "rb")  # type: ignore[return-value]
    if path.name.lower().endswith(".zst"):
        return open_zst(path)
    return open(path, "rb")


def _json_object(line: bytes, where: str) -> dict[str, Any]:
    """The record on one line."""
    try:
        record = json.loads(line.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise _bad_byte(where, line, error) from None
    except json.JSONDecodeError as error:
        is_cut = error.pos >= len(line.strip()) - 1 or "Unterm" in error.msg
        hint = " (the line seems cut off)" if is_cut else ""
        what = f"{error.msg.removesuffix(' at')} at column {error.colno}"
        raise UserError(f"{where}: not JSON{hint}: {what}; repair it.") from None
    if not isinstance(record, dict):
        raise UserError(f"{where}: a JSON {type(record).__name__} where each line must be an object of columns.")
    return record


def _json_lines(path: Path, spec: LocalCorpus, source: str) -> Iterator[Document]:
    with _open(path) as lines:
        for number, line in enumerate(iter(lambda: lines.readline(_MAX_LINE_BYTES + 1), b""), 1):
            where = f"{path} line {number}"
            if len(line) > _MAX_LINE_BYTES:
                raise UserError(
                    f"{where}: a line of more than {_MAX_LINE_BYTES:,} bytes; each line must be one JSON object."
                )
            if number == 1:
                line = line.removeprefix(codecs.BOM_UTF8)
            if not line.strip():
                continue
            if document := document_of(_json_object(line, where), spec, source, where):
                yield document


def _parquet(path: Path, spec: LocalCorpus, source: str) -> Iterator[Document]:
    import pyarrow as pa  # 100 MB that the tokenising workers, which import this module, do not need
    import pyarrow.parquet as pq

    try:
        file = pq.ParquetFile(path)
    except (pa.ArrowException, OSError) as error:
        raise UserError(f"{path}: not a Parquet file ({str(error).splitlines()[0]}).") from None
    columns = wanted_columns(spec)
    for column in columns:
        if column not in file.schema_arrow.names:
            raise missing_column(column, file.schema_arrow.names, str(path))
    batches = file.iter_batches(batch_size=_PARQUET_ROWS, columns=columns)
    number = 0
    while True:
        try:
            records = next(batches).to_pylist()
        except StopIteration:
            return
        except UnicodeDecodeError as error:
            rows = f"rows {number + 1} to {number + _PARQUET_ROWS}"
            raise UserError(f"{path} {rows}: not UTF-8 ({error.reason}); write its strings as UTF-8.") from None
        except (pa.ArrowException, OSError) as error:
            reason = str(error).splitlines()[0]
            raise UserError(f"{path} after row {number}: cannot be read ({reason}); the file is damaged.") from None
        for record in records:
            number += 1
            if document := document_of(record, spec, source, f"{path} row {number}"):
                yield document


def _not_utf8(path: Path) -> UserError:
    """The error that names the first line which is not UTF-8."""
    with _open(path) as lines:
        for number, line in enumerate(lines, 1):
            try:
                line.decode("utf-8")
            except UnicodeDecodeError as error:
                return _bad_byte(f"{path} line {number}", line, error)
    return UserError(f"{path}: not UTF-8 text when it was read, and now it is; run the command again.")


def _bad_byte(where: str, line: bytes, error: UnicodeDecodeError) -> UserError:
    return UserError(f"{where}: not UTF-8 (byte {error.start} is {line[error.start]:#x}); convert the file to UTF-8.")


def _text_file(path: Path, spec: LocalCorpus, source: str) -> Iterator[Document]:
    """Pieces of about ``document_bytes``, cut at paragraphs, without holding the whole file."""
    held, size = "", spec.document_bytes
    try:
        with io.TextIOWrapper(_open(path), encoding="utf-8") as handle:
            while block := handle.read(_TEXT_BLOCK):
                held += block
                if size is None:
                    check_length(held, str(path))
                    continue
                blank = held[len(held.rstrip()) :]  # the space before the next block belongs to the text
                *pieces, held = list(cut(held, size)) or [""]
                held += blank
                for piece in pieces:
                    check_length(piece, str(path))
                    yield Document(piece, 0, source, spec.licence)
    except UnicodeDecodeError:
        raise _not_utf8(path) from None
    if held.strip():
        check_length(held, str(path))
        yield Document(held.strip() if size is not None else held, 0, source, spec.licence)


def local_documents(spec: LocalCorpus, cache_dir: Path) -> Iterator[Document]:
    """The documents of one's own files, file after file.

    Raises:
        UserError: a file cannot be read; the message names the file and the line or row.
    """
    readers = {"jsonl": _json_lines, "parquet": _parquet, "text": _text_file}
    for source, _, path, _ in list_files(spec, cache_dir):
        kind = format_of(path, spec.format)
        assert kind is not None, path
        try:
            yield from readers[kind](path, spec, source)
        except (gzip.BadGzipFile, EOFError, zstandard.ZstdError) as error:
            raise UserError(
                f"{path}: cannot be unpacked ({error}); the file is damaged or not what it is named."
            ) from None


def local_recipe(spec: LocalCorpus, cache_dir: Path) -> dict[str, Any]:
    """What decides the documents: the files' contents in order, and how they are read; not where they lie."""
    files = [[source, name, sha256] for source, name, _, sha256 in list_files(spec, cache_dir)]
    return {"files": files, **spec.model_dump(mode="json", exclude={"path", "max_tokens"})}
