"""Jobs of units: what an engine needs to know of a stage run or of the evaluations of a checkpoint."""

from pathlib import Path

from indelible.errors import UserError
from indelible.records import PlannedRun
from indelible.scheduling.curves import watch_of
from indelible.scheduling.folder import StudyFolder
from indelible.study.identity import canonical, check_id, given_id, part_of, task_form
from indelible.train.job import EvaluationJob, StageJob


def stage_job(folder: StudyFolder, run: PlannedRun) -> StageJob:
    """The job of a stage run, with the evaluations of its checkpoint that are not there yet.

    Raises:
        UserError: it starts from a given checkpoint that the plan does not name, or the plan was edited.
    """
    _check_evaluations(folder, run.id)
    return StageJob(
        run_dir=folder.run_dir(run.id),
        run_id=run.id,
        stage=run.stage,
        spec=run.spec,
        start_dir=_start_dir(folder, run),
        tokens_dir=folder.tokens_dir,
        execution=folder.plan.execution,
        watch=watch_of(folder, run),
        watch_stores=folder.plan.stores,
        heldout=tuple(folder.plan.heldout[kind] for kind in folder.plan.evaluations.get(run.id, {}).values()),
        evaluations_dir=folder.evaluations_dir(run.id),
        evaluations=folder.missing_evaluations(run.id),
    )


def check_run(folder: StudyFolder, run: PlannedRun) -> None:
    """Checks that a stage run of the plan is what its id says, before anything of it is written.

    Raises:
        UserError: its spec was edited.
    """
    check_id(run.id, run.spec, folder.out / "plan.json")


def _check_evaluations(folder: StudyFolder, checkpoint: str) -> None:
    """The same of the evaluations of a checkpoint, also those that are there: curves are taken on their windows."""
    plan, place = folder.plan, folder.out / "plan.json"
    for name, kind in plan.evaluations.get(checkpoint, {}).items():
        check_id(name, canonical(plan.heldout[kind]) | {"checkpoint": checkpoint}, place)
    for name, kind in plan.task_evaluations.get(checkpoint, {}).items():
        check_id(name, task_form(plan.tasks[kind], checkpoint), place)


def _start_dir(folder: StudyFolder, run: PlannedRun) -> Path | None:
    if run.parent is not None:
        return folder.checkpoint_dir(run.parent)
    place = folder.out / "plan.json"
    if part_of(run.spec, place, "init", of=(dict, type(None))) is None:
        return None
    given = given_id(part_of(run.spec, place, "init", "sha256", of=str))
    if given not in folder.plan.given:
        raise UserError(f"{folder.out}/plan.json names no folder for {given}, from which {run.id} starts.")
    return folder.checkpoint_dir(given)


def evaluation_job(folder: StudyFolder, checkpoint: str) -> EvaluationJob:
    """The job of the evaluations of a checkpoint that are not there yet.

    Raises:
        UserError: the plan was edited.
    """
    _check_evaluations(folder, checkpoint)
    return EvaluationJob(
        checkpoint=checkpoint,
        checkpoint_dir=folder.checkpoint_dir(checkpoint),
        tokenizer_dir=folder.tokens_dir / folder.plan.tokenizer,
        tokens_dir=folder.tokens_dir,
        evaluations_dir=folder.evaluations_dir(checkpoint),
        evaluations=folder.missing_evaluations(checkpoint),
        tasks=folder.missing_tasks(checkpoint),
        execution=folder.plan.execution,
    )
