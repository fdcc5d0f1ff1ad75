"""One's own files: JSON lines, Parquet and plain text, alone or in folders."""

import codecs
import gzip
import io
import json
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

from pydantic import ValidationError

from indelible.corpora.document import Document
from indelible.corpora.fields import check_length, document_of, missing_column, template_recipe, wanted_columns
from indelible.corpora.listing import format_of, list_files, shown
from indelible.corpora.textcut import cut
from indelible.corpora.zst import ZstdError, open_zst
from indelible.errors import UserError
from indelible.files import printable
from indelible.study.corpus_spec import LocalCorpus, text_recipe

_TEXT_BLOCK = 1 << 20  # characters of a text file held at once
_PARQUET_ROWS = 1024  # held at once
_MAX_LINE_BYTES = 256_000_000  # of a JSON line; a file without line ends must not fill the memory
_OTHER_ENCODINGS = {codecs.BOM_UTF16_LE: "UTF-16", codecs.BOM_UTF16_BE: "UTF-16"}  # UTF-32 begins like one of them
_OTHER_KINDS = {  # first bytes of files that are no text, and what to do
    b"\x1f\x8b": "gzip; name it .gz",
    b"\x28\xb5\x2f\xfd": "Zstandard; name it .zst",
    b"PAR1\x15": "Parquet; name it .parquet, or set format: parquet",
    b"PK\x03\x04": "a ZIP archive; unpack it",
    b"BZh91AY&": "bzip2; unpack it",
    b"\xfd7zXZ": "xz; unpack it",
    b"%PDF-": "PDF; extract its text",
}


def _open(path: Path) -> BinaryIO:
    if path.name.lower().endswith(".gz"):
        return gzip.open(path, "rb")  # type: ignore[return-value]
    if path.name.lower().endswith(".zst"):
        return open_zst(path)
    return open(path, "rb")


def _json_object(line: bytes, columns: list[str], where: str) -> dict[str, Any]:
    """The record on one line."""
    try:
        record = json.loads(line.decode("utf-8"))
        if any(line.count(json.dumps(name, ensure_ascii=False).encode()) > 1 for name in columns):
            json.loads(line, object_pairs_hook=_refuse_twins)
    except UnicodeDecodeError as error:
        raise _bad_byte(where, line, error) from None
    except json.JSONDecodeError as error:
        is_cut = error.pos >= len(line.strip()) - 1 or "Unterm" in error.msg
        hint = " (the line seems cut off)" if is_cut else ""
        if line.lstrip().startswith(b"["):
            hint = " (the file seems to be one JSON list: write one object a line instead)"
        elif line.strip() == b"{":
            hint = " (an object must stand on one line)"
        what = f"{error.msg.removesuffix(' at')} at column {error.colno}"
        raise UserError(f"{where}: not JSON{hint}: {what}; repair it.") from None
    except RecursionError:
        raise UserError(f"{where}: lists or objects nested too deep to be read; write the record flat.") from None
    except ValueError as error:
        raise UserError(f"{where}: {str(error).partition(';')[0]}; repair it.") from None
    if not isinstance(record, dict):
        raise UserError(f"{where}: a JSON {type(record).__name__} where each line must be an object of columns.")
    return record


