"""A long-lived worker: chooses a ready stage run, takes its lease, runs it, and goes on until nothing is left to do.

Started by an executor as ``python -m indelible.lab.worker OUT ...``. Torch is imported when the first run begins.
"""

import argparse
import contextlib
import importlib
import os
import shutil
import signal
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from types import FrameType

from indelible.errors import UserError
from indelible.files import write_json
from indelible.lab import failures
from indelible.lab.host import Owner, is_known_dead, process_start, this_process
from indelible.lab.lease import BEAT_SECONDS, LEASE_SECONDS, Lease, LeaseLost, LeaseView, StopRequested
from indelible.lab.runs import Board, PlannedRun, has_checkpoint, has_other_spec, load_plan, plan_stamp
from indelible.lab.spread import Ranks, run_spread
from indelible.train.job import Progress, StageJob

RunStage = Callable[..., None]
ENGINE = "indelible.train.stage:run_stage"
EXIT_REPLACE = 75  # this process cannot be trusted any more (memory, device): start a fresh one
EXIT_DISK = 74  # nothing can be written: no worker will fare better
_POLL_SECONDS = (0.05, 0.5)  # first and longest pause while all that is left waits for others


def load_engine(reference: str) -> RunStage:
    """The function ``module:name`` that runs a stage.

    Raises:
        UserError: there is no such module or function.
    """
    module_name, _, name = reference.partition(":")
    try:
        return getattr(importlib.import_module(module_name), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise UserError(f"--engine {reference}: {error}; expected an importable module:function.") from error


def sweep_leftovers(run_dir: Path) -> None:
    """Removes what a killed worker left in a finished run: temporary files and the resume state."""
    for path in list(run_dir.rglob(".*.tmp")):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)
    shutil.rmtree(run_dir / "resume", ignore_errors=True)


