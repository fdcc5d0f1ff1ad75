"""The launcher: keeps workers alive until everything is settled and watches the files. It draws nothing itself."""

import math
import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

from indelible.errors import UserError
from indelible.host import default_workers, visible_gpus
from indelible.scheduling import failures
from indelible.scheduling.engine import ENGINE
from indelible.scheduling.executors.base import Executor
from indelible.scheduling.executors.local import LocalExecutor
from indelible.scheduling.folder import StudyFolder, has_other_spec
from indelible.scheduling.jobs import check_run
from indelible.scheduling.lease import LEASE_SECONDS
from indelible.scheduling.run_index import RunIndex, Status
from indelible.scheduling.settings import WorkerSettings
from indelible.scheduling.snapshot import Snapshot, look
from indelible.scheduling.unit_run import sweep_leftovers
from indelible.study.execution import check_workers

EXECUTORS = ("local", "slurm")
_LOOK_SECONDS = 0.25  # between two looks at the files
_STOP_SECONDS = 120.0  # given to workers to save after a stop was requested


class Observer:
    """Watches a launch. Both methods may be left as they are; they are called in the launcher's thread."""

    def on_look(self, snapshot: Snapshot) -> None:
        """Called a few times a second with the state of the study."""

    def on_stop(self, reason: str) -> None:
        """Called when a stop was requested (Ctrl-C, SIGTERM): the workers save and leave, a second one ends them."""


@dataclass(frozen=True)
class Outcome:
    """How a launch ended."""

    snapshot: Snapshot  # the last look
    trouble: str | None = None  # why it ended before everything was settled
    has_worked: bool = True  # False: there was nothing to do

    @property
    def exit_code(self) -> int:
        """0 when everything is done or diverged; 1 when something failed or is blocked, or the launch was stopped."""
        return 0 if self.trouble is None and self.snapshot.is_finished else 1


def check_launch(
    workers: int | None = None,
    executor: str = "local",
    max_attempts: int = failures.MAX_ATTEMPTS,
    lease_seconds: float = LEASE_SECONDS,
) -> None:
    """Checks what is asked of a launch; for callers that prepare tokens first.

    Raises:
        UserError: an unknown executor, fewer than one worker or attempt, or no patience.
    """
    if executor not in EXECUTORS:
        raise UserError(f"--executor {executor}: expected one of {', '.join(EXECUTORS)}.")
    check_workers(workers)
    if max_attempts < 1:
        raise UserError(f"--attempts {max_attempts}: at least 1 is needed.")
    if not 0 < lease_seconds < math.inf:
        raise UserError(f"--lease-seconds {lease_seconds}: expected a number of seconds above 0.")


def launch(
    out: Path,
    workers: int | None = None,
    executor: str = "local",
    *,
    max_attempts: int = failures.MAX_ATTEMPTS,
    lease_seconds: float = LEASE_SECONDS,
    engine: str = ENGINE,
    observer: Observer | None = None,
    is_retrying: bool = True,
) -> Outcome:
    """Runs everything in ``<out>/plan.json`` that is not done yet.

    Args:
        out: study folder.
        workers: worker processes; None: as many as the machine carries.
        executor: ``local`` or ``slurm``.
        max_attempts: attempts in a row that a unit may lose to the infrastructure.
        lease_seconds: patience with a silent worker on another host.
        engine: module:function that runs a stage; its module's ``run_evaluations`` evaluates, if it has one.
        observer: watches the launch.
        is_retrying: units that failed for good are tried again.

    Returns:
        How it ended.

    Raises:
        UserError: the request is wrong: no plan, another spec in a run folder, a folder that cannot be written,
            an unknown executor, fewer than one worker.
    """
    observer = observer or Observer()
    check_launch(workers, executor, max_attempts, lease_seconds)
    folder = StudyFolder.open(out)
    _check_specs(folder)
    index = RunIndex(folder, lease_seconds)
    snapshot = look(index)
    if snapshot.is_finished or (snapshot.is_settled and not is_retrying):
        with suppress(OSError):  # a folder that may only be read is no reason to fail now
            _sweep(snapshot)
        return Outcome(snapshot, has_worked=False)
    _check_writable(out)
    if is_retrying:
        failures.clear_failures(unit.folder for unit in index.units.values())
    settings = WorkerSettings(out=out.resolve(), engine=engine, lease_seconds=lease_seconds, max_attempts=max_attempts)
    pool = _executor(executor, settings, folder, workers, look(index).unsettled)
    trouble = _supervise(index, pool, observer)
    snapshot = look(index)
    _sweep(snapshot)
    return Outcome(snapshot, trouble)


