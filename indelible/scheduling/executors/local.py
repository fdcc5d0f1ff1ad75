"""Worker processes on this machine."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

from indelible.corpora.sources import default_cache_dir
from indelible.host import visible_gpus
from indelible.scheduling.processes import end_groups
from indelible.scheduling.settings import WorkerSettings, WorkerStart
from indelible.scheduling.worker import EXIT_DISK, EXIT_REPLACE
from indelible.study.execution import ExecutionSpec

_RESTART_SECONDS = 0.5  # pause before a worker that died is replaced, doubled each time one dies before its first unit
_MAX_EARLY_CRASHES = 5  # in a row in one slot; then something is wrong with the installation or the machine


def worker_environment(threads: int, gpus: str | None) -> dict[str, str]:
    """Environment of a worker process: its threads, its GPUs, and one compile cache for all."""
    threads_text = str(threads)
    environment = {
        **os.environ,
        **{f"{library}_NUM_THREADS": threads_text for library in ("OMP", "MKL", "OPENBLAS")},
        "OMP_WAIT_POLICY": "PASSIVE",  # spinning threads of one worker starve the others
        "TOKENIZERS_PARALLELISM": "false",
        "PYTHONUNBUFFERED": "1",
    }
    if "TORCHINDUCTOR_CACHE_DIR" not in environment:
        environment["TORCHINDUCTOR_CACHE_DIR"] = str(default_cache_dir() / "inductor")
    environment.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS is only reproducible with a fixed workspace
    if gpus is not None:
        environment["CUDA_VISIBLE_DEVICES"] = gpus
    return environment


def exit_text(code: int) -> str:
    """How a process ended: ``with code 3``, ``by SIGKILL (out of memory?)``."""
    if code >= 0:
        return f"with code {code}"
    try:
        name = signal.Signals(-code).name
    except ValueError:
        name = f"signal {-code}"
    hints = {"SIGKILL": " (out of memory?)", "SIGILL": " (a processor that the installed torch was not built for?)"}
    return f"by {name}{hints.get(name, '')}"


class Slot:
    """A place for one worker, and the process in it."""

    def __init__(self, label: str, gpus: str | None) -> None:
        self.label = label
        self.gpus = gpus
        self.process: subprocess.Popen[bytes] | None = None
        self.early_crashes = 0  # in a row
        self.start_at = 0.0  # monotonic seconds; not before
        self._ready_fd: int | None = None  # one byte comes through when the worker has taken its first unit

    def spawn(self, settings: WorkerSettings, threads: int, log_path: Path) -> None:
        """Starts a worker, in a session of its own so that Ctrl-C reaches only the launcher."""
        self._close()
        self._ready_fd, ready_fd = os.pipe()
        start = WorkerStart(settings=settings, label=self.label, launcher_pid=os.getpid(), ready_fd=ready_fd)
        try:
            with open(log_path, "ab") as log:
                self.process = subprocess.Popen(
                    [sys.executable, "-m", "indelible.scheduling.worker", start.model_dump_json()],
                    env=worker_environment(threads, self.gpus),
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                    pass_fds=(ready_fd,),
                )
        finally:
            os.close(ready_fd)

    def on_exit(self, code: int, now: float) -> None:
        """Notes the end of the process; decides when the next one may start."""
        self.process = None
        if self._has_worked():  # what happened to it since is counted by the attempts of its unit
            self.early_crashes = 0
        elif code not in (0, EXIT_REPLACE):
            self.early_crashes += 1
        self._close()
        if code not in (0, EXIT_REPLACE):
            self.start_at = now + _RESTART_SECONDS * 2**self.early_crashes

    def _has_worked(self) -> bool:
        if self._ready_fd is None:
            return False
        os.set_blocking(self._ready_fd, False)
        try:
            return os.read(self._ready_fd, 1) == b"1"
        except BlockingIOError:  # a child of the dead worker still holds the other end
            return False

    def _close(self) -> None:
        if self._ready_fd is not None:
            os.close(self._ready_fd)
            self._ready_fd = None


class LocalExecutor:
    """Keeps ``num_workers`` processes alive."""

    def __init__(
        self, settings: WorkerSettings, num_workers: int, execution: ExecutionSpec, prefix: str | None = None
    ) -> None:
        self._settings = settings
        self._threads = execution.threads or 1
        gpus = [] if execution.device == "cpu" else visible_gpus()
        prefix = prefix or socket.gethostname().split(".")[0]
        self._logs = settings.out / "workers"
        per_run = execution.devices_per_run
        shares = [",".join(gpus[first : first + per_run]) for first in range(0, len(gpus) - per_run + 1, per_run)]
        self.slots = [
            Slot(f"{prefix}-w{index}", shares[index % len(shares)] if shares else None) for index in range(num_workers)
        ]

    @property
    def num_workers(self) -> int:
        """Workers it means to keep."""
        return len(self.slots)

    @property
    def detach_note(self) -> None:
        """Workers of this machine end with the launcher."""
        return None

    def _log(self, slot: Slot) -> Path:
        return self._logs / f"{slot.label}.log"

    def _spawn(self, slot: Slot) -> None:
        self._logs.mkdir(parents=True, exist_ok=True)
        slot.spawn(self._settings, self._threads, self._log(slot))

    def start(self) -> None:
        """Starts the workers."""
        for slot in self.slots:
            self._spawn(slot)

    def poll(self, ready_or_running: int) -> str | None:
        """Replaces workers that died, no more than there are units left; a message when it cannot go on."""
        now = time.monotonic()
        alive = 0
        for slot in self.slots:
            code = slot.process.poll() if slot.process is not None else None
            if slot.process is not None and code is None:
                alive += 1
                continue
            if code is not None:
                slot.on_exit(code, now)
                if code == EXIT_DISK:
                    return f"nothing more can be written to {self._settings.out}: its disk is full or read-only"
                if slot.early_crashes >= _MAX_EARLY_CRASHES:
                    return (
                        f"worker {slot.label} ended {slot.early_crashes} times in a row before it could take a run, "
                        f"the last time {exit_text(code)}; see {self._log(slot)}"
                    )
        for slot in self.slots:
            if slot.process is None and alive < ready_or_running and now >= slot.start_at:
                self._spawn(slot)
                alive += 1
        return None

    def is_idle(self) -> bool:
        """True when no worker is left."""
        return all(slot.process is None or slot.process.poll() is not None for slot in self.slots)

    def stop(self) -> None:
        """Asks all workers to save and leave."""
        for slot in self.slots:
            if slot.process is not None and slot.process.poll() is None:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(slot.process.pid, signal.SIGTERM)

    def kill(self) -> None:
        """Ends all workers, with the ranks that they started, without asking."""
        end_groups([slot.process for slot in self.slots if slot.process is not None])
