"""Files that are either whole or absent: written under a temporary name beside the target, then renamed."""

import hashlib
import json
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from indelible.errors import UserError

if TYPE_CHECKING:
    from pydantic import TypeAdapter

T = TypeVar("T")


def printable(text: str) -> str:
    """``text`` with what UTF-8 cannot express (bytes of a file name in another encoding) written as ``\\xe9``."""
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def is_there(name: str) -> bool:
    """Whether there is a file or folder of a name that a user gave, ``~`` read as the home folder.

    False also where no file can have that name: too long, of an unknown user's home, with a zero byte.
    """
    return os.path.exists(os.path.expanduser(name))


@contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """Yields a temporary path beside ``path``; on success it is flushed to disk and renamed over ``path``.

    After a crash at any moment ``path`` is either the old file or the new one, never a part of it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}.tmp")
    try:
        yield temporary
        with open(temporary, "rb") as handle:
            os.fsync(handle.fileno())
        os.replace(temporary, path)
    except BaseException:
        with suppress(OSError):  # a name that no file can have: what went wrong before says so
            temporary.unlink(missing_ok=True)
        raise


def share_like_folder(path: Path) -> None:
    """Lets whoever may read and write in its folder do so with a file: safetensors makes its files for their owner."""
    os.chmod(path, os.stat(path.parent).st_mode & 0o666)


def write_text(path: Path, text: str) -> None:
    """Writes UTF-8 text atomically."""
    with atomic_write(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, value: Any, *, indent: int | None = 1) -> None:
    """Writes JSON (NaN and infinity refused, keys in the order given) atomically."""
    write_text(path, json.dumps(value, indent=indent, allow_nan=False, ensure_ascii=False) + "\n")


def read_json(path: Path) -> Any:
    """Reads a JSON file.

    Raises:
        UserError: the file is missing or is not JSON; the message names it.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{path}: no such file.") from None
    except (ValueError, RecursionError) as error:  # no JSON, no UTF-8, a number of thousands of digits, too deep
        raise UserError(f"{path}: not a JSON file ({error}); delete it and run the command again.") from None


def read_as(path: Path, shape: "TypeAdapter[T]") -> T:
    """Reads a JSON file that this program has written, and that somebody may have edited since.

    Args:
        path: the file.
        shape: what it must hold.

    Raises:
        UserError: the file is missing, is not JSON, or holds something else; the message names the place in it.
    """
    return as_shape(read_json(path), path, shape)


def as_shape(value: Any, path: Path, shape: "TypeAdapter[T]") -> T:
    """The content of a JSON file, checked; see `read_as`."""
    from pydantic import ValidationError  # commands that only show help need none of it

    try:
        return shape.validate_python(value)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "the file"
        raise UserError(
            f"{path}: {where}: {first['msg']}; the file was edited or cut. Delete it and run the command again."
        ) from None


def refuse_constants(path: Path | str, data: bytes) -> None:
    """Refuses NaN and infinities, which Python's readers take for numbers of JSON; other faults are left to the reader.

    Raises:
        UserError: one of them stands in ``data``, the bytes of the file at ``path``.
    """

    def refuse(name: str) -> None:
        raise UserError(f"{path}: not a JSON file ({name} stands in it, which is no number of JSON); delete it and run "
                        "the same command again.")  # fmt: skip

    try:
        json.loads(data, parse_constant=refuse)
    except UserError:
        raise
    except (ValueError, RecursionError):  # who reads it says what else is wrong
        return


def file_sha256(path: Path) -> str:
    """Hex sha256 of a file's bytes, read in blocks of 1 MiB."""
    digest = hashlib.sha256()
    with open(path, "rb") as handle:
        while block := handle.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
