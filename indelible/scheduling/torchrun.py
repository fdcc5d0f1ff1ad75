"""One stage run over several devices or nodes: a worker starts torchrun and speaks with its first rank through files.

All of them lie beside the lease of the attempt: ``<n>.job.json`` (what to do), ``<n>.progress`` (a heartbeat),
``<n>.stop`` (save and leave), ``<n>.error.json`` (why a rank failed). The ranks are `indelible.scheduling.rank`.
"""

import os
import socket
import subprocess
import sys
import time
import zlib
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel, TypeAdapter, ValidationError

from indelible.files import write_text
from indelible.host import Owner
from indelible.scheduling.engine import Report
from indelible.scheduling.failures import Cause, RankFailed
from indelible.scheduling.lease import Lease, LeaseLost, StopRequested
from indelible.scheduling.processes import end_groups
from indelible.study.execution import ExecutionSpec
from indelible.train.job import EvaluationJob, Progress, StageJob

_LOOK_SECONDS = 0.2
_SAVE_SECONDS = 120.0  # given to the ranks to save after a stop was requested
_TERM_SECONDS = 10.0  # given to torchrun to end its ranks
# Slurm signals every process of a step before a time limit; torchrun and its ranks inherit that this one is ignored
_IGNORING_USR2 = ("sh", "-c", 'trap "" USR2; exec "$@"', "sh")

PROGRESS = TypeAdapter(Progress)


@dataclass(frozen=True)
class Ranks:
    """How many processes work on one unit."""

    nodes: int = 1
    per_node: int = 1

    @property
    def total(self) -> int:
        """All ranks."""
        return self.nodes * self.per_node

    @classmethod
    def of(cls, execution: ExecutionSpec) -> "Ranks":
        """As the study requests: ``devices_per_run`` on one machine, or all nodes of a Slurm job with several."""
        nodes = execution.slurm.nodes if "SLURM_JOB_ID" in os.environ else 1
        if nodes == 1:
            return cls(1, execution.devices_per_run)
        return cls(nodes, max(execution.devices_per_run, execution.slurm.gpus_per_node))


class RankTask(BaseModel):
    """What every rank of an attempt is given, in ``<n>.job.json``."""

    engine: str  # module:function
    generation: int  # of the lease
    owner: Owner  # the worker that holds it
    lease_folder: Path  # of the unit
    stage: StageJob | None = None  # one of the two
    evaluations: EvaluationJob | None = None


@dataclass(frozen=True)
class Exchange:
    """The files by which a worker and the ranks of attempt ``generation`` speak."""

    folder: Path  # of the unit
    generation: int

    def _path(self, name: str) -> Path:
        return self.folder / "lease" / f"{self.generation}.{name}"

    @property
    def job(self) -> Path:
        """The task: job, engine, and the worker that owns the lease."""
        return self._path("job.json")

    @property
    def progress(self) -> Path:
        """The latest heartbeat of the first rank."""
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
        name = f"{exchange.folder.name}-{exchange.generation}"
        port = 20_000 + zlib.crc32(name.encode()) % 20_000  # jobs that share a node must not meet
        command += [f"--nnodes={ranks.nodes}", "--rdzv-backend=c10d", f"--rdzv-id={name}"]
        command += [f"--rdzv-endpoint={socket.gethostname()}:{port}"]
    command = [*_IGNORING_USR2, *command, "-m", "indelible.scheduling.rank", str(exchange.job)]
    if ranks.nodes > 1:
        # the worker's own step holds the allocation; this one shares it
        steps = [f"--nodes={ranks.nodes}", f"--ntasks={ranks.nodes}", "--ntasks-per-node=1", "--kill-on-bad-exit=1"]
        command = ["srun", "--overlap", *steps, *command]
    return command


def run_with_ranks(job: StageJob | EvaluationJob, ranks: Ranks, engine: str, lease: Lease, progress: Report) -> None:
    """Runs a unit in processes that torchrun starts.

    Args:
        job: the stage run or the evaluations.
        ranks: how many processes.
        engine: module:function that every rank calls for a stage.
        lease: this worker's lease on the unit; the ranks check it before they write.
        progress: as `run_stage` takes it; may raise StopRequested.

    Raises:
        RankFailed: a rank failed; StopRequested, LeaseLost: as `run_stage`.
    """
    generation, is_stage = lease.record.generation, isinstance(job, StageJob)
    exchange = Exchange(lease.folder, generation)
    jobs = {"stage": job} if is_stage else {"evaluations": job}
    task = RankTask(engine=engine, generation=generation, owner=lease.record.owner, lease_folder=lease.folder, **jobs)
    write_text(exchange.job, task.model_dump_json(indent=1) + "\n")
    before = _stamp(lease.folder / "result.json")  # a run that is made again for its curves has one
    process = subprocess.Popen(torchrun_command(ranks, exchange), start_new_session=True)
    try:
        _follow(process, exchange, lease, progress)
    finally:
        end_groups([process], _TERM_SECONDS)
    cause = _read_cause(exchange.error)
    exchange.clear()
    # ranks may abort while the interpreter ends although all is written: the result decides, not the exit code
    is_written = is_stage and _stamp(lease.folder / "result.json") != before
    if is_written or (cause is None and process.returncode == 0):
        return
    if cause is None:
        message = f"torchrun ended with code {process.returncode} and no rank said why; see the worker's log"
        cause = Cause(kind="infrastructure", type="RankDied", message=message)
    if cause.type == "LeaseLost":
        raise LeaseLost(cause.message)
    if cause.type == "StopRequested":
        raise StopRequested(lease.folder.name)
    raise RankFailed(cause)


def _stamp(path: Path) -> tuple[int, int] | None:
    try:
        info = path.stat()
    except OSError:
        return None
    return info.st_ino, info.st_mtime_ns


def _read_cause(path: Path) -> Cause | None:
    try:
        return Cause.model_validate_json(path.read_bytes())
    except (OSError, ValidationError):
        return None


def _read_progress(path: Path) -> Progress | None:
    try:
        return PROGRESS.validate_json(path.read_bytes())
    except (OSError, ValidationError):
        return None


def _follow(process: "subprocess.Popen[bytes]", exchange: Exchange, lease: Lease, progress: Report) -> None:
    """Passes on the ranks' heartbeats and a request to stop; returns when they have ended, or must."""
    deadline = None
    while process.poll() is None:
        reported = _read_progress(exchange.progress)
        try:
            if reported is not None:
                progress(reported)
        except StopRequested:
            if deadline is None:
                write_text(exchange.stop, "")
                deadline = time.monotonic() + _SAVE_SECONDS
        if lease.is_lost or (deadline is not None and time.monotonic() > deadline):
            return
        time.sleep(_LOOK_SECONDS)
