"""Leases: who works on a unit (a stage run, or the evaluations of a checkpoint), whatever the clocks say.

The n-th attempt on a unit is a file ``lease/<n>.json`` that only one process can create; the highest n owns the unit,
so taking a unit away from a dead owner is creating n + 1, and n serves as fencing token. The owner counts up a number
in ``lease/<n>.beat``; an observer calls the lease stale when *it* has seen that number stand still for
``lease_seconds`` on its own monotonic clock, or at once when the owner was a process of this host that has ended.
This holds on one machine and over a shared file system; docs/running.md says what a network one needs.
"""

import contextlib
import errno
import json
import math
import os
import re
import secrets
import stat
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pydantic import NonNegativeInt, TypeAdapter, ValidationError

from indelible.host import Owner, is_known_dead, this_process

LEASE_SECONDS = 60.0  # an observer's patience with a silent owner on another host
BEAT_SECONDS = 1.0
_LARGEST_SHOWN = 1e15  # of the numbers of a beat: steps, tokens, seconds, a loss
_RECORD_NAME = re.compile(r"([0-9]{1,15})\.json")
_PLAIN_WORD = re.compile(r"[a-z ]{1,40}")
_BEAT_BYTES = 512  # fixed, so that a beat overwrites in place and needs no free space on a full disk


class LeaseLost(Exception):
    """Another worker has taken this unit: stop before the next write."""


class StopRequested(Exception):
    """The launcher, Slurm or the user asked the worker to stop: save the resume state and leave."""


@dataclass(frozen=True)
class LeaseRecord:
    """What the owner wrote when it took the unit."""

    generation: int  # n: the attempt's number and the fencing token
    owner: Owner
    worker: str  # label shown in the live view
    failures: NonNegativeInt  # attempts in a row that failed before this one
    saved_mark: str  # fingerprint of what was saved when the unit was taken: did the attempt get any further?
    token: str  # random; tells this attempt from every other
    launcher: Owner | None = None  # the process that keeps the worker alive; None under Slurm


_RECORD = TypeAdapter(LeaseRecord)


def _lease_dir(folder: Path) -> Path:
    return folder / "lease"


def generations(folder: Path) -> list[int]:
    """Every n of ``lease/<n>.json``, in order."""
    try:
        names = os.listdir(_lease_dir(folder))
    except (FileNotFoundError, NotADirectoryError):
        return []
    return sorted(int(match[1]) for name in names if (match := _RECORD_NAME.fullmatch(name)))


def latest_generation(folder: Path) -> int:
    """Highest n of ``lease/<n>.json``; 0 when nobody has taken the unit yet."""
    return max(generations(folder), default=0)


def read_record(folder: Path, generation: int) -> LeaseRecord | None:
    """The record of attempt ``generation``; None while it cannot be read (then only its heartbeat counts)."""
    try:
        record = _RECORD.validate_json((_lease_dir(folder) / f"{generation}.json").read_bytes())
    except (OSError, ValidationError):
        return None
    return record if record.generation == generation else None


def read_beat(folder: Path, generation: int) -> tuple[bytes, dict[str, Any]]:
    """Raw bytes (to see whether they change) and content of a heartbeat; empty when missing or half written.

    What is not of the kind that a beat has is left out: it is shown to people, and nothing is computed from it.
    """
    try:
        raw = (_lease_dir(folder) / f"{generation}.beat").read_bytes()
    except OSError:
        return b"", {}
    try:
        value = json.loads(raw)
    except (ValueError, RecursionError):
        return raw, {}
    return raw, {key: one for key, one in value.items() if _is_shown(key, one)} if isinstance(value, dict) else {}


def _is_shown(key: str, value: Any) -> bool:
    if value is None:
        return True
    if key in ("outcome", "phase"):
        return isinstance(value, str) and bool(_PLAIN_WORD.fullmatch(value))
    return type(value) in (int, float) and 0 <= value <= _LARGEST_SHOWN


def _file_time(path: Path) -> float | None:
    try:
        return path.stat().st_mtime
    except OSError:
        return None


def saved_mark(folder: Path) -> str:
    """Changes whenever a resume state or an evaluation was saved; empty when there is nothing."""
    marks = []
    for path in (*(folder / "resume").rglob("*"), *folder.glob("*.documents.parquet")):
        with contextlib.suppress(OSError):
            info = path.stat()
            if not stat.S_ISDIR(info.st_mode):
                marks.append(f"{path.relative_to(folder)}:{info.st_size}:{info.st_mtime_ns}")
    return "|".join(sorted(marks))[-2000:]


