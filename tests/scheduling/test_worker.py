"""The worker in this process: what it checks before, around and after a stage."""

import errno
import json
import os
import pickle
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from indelible.errors import UserError
from indelible.scheduling import failures, launcher
from indelible.scheduling.engine import Engine, load_engine
from indelible.scheduling.executors import local, slurm
from indelible.scheduling.folder import SpecFile, StudyFolder
from indelible.scheduling.lease import Lease
from indelible.scheduling.settings import WorkerSettings
from indelible.scheduling.snapshot import snapshot_of
from indelible.scheduling.worker import EXIT_DISK, EXIT_REPLACE, Worker
from indelible.study.execution import ExecutionSpec
from indelible.train.job import Progress, StageJob


def _one(fake: ModuleType, tmp_path: Path, **spec: Any) -> Path:
    return fake.make_plan(tmp_path / "out", [("pretrain-a", None, {"steps": 3, **spec})])


def _engine(fake: ModuleType) -> Engine:
    return Engine(fake.run_stage, fake.run_evaluations)


def test_engine_that_does_not_exist() -> None:
    for reference in ("no.such.module:f", "json:no_such_function", "nonsense"):
        with pytest.raises(UserError, match=r"expected an importable module:function"):
            load_engine(reference)


def test_job_is_complete(tmp_path: Path, fake: ModuleType) -> None:
    out = fake.make_plan(
        tmp_path / "out",
        [("pretrain-a", None, {}), ("finetune-b", "pretrain-a", {"steps": 1})],
        execution={"threads": 1},
    )
    jobs: list[StageJob] = []

    def engine(job: StageJob, *, progress: Callable[[Progress], None], guard: Callable[[], None]) -> None:
        jobs.append(job)
        fake.run_stage(job, progress=progress, guard=guard)

    assert Worker(out, "w", engine=Engine(engine, fake.run_evaluations)).work() == 0
    child, spec = jobs[1], {"init": None, "steps": 1}
    assert child.run_dir == out / "runs" / "finetune-b"
    assert child.start_dir == out / "runs" / "pretrain-a" / "checkpoint"
    assert child.tokens_dir == out / "tokens"
    assert child.evaluations_dir == out / "evaluations" / "finetune-b"
    assert list(child.evaluations) == [fake.evaluation_name("finetune-b", "music")]
    assert child.execution == ExecutionSpec(threads=1)
    assert (child.run_id, child.stage, child.spec) == ("finetune-b", "finetune", spec)
    head = json.loads((child.run_dir / "spec.json").read_text())
    assert head == {"format": 1, "id": "finetune-b", "stage": "finetune", "parent": "pretrain-a", "spec": spec}


def test_engine_without_a_result_is_a_failure(tmp_path: Path, fake: ModuleType) -> None:
    out = _one(fake, tmp_path)
    assert Worker(out, "w", engine=Engine(lambda job, *, progress, guard: None, fake.run_evaluations)).work() == 0
    failure = json.loads((out / "runs" / "pretrain-a" / "failure.json").read_text())
    assert failure["message"] == "pretrain-a: the engine came back without writing result.json."


def test_other_spec_in_the_folder_fails_the_run_and_leaves_its_files(tmp_path: Path, fake: ModuleType) -> None:
    out = _one(fake, tmp_path)
    run_dir = out / "runs" / "pretrain-a"
    run_dir.mkdir(parents=True)
    other = SpecFile(id="pretrain-a", stage="pretrain", parent=None, spec={"steps": 99})
    other.write(run_dir / "spec.json")
    assert Worker(out, "w", engine=_engine(fake)).work() == 0
    assert "is not the spec that plan.json has for this run" in (run_dir / "failure.json").read_text()
    assert SpecFile.read(run_dir / "spec.json").spec == {"steps": 99}


@pytest.mark.parametrize(("how", "code"), [("full", EXIT_DISK), ("memory", EXIT_REPLACE)])
def test_process_ends_when_it_cannot_be_trusted(tmp_path: Path, fake: ModuleType, how: str, code: int) -> None:
    out = _one(fake, tmp_path, fail={"how": how, "at": 1})
    assert Worker(out, "w", engine=_engine(fake)).work() == code