class Worker:
    """The state of one worker process."""

    def __init__(
        self,
        out: Path,
        label: str,
        *,
        run_stage: RunStage | str = ENGINE,
        lease_seconds: float = LEASE_SECONDS,
        beat_seconds: float = BEAT_SECONDS,
        max_attempts: int = failures.MAX_ATTEMPTS,
        launcher: Owner | None = None,
    ) -> None:
        self.label = label
        self.stop = threading.Event()
        self._board = Board(load_plan(out), lease_seconds)
        self._engine = run_stage
        self._beat_seconds = beat_seconds
        self._max_attempts = max_attempts
        self._launcher = launcher

    def work(self) -> int:
        """Works until everything is settled or a stop is asked for; returns the exit code of the process."""
        pause = _POLL_SECONDS[0]
        while not self.stop.is_set():
            self._check_launcher()
            if plan_stamp(self._board.plan.out) != self._board.plan.stamp:
                self._board.replan(load_plan(self._board.plan.out))
            try:
                outcome = self._take_one()
            except OSError as error:  # of a lease: what happens inside a run is handled there
                if not failures.is_disk_error(error):
                    raise
                print(f"no lease can be written: {error}", file=sys.stderr, flush=True)
                return EXIT_DISK
            if outcome in (EXIT_REPLACE, EXIT_DISK):
                return outcome
            if outcome == 0:
                pause = _POLL_SECONDS[0]
                continue
            if self._board.is_settled():
                return 0
            self.stop.wait(pause)
            pause = min(pause * 1.5, _POLL_SECONDS[1])
        return 0

    @property
    def _ranks(self) -> Ranks:
        return Ranks.of(self._board.plan.execution)

    def _check_launcher(self) -> None:
        if self._launcher is not None and is_known_dead(self._launcher):
            self.stop.set()  # nobody watches or replaces us any more: save and leave

    def _take_one(self) -> int | None:
        """Runs the first ready run that can be taken; its exit code, or None if there was none."""
        for run, last in self._board.ready():
            if isinstance(self._engine, str) and self._ranks.total == 1:
                self._engine = load_engine(self._engine)  # seconds of imports, in which others may take the run
            if self.stop.is_set():
                return None
            taken = self._reopened_ancestor(run, last)
            if taken is not None:
                return self._run(*taken)
        return None

    def _reopened_ancestor(self, run: PlannedRun, last: LeaseView) -> tuple[PlannedRun, Lease] | None:
        """The lease on ``run``, or on the nearest ancestor that must be run again because its weights have gone."""
        plan = self._board.plan
        lost = None
        if run.parent is not None and not has_checkpoint(plan.run_dir(run.parent)):
            lost, run = run.parent, plan.runs[run.parent]
            last = self._board.observer.look(plan.run_dir(lost))
            self._board.forget(lost)
            if last.is_held:
                return None
        run_dir = plan.run_dir(run.id)
        before = 0 if lost else failures.failures_before(run_dir, last)
        lease = Lease.take(
            run_dir, last.generation + 1, self.label, before, self._beat_seconds, self._check_launcher, self._launcher
        )
        if lease is None:
            return None
        if lost and (run_dir / "result.json").exists() and not has_checkpoint(run_dir):
            print(f"{lost}: checkpoint/ has gone but is needed; running it again.", flush=True)
            os.replace(run_dir / "result.json", run_dir / "result.superseded.json")
        if (run_dir / "result.json").exists():  # finished between our look and our lease
            lease.release("done")
            return None
        parent = run.parent
        if parent is not None and not has_checkpoint(plan.run_dir(parent)):  # its own parent has gone too: next round
            lease.release("stopped")
            return None
        return run, lease

    def _job(self, run: PlannedRun) -> StageJob:
        plan = self._board.plan
        parent_dir = plan.run_dir(run.parent) if run.parent is not None else None
        return StageJob(
            plan.run_dir(run.id), run.id, run.stage, run.spec, parent_dir, plan.out / "tokens", dict(plan.execution)
        )

    def _run(self, run: PlannedRun, lease: Lease) -> int:
        if lease.record.failures >= self._max_attempts:
            failures.record_deaths(lease)
            lease.release("failed")
            return 0
        started = time.monotonic()
        print(f"{run.id}: attempt {lease.record.generation}", flush=True)
        try:
            self._execute(run, lease)
        except StopRequested:
            lease.release("stopped")
            return 0
        except LeaseLost as error:
            print(error, flush=True)
            lease.abandon()
            return 0
        except Exception as error:
            return self._fail(run, lease, error)
        lease.release("done")
        print(f"{run.id}: finished in {time.monotonic() - started:.1f} s", flush=True)
        return 0

    def _execute(self, run: PlannedRun, lease: Lease) -> None:
        run_dir = self._board.plan.run_dir(run.id)
        if has_other_spec(run_dir, run):
            raise UserError(
                f"{run_dir}/spec.json is not the spec that plan.json has for this run; the folder holds the work of "
                "another study or was edited. Move it away and run the same command again."
            )
        if not (run_dir / "spec.json").exists():
            spec = {"format": 1, "id": run.id, "stage": run.stage, "parent": run.parent, "spec": run.spec}
            write_json(run_dir / "spec.json", spec)

        def progress(now: Progress) -> None:
            lease.show(**asdict(now))
            if self.stop.is_set():
                raise StopRequested(run.id)

        lease.show(phase="loading")
        if isinstance(self._engine, str):
            run_spread(self._job(run), self._ranks, self._engine, lease, progress)
        else:
            self._engine(self._job(run), progress=progress, guard=lease.guard)
        if not (run_dir / "result.json").exists():
            raise RuntimeError(f"{run.id}: the engine came back without writing result.json.")
        with contextlib.suppress(FileNotFoundError):
            os.replace(run_dir / "failure.json", run_dir / f"failure.{lease.record.generation - 1}.json")
        sweep_leftovers(run_dir)

    def _fail(self, run: PlannedRun, lease: Lease, error: Exception) -> int:
        print(f"{run.id}: {type(error).__name__}: {error}", file=sys.stderr, flush=True)
        if failures.is_disk_error(error):
            lease.release("stopped")  # not the run's fault
            return EXIT_DISK
        try:
            failures.record_error(lease, error, self._max_attempts)
        except LeaseLost as lost:
            print(lost, flush=True)
            lease.abandon()
            return 0
        except OSError as full:
            print(f"{run.id}: cannot write failure.json: {full}", file=sys.stderr, flush=True)
            lease.release("stopped")
            return EXIT_DISK
        lease.release("failed")
        return EXIT_REPLACE if failures.is_memory_or_device_error(error) else 0


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line of a worker process."""
    parser = argparse.ArgumentParser(prog="indelible.lab.worker", description=__doc__)
    parser.add_argument("out", type=Path, help="folder with plan.json")
    parser.add_argument("--label", default=f"pid{os.getpid()}", help="name shown by status")
    parser.add_argument("--engine", default=ENGINE, help="module:function that runs a stage")
    parser.add_argument("--lease-seconds", type=float, default=LEASE_SECONDS)
    parser.add_argument("--max-attempts", type=int, default=failures.MAX_ATTEMPTS)
    parser.add_argument("--launcher-pid", type=int, help="stop when this process has gone")
    options = parser.parse_args(arguments)
    launcher = None
    if options.launcher_pid is not None:
        me = this_process()
        launcher = Owner(me.host, me.boot, me.namespace, options.launcher_pid, process_start(options.launcher_pid))
    worker = Worker(
        options.out,
        options.label,
        run_stage=options.engine,
        lease_seconds=options.lease_seconds,
        max_attempts=options.max_attempts,
        launcher=launcher,
    )

    def ask_to_stop(signum: int, frame: FrameType | None) -> None:
        worker.stop.set()

    for signum in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR2):  # SIGUSR2: Slurm, before a time limit
        signal.signal(signum, ask_to_stop)
    code = worker.work()
    sys.stdout.flush()
    sys.stderr.flush()
    # libraries may keep threads that abort at interpreter exit; all results are on disk by now
    os._exit(code)


if __name__ == "__main__":
    main()
