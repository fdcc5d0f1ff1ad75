"""Worker processes in Slurm jobs, submitted by submitit.

A feeding launcher, not one job per run and no dependencies between jobs: the jobs of a launch are one array of equal
allocations, and in each a few long-lived workers choose what is ready from the run folder, exactly as they do locally.
So thousands of short runs cost a handful of queue entries, a failed parent never leaves a job that waits for ever
(`afterok` does), and the launcher may be closed: jobs go on without it, Slurm puts them back after a preemption or a
node's death, and a launcher that is opened again only tops up what is missing.
"""

import os
import signal
import subprocess
import sys
import threading
import time
from typing import Any

import submitit
from pydantic import BaseModel
from submitit.helpers import DelayedSubmission

from indelible.errors import UserError
from indelible.records import Record
from indelible.scheduling.executors.local import LocalExecutor
from indelible.scheduling.folder import StudyFolder
from indelible.scheduling.run_index import SETTLED, RunIndex
from indelible.scheduling.settings import WorkerSettings
from indelible.study.execution import ExecutionSpec

DEFAULT_JOBS = 4  # where nobody said how many
_LOOK_SECONDS = 1.0  # inside a job, between two looks at the files
_QUERY_SECONDS = 3.0  # between two questions to Slurm
_ANSWER_SECONDS = 60  # given to one of Slurm's commands
_SIGNAL_SECONDS = 120  # before its time limit a job is asked to save
_ENDING_SECONDS = 600  # longest wait for Slurm to end a job that it asked to end
_MAX_REQUEUES = 1000  # after time limits; preemptions are not counted by submitit
_MAX_FRUITLESS = 3  # submissions in a row in which no run was finished


class JobBook(Record):
    """workers/slurm.json: the jobs of a study folder."""

    jobs: tuple[str, ...]  # base ids


class JobSettings(BaseModel):
    """What a worker job is given."""

    settings: WorkerSettings
    num_workers: int
    execution: ExecutionSpec


class WorkerJob:
    """What runs inside one allocation: a small pool of local workers. submitit stores it, as a name and JSON text."""

    def __init__(self, payload: str) -> None:
        self.payload = payload  # JobSettings

    def __call__(self) -> str:
        """Works until everything in the plan is settled.

        Raises:
            RuntimeError: the workers cannot go on; Slurm then shows the job as failed.
        """
        if os.environ.get("SLURM_PROCID", "0") != "0":
            return "the first task of the job does the work"  # the other nodes are reached by torchrun
        job = JobSettings.model_validate_json(self.payload)
        index = RunIndex(StudyFolder.open(job.settings.out), job.settings.lease_seconds)
        prefix = f"job{os.environ.get('SLURM_JOB_ID', '')}-{os.environ.get('SLURMD_NODENAME', '')}"
        _Running.pool = pool = LocalExecutor(job.settings, job.num_workers, job.execution, prefix)
        # Slurm asks first and kills later: at a preemption, at scancel, at the time limit
        signal.signal(signal.SIGTERM, lambda signum, frame: _Running.is_ending.set())
        pool.start()
        while not _Running.is_ending.wait(_LOOK_SECONDS):
            index.follow_plan()
            unsettled = sum(state.status not in SETTLED for state in index.scan().values())
            if unsettled == 0 and pool.is_idle():
                return "everything is settled"
            trouble = pool.poll(unsettled) if unsettled else None
            if trouble:
                pool.stop()
                raise RuntimeError(trouble)
        pool.stop()
        # a job that ended by itself now would count as completed, and not be put back after a preemption
        time.sleep(_ENDING_SECONDS)
        return "asked to end"

    def checkpoint(self) -> DelayedSubmission:
        """Called by submitit before the time limit and on preemption: lets the workers save, asks to be put back."""
        if _Running.pool is not None:
            _Running.pool.stop()
            deadline = time.monotonic() + _SIGNAL_SECONDS / 2
            while not _Running.pool.is_idle() and time.monotonic() < deadline:
                time.sleep(0.1)
        return DelayedSubmission(WorkerJob(self.payload))


class _Running:
    """The state of this process; not part of WorkerJob, which has to be stored."""

    pool: LocalExecutor | None = None
    is_ending = threading.Event()


def sbatch_options(execution: ExecutionSpec) -> dict[str, Any]:
    """submitit's parameters for ``execution.slurm``, in submitit's names."""
    slurm = execution.slurm
    options = {
        "partition": slurm.partition,
        "account": slurm.account,
        "constraint": slurm.constraint,
        "time": slurm.time_minutes,
        "nodes": slurm.nodes,
        "ntasks_per_node": 1,
        "cpus_per_task": slurm.cpus_per_task,
        "gpus_per_node": slurm.gpus_per_node or None,
        "signal_delay_s": _SIGNAL_SECONDS,
        "stderr_to_stdout": True,
        # from Slurm 22.05 on, a step no longer inherits the job's processors
        "srun_args": [f"--cpus-per-task={slurm.cpus_per_task}"],
        "additional_parameters": {"requeue": True, **slurm.extra},
    }
    return {key: value for key, value in options.items() if value is not None}


