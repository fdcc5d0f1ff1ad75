"""One stage run over several devices or nodes: a worker starts torchrun and speaks with its first rank through files.

All of them lie beside the lease of the attempt: ``<n>.job.json`` (what to do), ``<n>.progress`` (a sign of life),
``<n>.stop`` (save and leave), ``<n>.error.json`` (why a rank failed). The ranks are `indelible.lab.ranks`.
"""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
import zlib
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from indelible.files import write_json, write_text
from indelible.lab.lease import Lease, LeaseLost, StopRequested
from indelible.train.job import Progress, StageJob

_LOOK_SECONDS = 0.2
_SAVE_SECONDS = 120.0  # given to the ranks to save after a stop was asked for


@dataclass(frozen=True)
class Ranks:
    """How many processes train one stage run."""

    nodes: int = 1
    per_node: int = 1

    @property
    def total(self) -> int:
        """All ranks."""
        return self.nodes * self.per_node

    @classmethod
    def of(cls, execution: dict[str, Any]) -> "Ranks":
        """As the study asks: ``devices_per_run`` on one machine, or all nodes of a Slurm job with several."""
        slurm, per_node = execution.get("slurm") or {}, int(execution.get("devices_per_run") or 1)
        nodes = int(slurm.get("nodes") or 1) if "SLURM_JOB_ID" in os.environ else 1
        if nodes > 1:
            per_node = max(per_node, int(slurm.get("gpus_per_node") or 1))
        return cls(nodes, per_node)


class RankFailed(Exception):
    """A rank ended with an error. Carries what is needed to judge and to show it."""

    def __init__(self, told: dict[str, Any]) -> None:
        super().__init__(told["message"])
        self.told = told


@dataclass(frozen=True)
class Exchange:
    """The files by which a worker and the ranks of attempt ``generation`` speak."""

    run_dir: Path
    generation: int

    def _path(self, name: str) -> Path:
        return self.run_dir / "lease" / f"{self.generation}.{name}"

    @property
    def job(self) -> Path:
        """The job, its engine, and the worker that owns the lease."""
        return self._path("job.json")

    @property
    def progress(self) -> Path:
        """The latest sign of life of the first rank."""
        return self._path("progress")

    @property
    def stop(self) -> Path:
        """Exists once the ranks shall save and leave."""
        return self._path("stop")

    @property
    def error(self) -> Path:
        """Written by the first rank that fails."""
        return self._path("error.json")

    def clear(self) -> None:
        """Removes all of them."""
        for path in (self.job, self.progress, self.stop, self.error):
            path.unlink(missing_ok=True)


def torchrun_command(ranks: Ranks, exchange: Exchange) -> list[str]:
    """The command that starts all ranks of one attempt."""
    command = [sys.executable, "-m", "torch.distributed.run", f"--nproc-per-node={ranks.per_node}"]
    if ranks.nodes == 1:
        command += ["--standalone"]
    else:
        name = f"{exchange.run_dir.name}-{exchange.generation}"
        port = 20_000 + zlib.crc32(name.encode()) % 20_000  # jobs that share a node must not meet
        command += [f"--nnodes={ranks.nodes}", "--rdzv-backend=c10d", f"--rdzv-id={name}"]
        command += [f"--rdzv-endpoint={socket.gethostname()}:{port}"]
        # the worker's own step holds the allocation; this one shares it
        spread = [f"--nodes={ranks.nodes}", f"--ntasks={ranks.nodes}", "--ntasks-per-node=1", "--kill-on-bad-exit=1"]
        command = ["srun", "--overlap", *spread, *command]
    return [*command, "-m", "indelible.lab.ranks", str(exchange.job)]


def run_spread(job: StageJob, ranks: Ranks, engine: str, lease: Lease, progress: Callable[[Progress], None]) -> None:
    """Runs a stage on several ranks, to its result.json.

    Args:
        job: the stage run.
        ranks: how many processes.
        engine: module:function that every rank calls.
        lease: this worker's lease on the run; the ranks check it before they write.
        progress: as `run_stage` takes it; may raise StopRequested.

    Raises:
        RankFailed: a rank failed; StopRequested, LeaseLost: as `run_stage`.
    """
    exchange = Exchange(job.run_dir, lease.record.generation)
    paths = {key: str(value) for key, value in asdict(job).items() if isinstance(value, Path)}
    write_json(
        exchange.job,
        {
            "job": {**asdict(job), **paths},
            "engine": engine,
            "generation": lease.record.generation,
            "owner": asdict(lease.record.owner),
        },
    )
    process = subprocess.Popen(torchrun_command(ranks, exchange), start_new_session=True)
    try:
        _follow(process, exchange, lease, progress)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    told = _read(exchange.error)
    exchange.clear()
    # ranks may abort while the interpreter ends although all is written: the result decides, not the exit code
    if (job.run_dir / "result.json").exists():
        return
    if told is None:
        message = f"torchrun ended with code {process.returncode} and no rank said why; see the worker's log"
        told = {"kind": "infrastructure", "type": "RankDied", "message": message, "traceback": ""}
    if told["type"] == "LeaseLost":
        raise LeaseLost(told["message"])
    if told["type"] == "StopRequested":
        raise StopRequested(job.run_id)
    raise RankFailed(told)


def _read(path: Path) -> dict[str, Any] | None:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def _follow(
    process: "subprocess.Popen[bytes]", exchange: Exchange, lease: Lease, progress: Callable[[Progress], None]
) -> None:
    deadline = None
    while process.poll() is None:
        told = _read(exchange.progress)
        try:
            if told is not None:
                progress(Progress(**told))
        except StopRequested:
            if deadline is None:
                write_text(exchange.stop, "")
                deadline = time.monotonic() + _SAVE_SECONDS
        if lease.is_lost or (deadline is not None and time.monotonic() > deadline):
            return
        time.sleep(_LOOK_SECONDS)