def _refuse_twins(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    names = [name for name, _ in pairs]
    if twins := [name for name in names if names.count(name) > 1]:
        raise ValueError(f"the column {twins[0]!r} stands twice in one object")
    return dict(pairs)


def _json_lines(path: Path, spec: LocalCorpus, source: str) -> Iterator[Document]:
    for where, record in json_records(path, wanted_columns(spec)):
        if document := document_of(record, spec, source, where):
            yield document


def json_records(path: Path, columns: list[str]) -> Iterator[tuple[str, dict[str, Any]]]:
    """The records of a file of JSON lines, each with its place for messages.

    Args:
        path: of the file; ``.gz`` and ``.zst`` are unpacked.
        columns: that are looked at; one of them that stands twice in a record is refused.

    Raises:
        UserError: a line is no UTF-8, or no JSON object.
    """
    with _open(path) as lines:
        for number, line in enumerate(iter(lambda: lines.readline(_MAX_LINE_BYTES + 1), b""), 1):
            where = f"{shown(path)} line {number}"
            if len(line) > _MAX_LINE_BYTES:
                raise UserError(
                    f"{where}: a line of more than {_MAX_LINE_BYTES:,} bytes; each line must be one JSON object."
                )
            if number == 1:
                _check_mark(path, line)
            line = line.removeprefix(codecs.BOM_UTF8)  # at the start, or where files were joined
            if not line.strip():
                continue
            yield where, _json_object(line, columns, where)


def _check_mark(path: Path, start: bytes) -> None:
    """Refuses a file whose first bytes say that it is not text in UTF-8."""
    for mark, kind in _OTHER_KINDS.items():
        if start.startswith(mark):
            raise UserError(f"{shown(path)}: by its first bytes this is no text but {kind}.")
    for mark, name in _OTHER_ENCODINGS.items():
        if start.startswith(mark):
            raise UserError(f"{shown(path)}: the file is {name} (by its byte order mark); convert it to UTF-8.")


def _parquet(path: Path, spec: LocalCorpus, source: str) -> Iterator[Document]:
    import pyarrow as pa  # 100 MB that the tokenising workers, which import this module, do not need
    import pyarrow.parquet as pq

    try:
        file = pq.ParquetFile(path)
    except (pa.ArrowException, OSError, ValueError, TypeError, KeyError) as error:
        raise UserError(f"{shown(path)}: not a Parquet file ({_first_line(error)}).") from None
    columns = wanted_columns(spec)
    for column in columns:
        if column not in file.schema_arrow.names:
            raise missing_column(column, file.schema_arrow.names, shown(path))
        if file.schema_arrow.names.count(column) > 1:
            raise UserError(f"{shown(path)}: the column {column!r} stands there twice; write it once.")
    batches = file.iter_batches(batch_size=_PARQUET_ROWS, columns=columns)
    number = 0
    while True:
        try:
            records = next(batches).to_pylist()
        except StopIteration:
            return
        except UnicodeDecodeError as error:
            rows = f"rows {number + 1} to {min(number + _PARQUET_ROWS, file.metadata.num_rows)}"
            raise UserError(f"{shown(path)} {rows}: not UTF-8 ({error.reason}); write its strings as UTF-8.") from None
        except (pa.ArrowException, OSError, ValueError, OverflowError) as error:
            what = f"cannot be read ({_first_line(error)}); the file is damaged"
            raise UserError(f"{shown(path)} after row {number}: {what}.") from None
        for record in records:
            number += 1
            if document := document_of(record, spec, source, f"{shown(path)} row {number}"):
                yield document


def _first_line(error: BaseException) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)


def _not_utf8(path: Path) -> UserError:
    """The error that names the first line which is not UTF-8."""
    with _open(path) as lines:
        for number, line in enumerate(lines, 1):
            try:
                line.decode("utf-8")
            except UnicodeDecodeError as error:
                return _bad_byte(f"{shown(path)} line {number}", line, error)
    return UserError(f"{shown(path)}: not UTF-8 text when it was read, and now it is; run the command again.")


def _bad_byte(where: str, line: bytes, error: UnicodeDecodeError) -> UserError:
    return UserError(f"{where}: not UTF-8 (byte {error.start} is {line[error.start]:#x}); convert the file to UTF-8.")


def _text_file(path: Path, spec: LocalCorpus, source: str) -> Iterator[Document]:
    """Pieces of about ``document_bytes``, cut at paragraphs, without holding the whole file."""
    held, size = "", spec.document_bytes
    try:
        with _open(path) as head:
            _check_mark(path, head.read(8))
        with io.TextIOWrapper(_open(path), encoding="utf-8-sig") as handle:
            while block := handle.read(_TEXT_BLOCK):
                held = (held + block).replace("\n\ufeff", "\n")  # the byte order marks of files that were joined
                if size is None:
                    check_length(held, shown(path))
                    continue
                blank = held[len(held.rstrip()) :]  # the space before the next block belongs to the text
                *pieces, held = list(cut(held, size)) or [""]
                held += blank
                for piece in pieces:
                    check_length(piece, shown(path))
                    yield Document(piece, 0, source, spec.licence)
    except UnicodeDecodeError:
        raise _not_utf8(path) from None
    if held.strip():
        check_length(held, shown(path))
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
        except (gzip.BadGzipFile, EOFError, ZstdError, zlib.error) as error:
            raise UserError(
                f"{shown(path)}: cannot be unpacked ({error}); the file is damaged or not what it is named."
            ) from None
        except OSError as error:
            raise UserError(f"{shown(path)}: cannot be read ({error}).") from None


def local_recipe(spec: LocalCorpus, cache_dir: Path) -> dict[str, Any]:
    """What decides the documents: the files' contents in order, and how they are read; not where they lie."""
    files = [[source, name, sha256] for source, name, _, sha256 in list_files(spec, cache_dir)]
    return {"files": files, **text_recipe(spec, "path"), **template_recipe(spec)}


def local_spec(path: str, columns: Mapping[str, str | None]) -> LocalCorpus:
    """The recipe of one's own file or folder, as a command is told it.

    Args:
        path: of the file or folder.
        columns: by the names of the fields of `LocalCorpus`; None = not given.

    Raises:
        UserError: the columns do not go together, or a study file, which is UTF-8, cannot hold the path.
    """
    if printable(path) != path:
        raise UserError(f"{printable(path)}: the name holds bytes that are not UTF-8; give its folder, or rename it.")
    try:
        return LocalCorpus.model_validate({"path": path, **columns})
    except ValidationError as error:
        said = error.errors()[0]["msg"].removeprefix("Value error, ")
        raise UserError(f"{path}: {said}.") from None