def _executor(
    name: str, settings: WorkerSettings, folder: StudyFolder, workers: int | None, unsettled: int
) -> Executor:
    execution = folder.plan.execution
    workers = workers or execution.workers
    if name == "slurm":
        from indelible.scheduling.executors.slurm import SlurmExecutor, workers_per_job

        num_jobs = None if workers is None else -(-workers // workers_per_job(execution))
        return SlurmExecutor(settings, num_jobs, execution, unsettled)
    per_run = execution.devices_per_run
    gpus = [] if execution.device == "cpu" else visible_gpus()
    if gpus and per_run > len(gpus):
        raise UserError(
            f"execution.devices_per_run = {per_run}, and this machine shows {len(gpus)} GPU(s) ({', '.join(gpus)}); "
            "lower it, or make more visible (CUDA_VISIBLE_DEVICES)."
        )
    num_workers = workers or default_workers(execution.device, unsettled, per_run, folder.resume_bytes)
    return LocalExecutor(settings, num_workers, execution)


def _check_specs(folder: StudyFolder) -> None:
    for run in folder.plan.stage_runs:
        check_run(folder, run)
        run_dir = folder.run_dir(run.id)
        if has_other_spec(run_dir, run):
            raise UserError(
                f"{run_dir}/spec.json is not the spec that plan.json has for this run; the folder was "
                "edited or belongs to another study. Move that run folder away, or use another --out."
            )


def _check_writable(out: Path) -> None:
    probe = out / "runs" / f".probe.{os.getpid()}.tmp"
    try:
        probe.parent.mkdir(exist_ok=True)
        probe.write_bytes(b"\0" * 4096)
    except OSError as error:
        raise UserError(
            f"{out}: cannot be written ({error.strerror}); free some space, or use another --out."
        ) from None
    finally:
        if os.path.exists(probe):
            probe.unlink()


def _sweep(snapshot: Snapshot) -> None:
    """Removes the resume state of finished runs whose worker was killed before it could."""
    for state in snapshot.states.values():
        is_over = state.status in (Status.DONE, Status.DIVERGED) and state.result is not None
        if is_over and (state.unit.folder / "resume").is_dir():
            sweep_leftovers(state.unit.folder)


def _is_ignored(signum: int) -> bool:
    """True where whoever started us said so, as nohup does for SIGHUP."""
    return signal.getsignal(signum) is signal.SIG_IGN


@contextmanager
def _signals() -> Iterator[list[int]]:
    """Collects SIGINT, SIGTERM and SIGHUP instead of dying of them."""
    received: list[int] = []

    def note(signum: int, frame: FrameType | None) -> None:
        received.append(signum)

    if threading.current_thread() is not threading.main_thread():
        yield received
        return
    wanted = [signum for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP) if not _is_ignored(signum)]
    before = {signum: signal.signal(signum, note) for signum in wanted}
    try:
        yield received
    finally:
        for signum, handler in before.items():
            signal.signal(signum, handler)


def _supervise(index: RunIndex, pool: Executor, observer: Observer) -> str | None:
    """Watches until everything is settled; why it ended before, or None."""
    with _signals() as signals:
        pool.start()
        try:
            while True:
                index.follow_plan()
                snapshot = look(index, pool.num_workers)
                observer.on_look(snapshot)
                if snapshot.is_settled:
                    _wait_idle(pool, [])
                    return None
                if signals and pool.detach_note is not None:
                    return f"asked to stop. {pool.detach_note}"
                reason = "asked to stop" if signals else pool.poll(snapshot.unsettled)
                if reason:
                    if signals:
                        observer.on_stop(reason)
                    pool.stop()
                    _wait_idle(pool, signals)
                    return reason
                time.sleep(_LOOK_SECONDS)
        except BaseException:
            pool.kill()
            raise


def _wait_idle(pool: Executor, signals: list[int]) -> None:
    """Waits until all workers have left; kills them when that takes too long, or at the next signal."""
    deadline, received = time.monotonic() + _STOP_SECONDS, len(signals)
    while not pool.is_idle():
        if time.monotonic() > deadline or len(signals) > received:
            pool.kill()
            return
        time.sleep(0.05)