def test_full_disk_between_two_runs(tmp_path: Path, fake: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    out = _one(fake, tmp_path)
    monkeypatch.setattr(Lease, "take", full)
    assert Worker(out, "w", engine=_engine(fake)).work() == EXIT_DISK


def test_lost_lease_leaves_everything_to_the_thief(tmp_path: Path, fake: ModuleType) -> None:
    out = _one(fake, tmp_path, steps=50, step_seconds=0.01)
    run_dir = out / "runs" / "pretrain-a"
    thieves: list[Lease | None] = []

    def engine(job: StageJob, *, progress: Callable[[Progress], None], guard: Callable[[], None]) -> None:
        thieves.append(Lease.take(run_dir, 2, "thief"))
        worker.stop.set()  # so that the worker does not wait for the thief
        fake.run_stage(job, progress=lambda now: None, guard=guard)

    worker = Worker(out, "w", engine=Engine(engine, fake.run_evaluations))
    assert worker.work() == 0
    assert {path.name for path in run_dir.iterdir()} == {"lease", "spec.json"}
    assert snapshot_of(out).counts["running"] == 1
    assert thieves[0] is not None
    thieves[0].release("stopped")


@pytest.mark.parametrize(
    ("error", "is_infrastructure"),
    [
        (MemoryError(), True),
        (OSError(errno.EIO, "Input/output error"), True),
        (OSError(errno.ENOSPC, "No space left on device"), True),
        (PermissionError(errno.EACCES, "Permission denied"), True),
        (RuntimeError("CUDA error: an illegal memory access was encountered"), True),
        (RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory"), True),
        (OSError("14855 requested and 10176 written"), True),
        (RuntimeError("I/O error: No space left on device (os error 28)"), True),
        (FileNotFoundError(errno.ENOENT, "No such file"), False),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), False),
        (UserError("corpus 'music' is smaller than asked"), False),
        (KeyError("lr"), False),
    ],
)
def test_which_errors_are_of_the_infrastructure(error: Exception, is_infrastructure: bool) -> None:
    assert failures.is_infrastructure(error) is is_infrastructure


