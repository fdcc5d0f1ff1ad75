"""What a worker does around the engine's call for one unit: checks before it, checks and tidies after it."""

import contextlib
import os
import shutil
import threading
from dataclasses import asdict
from pathlib import Path

from indelible.errors import UserError
from indelible.records import PlannedRun, StageResult
from indelible.scheduling.curves import lacks_curves
from indelible.scheduling.engine import Engine, Report
from indelible.scheduling.failures import set_failure_aside
from indelible.scheduling.folder import SpecFile, StudyFolder, has_other_spec
from indelible.scheduling.jobs import check_run, evaluation_job, stage_job
from indelible.scheduling.lease import Lease, LeaseObserver, StopRequested
from indelible.scheduling.torchrun import Ranks, run_with_ranks
from indelible.scheduling.units import Unit
from indelible.train.job import EvaluationJob, Progress, StageJob

SUPERSEDED = {"result.superseded.json": "result made again", "evaluations.superseded": "evaluations made again"}


def run_unit(
    folder: StudyFolder, unit: Unit, lease: Lease, engine: Engine | str, ranks: Ranks, stop: threading.Event
) -> None:
    """Runs a unit that this process holds the lease on.

    Args:
        folder: the study.
        unit: to be run.
        lease: on it.
        engine: what does it; a ``module:function`` where it runs in processes of torchrun.
        ranks: processes for a stage run.
        stop: once set, the engine is asked to save and leave.

    Raises:
        StopRequested, LeaseLost: the engine was stopped.
        UserError: the folder holds another spec.
    """

    def progress(now: Progress) -> None:
        lease.show(**asdict(now))
        if stop.is_set():
            raise StopRequested(unit.id)

    if unit.run is not None:
        check_run(folder, unit.run)
        _check_spec(unit.folder, unit.run)
    lease.show(phase="loading")
    job = stage_job(folder, unit.run) if unit.run is not None else evaluation_job(folder, unit.checkpoint)
    _call(job, engine, ranks, lease, progress)
    if unit.run is not None:
        _check_result(folder, unit.run)
    elif missing := [*folder.missing_evaluations(unit.checkpoint), *folder.missing_tasks(unit.checkpoint)]:
        raise RuntimeError(f"{unit.id}: the engine came back without making {', '.join(missing)}.")
    with contextlib.suppress(FileNotFoundError):
        set_failure_aside(unit.folder, lease.record.generation - 1)
    sweep_leftovers(unit.folder)
    evaluations = folder.evaluations_dir(unit.checkpoint)
    if unit.run is not None and not LeaseObserver().look(evaluations).is_held:
        sweep_leftovers(evaluations)


def _call(job: StageJob | EvaluationJob, engine: Engine | str, ranks: Ranks, lease: Lease, progress: Report) -> None:
    if isinstance(engine, str):
        # evaluations need one process; not this one, whose memory of the device the ranks of the next run need
        run_with_ranks(job, ranks if isinstance(job, StageJob) else Ranks(), engine, lease, progress)
    elif isinstance(job, StageJob):
        engine.run_stage(job, progress=progress, guard=lease.guard)
    else:
        engine.run_evaluations(job, progress=progress, guard=lease.guard)


def _check_spec(run_dir: Path, run: PlannedRun) -> None:
    if has_other_spec(run_dir, run):
        raise UserError(
            f"{run_dir}/spec.json is not the spec that plan.json has for this run; the folder holds the work of "
            "another study or was edited. Move it away and run the same command again."
        )
    if not (run_dir / "spec.json").exists():
        SpecFile(id=run.id, stage=run.stage, parent=run.parent, spec=run.spec).write(run_dir / "spec.json")


def _check_result(folder: StudyFolder, run: PlannedRun) -> None:
    result = StageResult.read(folder.run_dir(run.id) / "result.json")
    if result is None:
        raise RuntimeError(f"{run.id}: the engine came back without writing result.json.")
    if lacks_curves(folder, run, result):
        raise RuntimeError(f"{run.id}: the engine came back without recording the curves that were asked for.")


def set_superseded_aside(folder: StudyFolder, run_id: str) -> None:
    """Keeps the result and the evaluations of a run that is made again: on another machine they may differ in bits."""
    run_dir, evaluations = folder.run_dir(run_id), folder.evaluations_dir(run_id)
    if evaluations.is_dir():
        shutil.rmtree(run_dir / "evaluations.superseded", ignore_errors=True)
        os.replace(evaluations, run_dir / "evaluations.superseded")
    os.replace(run_dir / "result.json", run_dir / "result.superseded.json")


def sweep_leftovers(folder: Path) -> None:
    """Removes what a killed worker left in a finished unit: temporary files and the resume state."""
    for path in list(folder.rglob(".*.tmp")):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)
    shutil.rmtree(folder / "resume", ignore_errors=True)
