"""A long-lived worker: chooses a ready unit, takes its lease, runs it, and goes on until nothing is left to do.

Started by an executor as ``python -m indelible.scheduling.worker JSON``. Torch is imported when the first unit begins.
"""

import contextlib
import os
import signal
import sys
import threading
import time
from pathlib import Path
from types import FrameType

from indelible.host import Owner, is_known_dead, owner_of
from indelible.scheduling import failures
from indelible.scheduling.engine import ENGINE, Engine, load_engine
from indelible.scheduling.folder import StudyFolder, has_checkpoint
from indelible.scheduling.lease import BEAT_SECONDS, LEASE_SECONDS, Lease, LeaseLost, LeaseView, StopRequested
from indelible.scheduling.run_index import RunIndex, Status
from indelible.scheduling.settings import WorkerStart
from indelible.scheduling.torchrun import Ranks
from indelible.scheduling.unit_run import run_unit, set_superseded_aside
from indelible.scheduling.units import Unit

EXIT_REPLACE = 75  # this process cannot be trusted any more (memory, device): start a fresh one
EXIT_DISK = 74  # nothing can be written: no worker will fare better
_POLL_SECONDS = (0.05, 0.5)  # first and longest pause while all that is left waits for others


class Worker:
    """The state of one worker process."""

    def __init__(
        self,
        out: Path,
        label: str,
        *,
        engine: Engine | str = ENGINE,
        lease_seconds: float = LEASE_SECONDS,
        beat_seconds: float = BEAT_SECONDS,
        max_attempts: int = failures.MAX_ATTEMPTS,
        launcher: Owner | None = None,
        ready_fd: int | None = None,
    ) -> None:
        self.label = label
        self.stop = threading.Event()
        self._index = RunIndex(StudyFolder.open(out), lease_seconds)
        self._reference = engine if isinstance(engine, str) else None
        self._loaded = None if isinstance(engine, str) else engine
        self._beat_seconds = beat_seconds
        self._max_attempts = max_attempts
        self._launcher = launcher
        self._ready_fd = ready_fd

    def work(self) -> int:
        """Works until everything is settled or a stop is requested; returns the exit code of the process."""
        pause = _POLL_SECONDS[0]
        while not self.stop.is_set():
            self._check_launcher()
            self._index.follow_plan()
            try:
                outcome = self._take_one()
            except OSError as error:  # of a lease: what happens inside a unit is handled there
                if not failures.is_disk_error(error):
                    raise
                print(f"no lease can be written: {error}", file=sys.stderr, flush=True)
                return EXIT_DISK
            if outcome in (EXIT_REPLACE, EXIT_DISK):
                return outcome
            if outcome == 0:
                pause = _POLL_SECONDS[0]
                continue
            if self._index.is_settled():
                return 0
            self.stop.wait(pause)
            pause = min(pause * 1.5, _POLL_SECONDS[1])
        return 0

    @property
    def _ranks(self) -> Ranks:
        return Ranks.of(self._index.folder.plan.execution)

    def _engine(self) -> Engine | str:
        """The engine, or its name where torchrun's processes are to load it."""
        if self._reference is not None and self._ranks.total > 1:
            return self._reference
        if self._loaded is None:
            self._loaded = load_engine(str(self._reference))
        return self._loaded

    def _check_launcher(self) -> None:
        if self._launcher is not None and is_known_dead(self._launcher):
            self.stop.set()  # nobody watches or replaces us any more: save and leave

    def _take_one(self) -> int | None:
        """Runs the first ready unit that can be taken; its exit code, or None if there was none."""
        for unit, last in self._index.ready():
            engine = self._engine()  # seconds of imports, in which others may take the unit
            if self.stop.is_set():
                return None
            taken = self._lease_on_it_or_its_ancestor(unit, last)
            if taken is not None:
                self._report_ready()
                return self._run(*taken, engine)
        return None

    def _report_ready(self) -> None:
        if self._ready_fd is not None:
            with contextlib.suppress(BrokenPipeError):  # the launcher has gone
                os.write(self._ready_fd, b"1")
            os.close(self._ready_fd)
            self._ready_fd = None

    def _lease_on_it_or_its_ancestor(self, unit: Unit, last: LeaseView) -> tuple[Unit, Lease] | None:
        """The lease on a unit, or on the stage run before it if that must be run again as its weights have gone."""
        folder, is_reopened = self._index.folder, False
        if unit.parent is not None and not has_checkpoint(folder.run_dir(unit.parent)):
            unit, is_reopened = self._index.units[unit.parent], True
            self._index.forget(unit.id)
            state = self._index.state(unit)
            last = self._index.observer.look(unit.folder)
            has_failed = state.status is Status.FAILED and state.result is None
            if has_failed or last.is_held or self._is_evaluated_now(unit):
                return None
        before = 0 if is_reopened else failures.failures_before(unit.folder, last)
        lease = Lease.take(
            unit.folder,
            last.generation + 1,
            self.label,
            before,
            self._beat_seconds,
            self._check_launcher,
            self._launcher,
        )
        if lease is None:
            return None
        if is_reopened and (unit.folder / "result.json").exists() and not has_checkpoint(unit.folder):
            print(f"{unit.id}: checkpoint/ has gone but is needed; running it again.", flush=True)
            set_superseded_aside(folder, unit.id)
        if self._index.is_finished(unit):  # between our look and our lease
            lease.release("done")
            return None
        if unit.parent is not None and not has_checkpoint(
            folder.run_dir(unit.parent)
        ):  # its own has gone too: next round
            lease.release("stopped")
            return None
        return unit, lease

    def _is_evaluated_now(self, unit: Unit) -> bool:
        return self._index.observer.look(self._index.folder.evaluations_dir(unit.checkpoint)).is_held

    def _run(self, unit: Unit, lease: Lease, engine: Engine | str) -> int:
        if lease.record.failures >= self._max_attempts:
            failures.record_deaths(lease)
            lease.release("failed")
            return 0
        started = time.monotonic()
        print(f"{unit.id}: attempt {lease.record.generation}", flush=True)
        try:
            run_unit(self._index.folder, unit, lease, engine, self._ranks, self.stop)
        except StopRequested:
            lease.release("stopped")
            return 0
        except LeaseLost as error:
            print(error, flush=True)
            lease.abandon()
            return 0
        except Exception as error:
            return self._fail(unit, lease, error)
        lease.release("done")
        print(f"{unit.id}: finished in {time.monotonic() - started:.1f} s", flush=True)
        return 0

    def _fail(self, unit: Unit, lease: Lease, error: Exception) -> int:
        print(f"{unit.id}: {type(error).__name__}: {error}", file=sys.stderr, flush=True)
        if failures.is_disk_error(error):
            lease.release("stopped")  # not the unit's fault
            return EXIT_DISK
        if self.stop.is_set():  # the signal ended what it had started as well, a compiler for example
            lease.release("stopped")
            return 0
        try:
            failures.record_error(lease, error, self._max_attempts)
        except LeaseLost as lost:
            print(lost, flush=True)
            lease.abandon()
            return 0
        except OSError as full:
            print(f"{unit.id}: cannot write failure.json: {full}", file=sys.stderr, flush=True)
            lease.release("stopped")
            return EXIT_DISK
        lease.release("failed")
        return EXIT_REPLACE if failures.is_memory_or_device_error(error) else 0


def run_worker(start: WorkerStart) -> int:
    """Works on a study folder in this process until nothing is left to do; SIGTERM and SIGINT make it save and leave.

    Returns:
        The exit code of the process.
    """
    settings = start.settings
    worker = Worker(
        settings.out,
        start.label,
        engine=settings.engine,
        lease_seconds=settings.lease_seconds,
        max_attempts=settings.max_attempts,
        launcher=owner_of(start.launcher_pid) if start.launcher_pid is not None else None,
        ready_fd=start.ready_fd,
    )

    def request_stop(signum: int, frame: FrameType | None) -> None:
        worker.stop.set()

    for signum in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR2):  # SIGUSR2: Slurm, before a time limit
        signal.signal(signum, request_stop)
    return worker.work()


def main() -> None:
    """A worker process; its one argument is a `WorkerStart` as JSON."""
    code = run_worker(WorkerStart.model_validate_json(sys.argv[1]))
    sys.stdout.flush()
    sys.stderr.flush()
    # libraries may keep threads that abort at interpreter exit; all results are on disk by now
    os._exit(code)


if __name__ == "__main__":
    main()
