"""One process at a time in a folder: by a file lock, or, where the file system has none, by a folder of its owner."""

import errno
import fcntl
import os
import secrets
import shutil
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path

from indelible.errors import UserError
from indelible.files import read_json, write_json
from indelible.host import Owner, is_known_dead, this_process

BEAT_SECONDS = 5.0  # between two signs of life of an owner
SILENT_SECONDS = 60.0  # without one, as the waiting process counts them, the owner is taken for dead
_NO_LOCKS = {errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOTSUP, errno.EINVAL, errno.EIO}


@contextmanager
def folder_lock(path: Path) -> Iterator[None]:
    """Holds the lock ``path``; waits while another process has it.

    A file lock ends with its process, however that ends. Lustre and NFS may be mounted without them; there a folder
    beside ``path`` is made, which only one process can do, and its owner gives signs of life.
    """
    with open(path, "w") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX)
        except OSError as error:
            if error.errno not in _NO_LOCKS:
                raise
        else:
            yield
            return
    with _owned_folder(path.with_name(path.name + ".owned")):
        yield


@contextmanager
def _owned_folder(folder: Path) -> Iterator[None]:
    _take(folder)
    done = threading.Event()
    beat = threading.Thread(target=_beat, args=(folder, done), daemon=True)
    beat.start()
    try:
        yield
    finally:
        done.set()
        beat.join()
        shutil.rmtree(folder, ignore_errors=True)


def _take(folder: Path) -> None:
    last, since = "", time.monotonic()
    while True:
        try:
            folder.mkdir()
        except FileExistsError:
            now = _sign_of_life(folder)
            if now != last:
                last, since = now, time.monotonic()
            if _is_dead(folder) or time.monotonic() - since > SILENT_SECONDS:
                _remove(folder)
            else:
                time.sleep(0.2)
            continue
        write_json(folder / "owner.json", asdict(this_process()))
        return


def _sign_of_life(folder: Path) -> str:
    with suppress(OSError):
        return f"{folder.stat().st_ino} {folder.stat().st_mtime_ns}"
    return ""


def _is_dead(folder: Path) -> bool:
    with suppress(OSError, UserError, TypeError):
        return is_known_dead(Owner(**read_json(folder / "owner.json")))
    return False


def _remove(folder: Path) -> None:
    """Takes the lock of a dead owner away: renamed first, so that of two processes only one does."""
    aside = folder.with_name(f"{folder.name}.{secrets.token_hex(4)}")
    with suppress(OSError):
        os.replace(folder, aside)
        shutil.rmtree(aside, ignore_errors=True)


def _beat(folder: Path, done: threading.Event) -> None:
    while not done.wait(BEAT_SECONDS):
        with suppress(OSError):
            os.utime(folder)