def test_environment_of_a_worker(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("INDELIBLE_CACHE", str(tmp_path))
    monkeypatch.delenv("TORCHINDUCTOR_CACHE_DIR", raising=False)
    found = local.worker_environment(2, "1,3")
    assert (found["OMP_NUM_THREADS"], found["OMP_WAIT_POLICY"], found["CUDA_VISIBLE_DEVICES"]) == (
        "2",
        "PASSIVE",
        "1,3",
    )
    assert found["TORCHINDUCTOR_CACHE_DIR"] == str(tmp_path / "inductor")


def test_devices_are_shared_out_among_workers(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("indelible.host._num_gpus", lambda: 8)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1,2,3")
    settings = WorkerSettings(out=tmp_path)
    pairs = local.LocalExecutor(settings, 2, ExecutionSpec(devices_per_run=2))
    assert [slot.gpus for slot in pairs.slots] == ["0,1", "2,3"]
    singles = local.LocalExecutor(settings, 5, ExecutionSpec())
    assert [slot.gpus for slot in singles.slots] == ["0", "1", "2", "3", "0"]
    assert [slot.gpus for slot in local.LocalExecutor(settings, 1, ExecutionSpec(device="cpu")).slots] == [None]


@pytest.mark.parametrize(
    ("code", "text"),
    [
        (3, "with code 3"),
        (-9, "by SIGKILL (out of memory?)"),
        (-11, "by SIGSEGV"),
        (-63, "by signal 63"),
    ],
)
def test_how_a_worker_ended(code: int, text: str) -> None:
    assert local.exit_text(code) == text


def test_what_slurm_is_asked_for() -> None:
    asked = {"partition": "gpu", "account": "abc", "time_minutes": 30, "nodes": 1, "gpus_per_node": 4}
    asked |= {"cpus_per_task": 8, "constraint": "a100", "extra": {"qos": "long"}}
    options = slurm.sbatch_options(ExecutionSpec(slurm=asked))
    assert (options["partition"], options["account"], options["constraint"]) == ("gpu", "abc", "a100")
    assert (options["time"], options["gpus_per_node"], options["cpus_per_task"]) == (30, 4, 8)
    assert options["additional_parameters"] == {"requeue": True, "qos": "long"}
    assert slurm.workers_per_job(ExecutionSpec(slurm=asked)) == 4
    assert slurm.workers_per_job(ExecutionSpec(slurm=asked, devices_per_run=2)) == 2
    assert slurm.workers_per_job(ExecutionSpec(slurm={"cpus_per_task": 8}, threads=2)) == 4
    assert slurm.workers_per_job(ExecutionSpec(slurm={"nodes": 2, "gpus_per_node": 8})) == 1
    assert slurm.workers_per_job(ExecutionSpec()) == 1


def test_a_job_is_stored_as_text(tmp_path: Path) -> None:
    settings = WorkerSettings(out=tmp_path, engine="a:b", lease_seconds=5.0, max_attempts=2)
    stored = slurm.JobSettings(settings=settings, num_workers=3, execution=ExecutionSpec(threads=2))
    job = pickle.loads(pickle.dumps(slurm.WorkerJob(stored.model_dump_json())))  # what submitit does
    assert slurm.JobSettings.model_validate_json(job.payload) == stored


def test_jobs_are_those_of_the_user_id(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # LOGNAME may name somebody else, or nobody: jobs looked for by it would be submitted again and again
    squeue = tmp_path / "squeue"
    squeue.write_text(f"#!/bin/sh\ncase \"$*\" in *'-u {os.getuid()} '*) echo '7 RUNNING';; esac\n")
    squeue.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    monkeypatch.setenv("LOGNAME", "nobody-here")
    (tmp_path / "workers").mkdir()
    slurm.JobBook(jobs=("7",)).write(tmp_path / "workers" / "slurm.json")
    executor = slurm.SlurmExecutor(WorkerSettings(out=tmp_path), 1, ExecutionSpec(), 1)
    executor.start()  # a submission would be refused: there is no sbatch on this path
    book = slurm.JobBook.read(tmp_path / "workers" / "slurm.json")
    assert book is not None
    assert book.jobs == ("7",)


@pytest.mark.parametrize(
    ("workers", "slurm_of", "jobs"),
    [(8, {"gpus_per_node": 4}, 2), (9, {"gpus_per_node": 4}, 3), (1, {"gpus_per_node": 4}, 1),
     (6, {"cpus_per_task": 3}, 2), (3, {"nodes": 2, "gpus_per_node": 4}, 3), (None, {"gpus_per_node": 4}, 4)],
)  # fmt: skip
def test_workers_are_processes_on_slurm_as_well(
    tmp_path: Path, fake: ModuleType, workers: int | None, slurm_of: dict[str, int], jobs: int
) -> None:
    out = fake.make_plan(tmp_path, [("pretrain-a", None, {})], execution={"slurm": slurm_of})
    executor = launcher._executor("slurm", WorkerSettings(out=out), StudyFolder.open(out), workers, 100)
    assert executor._num_jobs == jobs
    assert executor.num_workers == jobs * slurm.workers_per_job(StudyFolder.open(out).plan.execution)


def test_a_controller_that_does_not_answer_is_one_message(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    squeue = tmp_path / "squeue"
    squeue.write_text("#!/bin/sh\necho 'slurm_load_jobs error: Unable to contact slurm controller' >&2\nexit 1\n")
    squeue.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    executor = slurm.SlurmExecutor(WorkerSettings(out=tmp_path), 1, ExecutionSpec(), 1)
    with pytest.raises(UserError, match=r"`squeue` does not answer: .*Unable to contact slurm controller\. Jobs of an"):
        executor.start()
    assert executor.poll(1) is None  # a launcher that is watching waits for it to come back


def test_an_error_of_a_run_that_was_asked_to_stop_is_no_failure(tmp_path: Path, fake: ModuleType) -> None:
    out = _one(fake, tmp_path)

    def killed_compiler(job: StageJob, *, progress: Callable[[Progress], None], guard: Callable[[], None]) -> None:
        worker.stop.set()  # as the signal does, which also ends the compiler that this process waits for
        raise RuntimeError("the compiler was ended by SIGTERM")

    worker = Worker(out, "w", engine=Engine(killed_compiler, fake.run_evaluations))
    assert worker.work() == 0
    assert snapshot_of(out).counts["failed"] == 0
    assert not list(out.rglob("failure.json"))
    assert Worker(out, "w", engine=_engine(fake)).work() == 0
    assert snapshot_of(out).counts["done"] == 1
