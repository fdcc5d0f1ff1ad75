"""The launcher: keeps workers alive until every stage run is settled, watches the files, and draws."""

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import replace
from pathlib import Path
from types import FrameType

from rich.console import Console
from rich.live import Live

from indelible.errors import UserError
from indelible.lab import failures, watch
from indelible.lab.executors.base import Executor, WorkerSettings
from indelible.lab.executors.local import LocalExecutor
from indelible.lab.host import default_workers, visible_gpus
from indelible.lab.lease import LEASE_SECONDS
from indelible.lab.runs import Board, Plan, Status, has_other_spec, load_plan, plan_stamp
from indelible.lab.worker import ENGINE, sweep_leftovers

EXECUTORS = ("local", "slurm")
_LOOK_SECONDS = 0.25  # between two looks at the files
_STOP_SECONDS = 120.0  # given to workers to save after a stop was asked for


def run_plan(
    out: Path,
    workers: int | None = None,
    executor: str = "local",
    *,
    max_attempts: int = failures.MAX_ATTEMPTS,
    lease_seconds: float = LEASE_SECONDS,
    engine: str = ENGINE,
    console: Console | None = None,
) -> int:
    """Runs everything in ``<out>/plan.json`` that is not done yet.

    Args:
        out: study folder.
        workers: worker processes; None: as many as the machine carries.
        executor: ``local`` or ``slurm``.
        max_attempts: attempts in a row that a run may lose to the infrastructure.
        lease_seconds: patience with a silent worker on another host.
        engine: module:function that runs a stage.
        console: where to draw; standard output by default.

    Returns:
        0 when every run is done or diverged, 1 when some run failed or is blocked, or the launch was stopped.

    Raises:
        UserError: the request is wrong: no plan, another spec in a run folder, a folder that cannot be written,
            an unknown executor, fewer than one worker.
    """
    console = console or Console()
    if executor not in EXECUTORS:
        raise UserError(f"--executor {executor}: expected one of {', '.join(EXECUTORS)}.")
    if workers is not None and workers < 1:
        raise UserError(f"--workers {workers}: at least 1 is needed.")
    plan = load_plan(out)
    _check_specs(plan)
    board = Board(plan, lease_seconds)
    if _is_finished(board):
        snapshot = _look(board, 0)
        with suppress(OSError):  # a folder that may only be read is no reason to fail now
            _sweep(snapshot, plan)
        console.print(f"{watch.summary(snapshot)}. Nothing to do.", markup=False, highlight=False)
        return 0
    _check_writable(plan.out)
    failures.clear_failures(plan.run_dir(run_id) for run_id in plan.runs)
    settings = WorkerSettings(out.resolve(), engine, lease_seconds, max_attempts)
    pool = _executor(executor, settings, plan, workers, _unsettled(board))
    trouble = _supervise(board, pool, console)
    snapshot = _look(board, 0)
    _sweep(snapshot, plan)
    console.print(
        watch.render(snapshot, width=console.width) if console.is_terminal else watch.summary(snapshot), highlight=False
    )
    if trouble:
        console.print(f"Stopped: {trouble}. The same command continues.", style="bold", markup=False, highlight=False)
    has_failed = any(state.status in (Status.FAILED, Status.BLOCKED) for state in snapshot.states.values())
    return 1 if trouble or has_failed or not snapshot.is_settled else 0


def _executor(name: str, settings: WorkerSettings, plan: Plan, workers: int | None, unsettled: int) -> Executor:
    workers = workers or plan.execution.get("workers")
    if name == "slurm":
        from indelible.lab.executors.slurm import SlurmExecutor

        return SlurmExecutor(settings, workers, plan.execution, unsettled)
    device, per_run = str(plan.execution.get("device") or "auto"), int(plan.execution.get("devices_per_run") or 1)
    gpus = [] if device == "cpu" else visible_gpus()
    if gpus and per_run > len(gpus):
        raise UserError(
            f"execution.devices_per_run = {per_run}, and this machine shows {len(gpus)} GPU(s) ({', '.join(gpus)}); "
            "lower it, or make more visible (CUDA_VISIBLE_DEVICES)."
        )
    num_workers = workers or default_workers(device, unsettled, per_run, plan.resume_bytes)
    return LocalExecutor(settings, num_workers, plan.execution)


def _look(board: Board, workers: int) -> watch.Snapshot:
    snapshot = watch.Snapshot(board.plan.name, board.scan(), workers)
    return replace(snapshot, workers=max(workers, len(snapshot.running)))


def snapshot_of(out: Path, lease_seconds: float = LEASE_SECONDS) -> watch.Snapshot:
    """One look at a study folder, for `status`.

    Raises:
        UserError: the folder has no plan.
    """
    return _look(Board(load_plan(out), lease_seconds), 0)


def _unsettled(board: Board) -> int:
    return sum(state.status in (Status.PLANNED, Status.RUNNING) for state in board.scan().values())


def _is_finished(board: Board) -> bool:
    return all(state.status in (Status.DONE, Status.DIVERGED) for state in board.scan().values())


def _check_specs(plan: Plan) -> None:
    for run_id, run in plan.runs.items():
        if has_other_spec(plan.run_dir(run_id), run):
            raise UserError(
                f"{plan.run_dir(run_id)}/spec.json is not the spec that plan.json has for this run; the folder was "
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


def _sweep(snapshot: watch.Snapshot, plan: Plan) -> None:
    """Removes the resume state of finished runs whose worker was killed before it could."""
    for run_id, state in snapshot.states.items():
        run_dir = plan.run_dir(run_id)
        if state.result is not None and (run_dir / "resume").is_dir():
            sweep_leftovers(run_dir)


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


def _supervise(board: Board, pool: Executor, console: Console) -> str | None:
    """Watches until everything is settled; why it ended before, or None."""
    started = time.monotonic()
    plain = watch.PlainLines(console)
    drawing = Live(console=console, auto_refresh=False, transient=True) if console.is_terminal else nullcontext()
    with _signals() as signals, drawing as live:
        pool.start()
        try:
            while True:
                if plan_stamp(board.plan.out) != board.plan.stamp:
                    board.replan(load_plan(board.plan.out))
                snapshot = _look(board, pool.num_workers)
                if live is not None:
                    live.update(watch.render(snapshot, time.monotonic() - started, console.width), refresh=True)
                else:
                    plain.update(snapshot)
                if snapshot.is_settled:
                    _wait_idle(pool, _STOP_SECONDS, [])
                    return None
                if signals and pool.farewell is not None:
                    return f"asked to stop. {pool.farewell}"
                if signals:
                    console.print("Stopping: workers save their state. Once more to stop at once.")
                    return _stop(pool, signals, "asked to stop")
                unsettled = sum(snapshot.counts[status.value] for status in (Status.PLANNED, Status.RUNNING))
                trouble = pool.poll(unsettled)
                if trouble:
                    return _stop(pool, signals, trouble)
                time.sleep(_LOOK_SECONDS)
        except BaseException:
            pool.kill()
            raise


def _stop(pool: Executor, signals: list[int], reason: str) -> str:
    pool.stop()
    _wait_idle(pool, _STOP_SECONDS, signals)
    return reason


def _wait_idle(pool: Executor, seconds: float, signals: list[int]) -> None:
    """Waits until all workers have left; kills them after ``seconds`` or at the next signal."""
    deadline, received = time.monotonic() + seconds, len(signals)
    while not pool.is_idle():
        if time.monotonic() > deadline or len(signals) > received:
            pool.kill()
            return
        time.sleep(0.05)
