"""Worker processes on this machine."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from indelible.lab.executors.base import WorkerSettings
from indelible.lab.host import visible_gpus
from indelible.lab.worker import EXIT_DISK, EXIT_REPLACE

_RESTART_SECONDS = 0.5  # pause before a worker that died is replaced, doubled each time one crashes at birth
_YOUNG_SECONDS = 10.0  # a worker that crashes sooner than this after its start did no useful work
_MAX_YOUNG_CRASHES = 5  # in a row on one place; then something is wrong with the installation


def worker_environment(threads: int, gpus: str | None) -> dict[str, str]:
    """Environment of a worker process: its threads, its GPUs, and one compile cache for all."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "indelible" / "inductor"
    threads_text = str(threads)
    environment = {
        **os.environ,
        **{f"{library}_NUM_THREADS": threads_text for library in ("OMP", "MKL", "OPENBLAS")},
        "OMP_WAIT_POLICY": "PASSIVE",  # spinning threads of one worker starve the others
        "TOKENIZERS_PARALLELISM": "false",
        "PYTHONUNBUFFERED": "1",
    }
    environment.setdefault("TORCHINDUCTOR_CACHE_DIR", str(cache))
    environment.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # asked for by deterministic algorithms on CUDA
    if gpus is not None:
        environment["CUDA_VISIBLE_DEVICES"] = gpus
    return environment


class _Place:
    """One worker slot and the process in it."""

    def __init__(self, label: str, gpus: str | None) -> None:
        self.label = label
        self.gpus = gpus
        self.process: subprocess.Popen[bytes] | None = None
        self.started = 0.0
        self.young_crashes = 0
        self.start_at = 0.0

    def bury(self, code: int, now: float) -> None:
        """Notes the end of the process; decides when the next one may start."""
        self.process = None
        if code in (0, EXIT_REPLACE):
            return
        # killed from outside is bad luck, which the run's attempts count; a crash at birth would come again
        is_young_crash = code > 0 and now - self.started < _YOUNG_SECONDS
        self.young_crashes = self.young_crashes + 1 if is_young_crash else 0
        self.start_at = now + _RESTART_SECONDS * 2**self.young_crashes


class LocalExecutor:
    """Keeps ``num_workers`` processes alive, each in a session of its own so that Ctrl-C reaches only the launcher."""

    def __init__(
        self, settings: WorkerSettings, num_workers: int, execution: dict[str, Any], prefix: str | None = None
    ) -> None:
        self._settings = settings
        self._threads = int(execution.get("threads") or 1)
        gpus = [] if execution.get("device") == "cpu" else visible_gpus()
        prefix = prefix or socket.gethostname().split(".")[0]
        self._logs = settings.out / "workers"
        per_run = int(execution.get("devices_per_run") or 1)
        shares = [",".join(gpus[first : first + per_run]) for first in range(0, len(gpus) - per_run + 1, per_run)]
        self._places = [
            _Place(f"{prefix}-w{index}", shares[index % len(shares)] if shares else None)
            for index in range(num_workers)
        ]

    @property
    def num_workers(self) -> int:
        """Workers it means to keep."""
        return len(self._places)

    @property
    def farewell(self) -> None:
        """Workers of this machine end with the launcher."""
        return None

    def _spawn(self, place: _Place) -> None:
        self._logs.mkdir(parents=True, exist_ok=True)
        arguments = [*self._settings.arguments(place.label), "--launcher-pid", str(os.getpid())]
        with open(self._logs / f"{place.label}.log", "ab") as log:
            place.process = subprocess.Popen(
                [sys.executable, "-m", "indelible.lab.worker", *arguments],
                env=worker_environment(self._threads, place.gpus),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        place.started = time.monotonic()

    def start(self) -> None:
        """Starts the workers."""
        for place in self._places:
            self._spawn(place)

    def poll(self, ready_or_running: int) -> str | None:
        """Replaces workers that died, no more than there are runs left; a message when it cannot go on."""
        now = time.monotonic()
        alive = 0
        for place in self._places:
            code = place.process.poll() if place.process is not None else None
            if place.process is not None and code is None:
                alive += 1
                continue
            if place.process is not None and code is not None:
                place.bury(code, now)
                if code == EXIT_DISK:
                    return f"nothing more can be written to {self._settings.out}: its disk is full or read-only"
                if place.young_crashes >= _MAX_YOUNG_CRASHES:
                    log = self._logs / f"{place.label}.log"
                    return f"worker {place.label} ended {place.young_crashes} times right after its start; see {log}"
        for place in self._places:
            if place.process is None and alive < ready_or_running and now >= place.start_at:
                self._spawn(place)
                alive += 1
        return None

    def is_idle(self) -> bool:
        """True when no worker is left."""
        return all(place.process is None or place.process.poll() is not None for place in self._places)

    def _signal(self, signum: int) -> None:
        for place in self._places:
            if place.process is not None and place.process.poll() is None:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(place.process.pid, signum)

    def stop(self) -> None:
        """Asks all workers to save and leave."""
        self._signal(signal.SIGTERM)

    def kill(self) -> None:
        """Ends all workers, with what they may have started, without asking."""
        self._signal(signal.SIGKILL)
        for place in self._places:
            if place.process is not None:
                place.process.wait()
