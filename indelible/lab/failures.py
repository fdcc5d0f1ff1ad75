"""Failed attempts: which may be tried again, how they are counted, and the file that says why."""

import errno
import os
import re
import time
import traceback
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from indelible.files import write_json
from indelible.lab.host import is_known_dead
from indelible.lab.lease import Lease, LeaseView, resume_mark
from indelible.lab.runs import read_optional

MAX_ATTEMPTS = 3  # attempts in a row that may be lost to the infrastructure without any progress
DISK_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)  # every run would fail alike: the worker stops instead

# An OSError of these kinds says that the request is wrong, and would come back the same
_DETERMINISTIC_OS_ERRORS = (FileNotFoundError, FileExistsError, IsADirectoryError, NotADirectoryError)
# Libraries report the system's failures under names of their own
_DISK_TEXTS = ("no space left on device", "os error 28", "disk quota exceeded", "read-only file system")
_SHORT_WRITE = re.compile(r"\d+ requested and \d+ written")  # numpy's words for a full disk
_MEMORY_TEXTS = ("can't allocate memory", "out of memory", "cannot allocate memory")
_DEVICE_TEXTS = ("cuda error", "nccl error", "cudnn_status", "input/output error", "os error 5)")


def is_disk_error(error: BaseException) -> bool:
    """True if nothing more can be written to this disk, so that no other run would fare better."""
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
    """True if the same run may well succeed elsewhere or later; anything else is deterministic and fails at once."""
    if is_disk_error(error) or is_memory_or_device_error(error):
        return True
    return isinstance(error, OSError) and not isinstance(error, _DETERMINISTIC_OS_ERRORS)


def describe(error: BaseException) -> dict[str, Any]:
    """What failure.json says of an exception; one that a rank of a spread stage run told is passed on as it is."""
    told = getattr(error, "told", None)
    return told or {
        "kind": "infrastructure" if is_infrastructure(error) else "error",
        "type": type(error).__name__,
        "message": str(error),
        "traceback": "".join(traceback.format_exception(error))[-20_000:],
    }


def failures_before(run_dir: Path, last: LeaseView) -> int:
    """Attempts in a row that were lost before the one to come.

    An attempt that was asked to stop costs nothing, nor one that died together with its launcher (power cut, kill of
    everything); one whose worker died alone counts, unless it had saved some progress.
    """
    failure = read_optional(run_dir / "failure.json")
    if last.generation == 0 or last.record is None:
        return 0
    if last.outcome == "failed":
        return int(failure["failures"]) if failure is not None else 0
    launcher_died = last.record.launcher is not None and is_known_dead(last.record.launcher)
    if last.outcome is not None or launcher_died:
        return last.record.failures
    return 0 if resume_mark(run_dir) != last.record.resume_mark else last.record.failures + 1


def _write_failure(lease: Lease, failures: int, is_final: bool, why: dict[str, Any]) -> None:
    record = lease.record
    lease.guard()
    write_json(
        lease.run_dir / "failure.json",
        {
            "format": 1,
            "id": lease.run_dir.name,
            **why,
            "attempt": record.generation,
            "failures": failures,
            "is_final": is_final,
            "worker": record.worker,
            "host": record.owner.host,
            "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        },
    )


def record_error(lease: Lease, error: BaseException, max_attempts: int) -> None:
    """Writes failure.json for an attempt that ended in an exception; it is final unless another attempt is due."""
    failures = lease.record.failures + 1
    why = describe(error)
    _write_failure(lease, failures, why["kind"] == "error" or failures >= max_attempts, why)


def record_deaths(lease: Lease) -> None:
    """Writes failure.json for a run whose workers died too often, one after the other, without saving any progress."""
    failures = lease.record.failures
    message = (
        f"{failures} workers in a row ended while they worked on this run (killed, out of memory, or a machine that "
        "went down) and none had saved any progress. Look at the logs in workers/ and at the machine's memory; "
        "the same `indelible run` command tries again."
    )
    _write_failure(
        lease, failures, True, {"kind": "infrastructure", "type": "WorkerDied", "message": message, "traceback": ""}
    )


def clear_failures(run_dirs: Iterable[Path]) -> int:
    """Sets final failures aside as ``failure.<attempt>.json``, so that a new launch tries them again; how many."""
    cleared = 0
    for run_dir in run_dirs:
        failure = read_optional(run_dir / "failure.json")
        if failure is not None and failure.get("is_final"):
            os.replace(run_dir / "failure.json", run_dir / f"failure.{failure['attempt']}.json")
            cleared += 1
    return cleared
