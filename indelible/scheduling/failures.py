"""Failed attempts: which may be tried again, how they are counted, and the file that says why."""

import errno
import os
import re
import time
import traceback
from collections.abc import Iterable
from pathlib import Path
from typing import Literal

from pydantic import BaseModel

from indelible.host import is_known_dead
from indelible.records import Failure
from indelible.scheduling.lease import Lease, LeaseView, saved_mark

MAX_ATTEMPTS = 3  # attempts in a row that may be lost to the infrastructure without any progress
# Every unit would fail alike: the worker stops instead. EFBIG: a limit on the size of files
DISK_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG)

# An OSError of these kinds says that the request is wrong, and would come back the same
_DETERMINISTIC_OS_ERRORS = (FileNotFoundError, FileExistsError, IsADirectoryError, NotADirectoryError)
# Libraries report the system's failures under names of their own
_DISK_TEXTS = (
    *("no space left on device", "os error 28", "disk quota exceeded", "read-only file system", "file too large"),
)
_SHORT_WRITE = re.compile(r"\d+ requested and \d+ written")  # numpy's words for a full disk
_MEMORY_TEXTS = ("can't allocate memory", "out of memory", "cannot allocate memory")
_DEVICE_TEXTS = ("cuda error", "nccl error", "cudnn_status", "input/output error", "os error 5)")


class Cause(BaseModel):
    """Why an attempt failed. Travels between processes as JSON."""

    kind: Literal["infrastructure", "error"]  # may be tried again, or would come back the same
    type: str
    message: str
    traceback: str = ""


class RankFailed(Exception):
    """A rank of a stage run over several devices ended with an error."""

    def __init__(self, cause: Cause) -> None:
        super().__init__(cause.message)
        self.cause = cause


def is_disk_error(error: BaseException) -> bool:
    """True if nothing more can be written to this disk, so that nothing else would fare better."""
    if isinstance(error, OSError) and error.errno in DISK_ERRORS:
        return True
    if isinstance(error, OSError) and _SHORT_WRITE.fullmatch(str(error)):
        return True
    return any(text in str(error).lower() for text in _DISK_TEXTS)


def is_memory_or_device_error(error: BaseException) -> bool:
    """True if this process should not go on: memory ran out, or its device is in an unknown state."""
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    text = str(error).lower()
    return isinstance(error, RuntimeError) and any(part in text for part in (*_MEMORY_TEXTS, *_DEVICE_TEXTS))


def is_infrastructure(error: BaseException) -> bool:
    """True if the same unit may well succeed elsewhere or later; anything else is deterministic and fails at once."""
    if is_disk_error(error) or is_memory_or_device_error(error):
        return True
    return isinstance(error, OSError) and not isinstance(error, _DETERMINISTIC_OS_ERRORS)


def cause_of(error: BaseException) -> Cause:
    """What failure.json says of an exception; what a rank reported is passed on as it is."""
    if isinstance(error, RankFailed):
        return error.cause
    return Cause(
        kind="infrastructure" if is_infrastructure(error) else "error",
        type=type(error).__name__,
        message=str(error),
        traceback="".join(traceback.format_exception(error))[-20_000:],
    )


def failures_before(folder: Path, last: LeaseView) -> int:
    """Attempts in a row that were lost before the one to come.

    An attempt that was asked to stop costs nothing, nor one that died together with its launcher (power cut, kill of
    everything); one whose worker died alone counts, unless it had saved some progress.
    """
    if last.generation == 0 or last.record is None:
        return 0
    if last.outcome == "failed":
        failure = Failure.read(folder / "failure.json")
        return failure.failures if failure is not None else 0
    launcher_died = last.record.launcher is not None and is_known_dead(last.record.launcher)
    if last.outcome is not None or launcher_died:
        return last.record.failures
    return 0 if saved_mark(folder) != last.record.saved_mark else last.record.failures + 1


def _write_failure(lease: Lease, failures: int, is_final: bool, cause: Cause) -> None:
    record = lease.record
    lease.guard()
    Failure(
        id=lease.folder.name,
        **cause.model_dump(),
        attempt=record.generation,
        failures=failures,
        is_final=is_final,
        worker=record.worker,
        host=record.owner.host,
        time=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    ).write(lease.folder / "failure.json")


def record_error(lease: Lease, error: BaseException, max_attempts: int) -> None:
    """Writes failure.json for an attempt that ended in an exception; it is final unless another attempt is due."""
    failures, cause = lease.record.failures + 1, cause_of(error)
    _write_failure(lease, failures, cause.kind == "error" or failures >= max_attempts, cause)


def record_deaths(lease: Lease) -> None:
    """Writes failure.json for a unit whose workers died too often, one after the other, without saving any progress."""
    failures = lease.record.failures
    message = (
        f"{failures} workers in a row ended while they worked on this run (killed, out of memory, or a machine that "
        "went down) and none had saved any progress. Look at the logs in workers/ and at the machine's memory; "
        "the same `indelible run` command tries again."
    )
    _write_failure(lease, failures, True, Cause(kind="infrastructure", type="WorkerDied", message=message))


def clear_failures(folders: Iterable[Path]) -> int:
    """Sets final failures aside as ``failure.<attempt>.json``, so that a new launch tries them again; how many."""
    cleared = 0
    for folder in folders:
        failure = Failure.read(folder / "failure.json")
        if failure is not None and failure.is_final:
            set_failure_aside(folder, failure.attempt)
            cleared += 1
    return cleared


def set_failure_aside(folder: Path, attempt: int) -> None:
    """Renames failure.json to ``failure.<attempt>.json``, or to the next number that is free."""
    while (folder / f"failure.{attempt}.json").exists():
        attempt += 1
    os.replace(folder / "failure.json", folder / f"failure.{attempt}.json")