def _create_once(path: Path, text: str, token: str) -> bool:
    """Creates ``path`` with its whole content; False if somebody else was first."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{token}.tmp")
    temporary.write_text(text, encoding="utf-8")
    try:
        os.link(temporary, path)
        return True
    except FileExistsError:
        pass
    except OSError as error:
        if error.errno not in (errno.EPERM, errno.ENOTSUP, errno.EMLINK, errno.ENOSYS):
            raise
        # a file system without hard links: create, then fill; readers take an empty record for an unknown owner
        try:
            with open(path, "x", encoding="utf-8") as handle:
                handle.write(text)
            return True
        except FileExistsError:
            return False
    finally:
        temporary.unlink(missing_ok=True)
    # over NFS a link can succeed while its answer is lost and the repeated request says "exists"
    return token in path.read_text(encoding="utf-8", errors="replace")


class Lease:
    """A unit that this process owns. A thread keeps the heartbeat going until ``release``."""

    def __init__(self, folder: Path, record: LeaseRecord, beat_seconds: float, on_beat: Callable[[], None]) -> None:
        self.folder = folder
        self.record = record
        self._beat_seconds = beat_seconds
        self._on_beat = on_beat
        self._beat_path = _lease_dir(folder) / f"{record.generation}.beat"
        self._next_path = _lease_dir(folder) / f"{record.generation + 1}.json"
        self._shown: dict[str, Any] = {}
        self._count = 0
        self._started = time.monotonic()
        self._over = threading.Event()
        self._lock = threading.Lock()
        self._write_beat(None)
        self._thread = threading.Thread(target=self._keep_beating, name="heartbeat", daemon=True)
        self._thread.start()

    @classmethod
    def take(
        cls,
        folder: Path,
        generation: int,
        worker: str,
        failures: int = 0,
        beat_seconds: float = BEAT_SECONDS,
        on_beat: Callable[[], None] = lambda: None,
        launcher: Owner | None = None,
    ) -> "Lease | None":
        """Takes the unit as attempt ``generation`` (one more than the latest); None if somebody else was first.

        Args:
            on_beat: called by the heartbeat thread after every beat.
        """
        _lease_dir(folder).mkdir(parents=True, exist_ok=True)
        mark, token = saved_mark(folder), secrets.token_hex(8)
        record = LeaseRecord(generation, this_process(), worker, failures, mark, token, launcher)
        text = json.dumps(asdict(record), indent=1) + "\n"
        if not _create_once(_lease_dir(folder) / f"{generation}.json", text, record.token):
            return None
        return cls(folder, record, beat_seconds, on_beat)

    @property
    def is_lost(self) -> bool:
        """True once a higher generation exists."""
        return os.path.exists(self._next_path)

    def guard(self) -> None:
        """Raises LeaseLost when another worker has taken the unit; call it before every write."""
        if self.is_lost:
            raise LeaseLost(f"{self.folder.name}: attempt {self.record.generation} was taken over by another worker.")

    def show(self, **shown: Any) -> None:
        """Sets what the next beats show (step, loss, ...); numbers that are not finite become null."""
        self._shown = {
            key: None if isinstance(value, float) and not math.isfinite(value) else value
            for key, value in shown.items()
        }

    def _write_beat(self, outcome: str | None) -> None:
        with self._lock:
            self._count += 1
            beat = {"count": self._count, "outcome": outcome, "seconds": round(time.monotonic() - self._started, 1)}
            raw = json.dumps({**beat, **self._shown}).encode()
            if len(raw) > _BEAT_BYTES - 1:
                raw = json.dumps(beat).encode()
            handle = os.open(self._beat_path, os.O_WRONLY | os.O_CREAT, 0o666)
            try:
                os.pwrite(handle, raw.ljust(_BEAT_BYTES - 1) + b"\n", 0)
            finally:
                os.close(handle)

    def _keep_beating(self) -> None:
        while not self._over.wait(self._beat_seconds):
            with contextlib.suppress(OSError):  # a silent spell only lets others take the unit: guard() then says so
                if not self.is_lost:
                    self._write_beat(None)
            self._on_beat()

    def release(self, outcome: str) -> None:
        """Ends the attempt: ``done``, ``failed`` or ``stopped``. The unit is free for others at once if not done."""
        self._over.set()
        self._thread.join()
        with contextlib.suppress(OSError):
            self._write_beat(outcome)

    def abandon(self) -> None:
        """Stops the heartbeat without an outcome: the lease was lost, its files belong to somebody else."""
        self._over.set()
        self._thread.join()


@dataclass(frozen=True)
class LeaseView:
    """A unit's latest lease as an observer sees it."""

    generation: int  # 0: never taken
    is_held: bool  # somebody is at work, as far as can be told
    record: LeaseRecord | None
    beat: dict[str, Any]  # the latest heartbeat's content
    beat_time: float | None = None  # file time of the latest heartbeat, seconds since 1970: shown, never judged by

    @property
    def outcome(self) -> str | None:
        """How the attempt ended: done, failed, stopped; None while it goes on or when its worker died."""
        return self.beat.get("outcome")


class LeaseObserver:
    """Judges leases over time. Each process keeps its own; it never compares clocks with anybody."""

    def __init__(self, lease_seconds: float = LEASE_SECONDS, clock: Callable[[], float] = time.monotonic) -> None:
        self._lease_seconds = lease_seconds
        self._clock = clock
        self._seen: dict[Path, tuple[int, bytes, float]] = {}

    def look(self, folder: Path) -> LeaseView:
        """The state of the unit's lease now."""
        generation = latest_generation(folder)
        if generation == 0:
            return LeaseView(0, False, None, {})
        record = read_record(folder, generation)
        raw, beat = read_beat(folder, generation)
        if beat.get("outcome") is not None:
            self._seen.pop(folder, None)
            return LeaseView(generation, False, record, beat)
        now = self._clock()
        before = self._seen.get(folder)
        if before is None or before[:2] != (generation, raw):
            self._seen[folder] = (generation, raw, now)
        silent_seconds = now - self._seen[folder][2]
        is_dead = record is not None and is_known_dead(record.owner)
        is_held = not is_dead and silent_seconds < self._lease_seconds
        return LeaseView(generation, is_held, record, beat, _file_time(_lease_dir(folder) / f"{generation}.beat"))