def workers_per_job(execution: ExecutionSpec) -> int:
    """Workers packed into one allocation: its devices (or processors) divided by what one stage run uses."""
    slurm = execution.slurm
    if slurm.nodes > 1:
        return 1  # one stage run spans the whole allocation
    devices = slurm.gpus_per_node or slurm.cpus_per_task // (execution.threads or 1)
    return max(1, devices // execution.devices_per_run)


class SlurmExecutor:
    """Keeps ``num_jobs`` worker jobs in the queue as long as there is work."""

    def __init__(
        self, settings: WorkerSettings, num_jobs: int | None, execution: ExecutionSpec, unsettled: int
    ) -> None:
        self._settings = settings
        self._execution = execution
        self._per_job = workers_per_job(execution)
        self._num_jobs = num_jobs or max(1, min(DEFAULT_JOBS, unsettled // self._per_job))
        self._folder = settings.out / "workers" / "slurm"
        self._book = settings.out / "workers" / "slurm.json"
        self._queried_at = -_QUERY_SECONDS
        self._unsettled_at_submission: int | None = None
        self._fruitless = 0
        book = JobBook.read(self._book)
        self._job_ids = list(book.jobs) if book is not None else []

    @property
    def num_workers(self) -> int:
        """Workers in all jobs."""
        return self._num_jobs * self._per_job

    @property
    def detach_note(self) -> str:
        """What becomes of the jobs when the launcher is closed."""
        jobs = " ".join(self._job_ids)
        return f"Slurm jobs {jobs} go on; the same command watches again, `scancel {jobs}` ends them (they save first)"

    def start(self) -> None:
        """Takes up the jobs of an earlier launch and submits what is missing.

        Raises:
            UserError: Slurm refuses the request or is not here.
        """
        try:
            active = self._active()
        except subprocess.SubprocessError as error:
            reason = str(getattr(error, "stderr", None) or error).strip()
            raise UserError(
                f"--executor slurm: `squeue` does not answer: {reason}. Jobs of an earlier launch go on without it; "
                "run the same command again when Slurm's controller is back."
            ) from None
        if active < self._num_jobs:
            self._submit(self._num_jobs - active)

    def _submit(self, count: int) -> None:
        os.environ.pop("SUBMITIT_EXECUTOR", None)
        settings = JobSettings(settings=self._settings, num_workers=self._per_job, execution=self._execution)
        job = WorkerJob(settings.model_dump_json())
        try:
            executor = submitit.SlurmExecutor(self._folder, max_num_timeout=_MAX_REQUEUES, python=sys.executable)
            executor.update_parameters(
                job_name=f"indelible-{self._settings.out.name}", **sbatch_options(self._execution)
            )
            with executor.batch():
                jobs = [executor.submit(job) for _ in range(count)]
        except (RuntimeError, OSError, TypeError, ValueError, submitit.core.utils.FailedJobError) as error:
            raise UserError(
                f"Slurm did not take the job: {str(error).strip()}. Check execution.slurm of the study (sbatch's names "
                "go into execution.slurm.extra), and that this machine can submit."
            ) from error
        self._job_ids = [*self._queued(), jobs[0].job_id.split("_")[0]]
        JobBook(jobs=tuple(self._job_ids)).write(self._book)

    def _queued(self) -> list[str]:
        """Base ids of this folder's jobs that Slurm still has, each once."""
        return list(dict.fromkeys(self._tasks()))

    def _tasks(self) -> list[str]:
        command = ["squeue", "-h", "-r", "-u", str(os.getuid()), "-o", "%F %T"]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=_ANSWER_SECONDS, check=True)
        except FileNotFoundError:
            raise UserError("--executor slurm: there is no `squeue` here; run it where Slurm's commands are.") from None
        lines = [line.split() for line in done.stdout.splitlines()]
        return [job for job, state in lines if job in self._job_ids and state not in ("COMPLETED", "FAILED")]

    def _active(self) -> int:
        return len(self._tasks())

    def poll(self, ready_or_running: int) -> str | None:
        """Tops up jobs that have ended while there is work for them; a message when that leads nowhere."""
        if time.monotonic() - self._queried_at < _QUERY_SECONDS:
            return None
        self._queried_at = time.monotonic()
        try:
            active = self._active()
        except subprocess.SubprocessError:
            return None  # a busy controller answers later; the jobs do not need it
        wanted = min(self._num_jobs, -(-ready_or_running // self._per_job))
        if active >= wanted:
            return None
        if self._unsettled_at_submission is not None and ready_or_running >= self._unsettled_at_submission:
            self._fruitless += 1
        else:
            self._fruitless = 0
        if self._fruitless >= _MAX_FRUITLESS:
            return (
                f"{self._fruitless} worker jobs ended one after the other without finishing a run; see {self._folder}"
            )
        self._unsettled_at_submission = ready_or_running
        self._submit(wanted - active)
        return None

    def is_idle(self) -> bool:
        """True when the launcher need not wait: jobs end by themselves once everything is settled."""
        return True

    def stop(self) -> None:
        """Leaves the jobs alone: they end by themselves, or go on without the launcher."""

    def kill(self) -> None:
        """Leaves the jobs alone."""
