"""Worker processes in Slurm jobs, submitted by submitit.

A feeding launcher, not one job per run and no dependencies between jobs: the jobs of a launch are one array of equal
allocations, and in each a few long-lived workers choose what is ready from the run folder, exactly as they do locally.
So thousands of short runs cost a handful of queue entries, a failed parent never leaves a job that waits for ever
(`afterok` does), and the launcher may be closed: jobs go on without it, Slurm puts them back after a preemption or a
node's death, and a launcher that is opened again only tops up what is missing.
"""

import getpass
import os
import signal
import subprocess
import sys
import threading
import time
from typing import Any

import submitit
from submitit.helpers import DelayedSubmission

from indelible.errors import UserError
from indelible.files import read_json, write_json
from indelible.lab.executors.base import WorkerSettings
from indelible.lab.executors.local import LocalExecutor
from indelible.lab.runs import Board, Status, load_plan, plan_stamp

DEFAULT_JOBS = 4  # where nobody said how many
_LOOK_SECONDS = 1.0  # inside a job, between two looks at the files
_ASK_SECONDS = 3.0  # between two questions to Slurm
_ANSWER_SECONDS = 60  # given to one of Slurm's commands
_SIGNAL_SECONDS = 120  # before its time limit a job is told to save
_ENDING_SECONDS = 600  # longest wait for Slurm to end a job that it asked to end
_MAX_REQUEUES = 1000  # after time limits; preemptions are not counted by submitit
_MAX_FRUITLESS = 3  # submissions in a row in which no run was finished


class WorkerJob:
    """What runs inside one allocation: a small pool of local workers. submitit stores it as arguments and a name."""

    def __init__(self, settings: WorkerSettings, num_workers: int, execution: dict[str, Any]) -> None:
        self.settings = settings
        self.num_workers = num_workers
        self.execution = execution

    def __call__(self) -> str:
        """Works until everything in the plan is settled.

        Raises:
            RuntimeError: the workers cannot go on; Slurm then shows the job as failed.
        """
        if os.environ.get("SLURM_PROCID", "0") != "0":
            return "the first task of the job does the work"  # the other nodes are reached by torchrun
        board = Board(load_plan(self.settings.out), self.settings.lease_seconds)
        prefix = f"job{os.environ.get('SLURM_JOB_ID', '')}-{os.environ.get('SLURMD_NODENAME', '')}"
        _Running.pool = pool = LocalExecutor(self.settings, self.num_workers, self.execution, prefix)
        # Slurm asks first and kills later: at a preemption, at scancel, at the time limit
        signal.signal(signal.SIGTERM, lambda signum, frame: _Running.is_ending.set())
        pool.start()
        while not _Running.is_ending.wait(_LOOK_SECONDS):
            if plan_stamp(self.settings.out) != board.plan.stamp:
                board.replan(load_plan(self.settings.out))
            counts = [state.status for state in board.scan().values()]
            unsettled = sum(status in (Status.PLANNED, Status.RUNNING) for status in counts)
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
        return DelayedSubmission(WorkerJob(self.settings, self.num_workers, self.execution))


class _Running:
    """The state of this process; not part of WorkerJob, which has to be stored."""

    pool: LocalExecutor | None = None
    is_ending = threading.Event()


def sbatch_options(execution: dict[str, Any]) -> dict[str, Any]:
    """submitit's parameters for ``execution.slurm``, in submitit's names."""
    asked = execution.get("slurm") or {}
    cpus = int(asked.get("cpus_per_task") or 1)
    nodes = int(asked.get("nodes") or 1)
    options = {
        "partition": asked.get("partition"),
        "account": asked.get("account"),
        "constraint": asked.get("constraint"),
        "time": int(asked.get("time_minutes") or 240),
        "nodes": nodes,
        "ntasks_per_node": 1,
        "cpus_per_task": cpus,
        "gpus_per_node": int(asked.get("gpus_per_node") or 0) or None,
        "signal_delay_s": _SIGNAL_SECONDS,
        "stderr_to_stdout": True,
        # from Slurm 22.05 on, a step no longer inherits the job's processors
        "srun_args": [f"--cpus-per-task={cpus}"],
        "additional_parameters": {"requeue": True, **(asked.get("extra") or {})},
    }
    return {key: value for key, value in options.items() if value is not None}


def workers_per_job(execution: dict[str, Any]) -> int:
    """Workers packed into one allocation: its devices (or processors) divided by what one stage run uses."""
    asked = execution.get("slurm") or {}
    if int(asked.get("nodes") or 1) > 1:
        return 1  # one stage run spans the whole allocation
    gpus, per_run = int(asked.get("gpus_per_node") or 0), int(execution.get("devices_per_run") or 1)
    threads = int(execution.get("threads") or 1)
    return max(1, (gpus or int(asked.get("cpus_per_task") or 1) // threads) // per_run)


class SlurmExecutor:
    """Keeps ``num_jobs`` worker jobs in the queue as long as there is work."""

    def __init__(
        self, settings: WorkerSettings, num_jobs: int | None, execution: dict[str, Any], unsettled: int
    ) -> None:
        self._settings = settings
        self._execution = execution
        self._per_job = workers_per_job(execution)
        self._num_jobs = num_jobs or max(1, min(DEFAULT_JOBS, unsettled // self._per_job))
        self._folder = settings.out / "workers" / "slurm"
        self._book = settings.out / "workers" / "slurm.json"
        self._asked_at = -_ASK_SECONDS
        self._unsettled_at_submission: int | None = None
        self._fruitless = 0
        self._job_ids: list[str] = read_json(self._book)["jobs"] if self._book.exists() else []

    @property
    def num_workers(self) -> int:
        """Workers in all jobs."""
        return self._num_jobs * self._per_job

    @property
    def farewell(self) -> str:
        """What becomes of the jobs when the launcher is closed."""
        jobs = " ".join(self._job_ids)
        return f"Slurm jobs {jobs} go on; the same command watches again, `scancel {jobs}` ends them (they save first)."

    def start(self) -> None:
        """Takes up the jobs of an earlier launch and submits what is missing.

        Raises:
            UserError: Slurm refuses the request or is not here.
        """
        try:
            active = self._active()
        except subprocess.SubprocessError as error:
            told = str(getattr(error, "stderr", None) or error).strip()
            raise UserError(
                f"--executor slurm: `squeue` does not answer: {told}. Jobs of an earlier launch go on without it; "
                "run the same command again when Slurm's controller is back."
            ) from None
        if active < self._num_jobs:
            self._submit(self._num_jobs - active)

    def _submit(self, count: int) -> None:
        os.environ.pop("SUBMITIT_EXECUTOR", None)
        job = WorkerJob(self._settings, self._per_job, self._execution)
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
        write_json(self._book, {"format": 1, "jobs": self._job_ids})

    def _queued(self) -> list[str]:
        """Base ids of this folder's jobs that Slurm still has, each once."""
        return list(dict.fromkeys(self._tasks()))

    def _tasks(self) -> list[str]:
        command = ["squeue", "-h", "-r", "-u", getpass.getuser(), "-o", "%F %T"]
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
        if time.monotonic() - self._asked_at < _ASK_SECONDS:
            return None
        self._asked_at = time.monotonic()
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
