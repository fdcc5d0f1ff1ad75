"""Jobs of units: what an engine needs to know of a stage run or of the evaluations of a checkpoint."""

from pathlib import Path

from indelible.errors import UserError
from indelible.records import PlannedRun
from indelible.scheduling.curves import watch_of
from indelible.scheduling.folder import StudyFolder
from indelible.study.identity import given_id, part_of
from indelible.train.job import EvaluationJob, StageJob


def stage_job(folder: StudyFolder, run: PlannedRun) -> StageJob:
    """The job of a stage run, with the evaluations of its checkpoint that are not there yet.

    Raises:
        UserError: it starts from a given checkpoint that the plan does not name.
    """
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
    """The job of the evaluations of a checkpoint that are not there yet."""
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
