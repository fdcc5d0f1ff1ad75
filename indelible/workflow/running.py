"""Runs a study: plan, tokens, and every stage run and evaluation that is not done yet."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from indelible.data.prepare import silent
from indelible.data.store_job import Progress as Report
from indelible.errors import UserError
from indelible.scheduling.launcher import Observer, Outcome, check_launch, launch
from indelible.scheduling.run_index import Status
from indelible.scheduling.snapshot import Snapshot
from indelible.study.execution import check_workers
from indelible.study.load import Study
from indelible.workflow.loading import load_study
from indelible.workflow.planning import plan_study
from indelible.workflow.preparing import write_plan
from indelible.workflow.reading import StudyRuns


class UnfinishedStudy(UserError):
    """A study could not be run to its end: some stage run failed, or the launch was stopped. What is done is kept.

    Attributes:
        runs: the study as far as it is.
    """

    def __init__(self, message: str, runs: StudyRuns) -> None:
        super().__init__(message)
        self.runs = runs


def run(
    study: Study | str | Path | Mapping[str, Any],
    out: str | Path,
    workers: int | None = None,
    progress: Callable[[Snapshot], None] | None = None,
    *,
    executor: str = "local",
    force: bool = False,
) -> StudyRuns:
    """Runs a study, or what of it is not done yet; prints nothing.

    Args:
        study: what `load_study` gave or takes.
        out: folder of the study run; made if missing. The same call continues after anything that stopped it.
        workers: worker processes; None = those of the study, or as many as this machine carries.
        progress: called a few times a second with the state of every stage run.
        executor: ``local`` or ``slurm``.
        force: take a folder that holds another study.

    Returns:
        The runs, to be read.

    Raises:
        UserError: the request is wrong.
        UnfinishedStudy: a stage run failed, or the launch was stopped.
    """
    check_launch(workers, executor)
    loaded = study if isinstance(study, Study) else load_study(study)
    folder = Path(out)
    prepare_run(loaded, folder, workers, force=force)
    outcome = launch(folder, workers, executor, observer=_Calls(progress) if progress else None)
    runs = StudyRuns(folder)
    if outcome.exit_code:
        raise UnfinishedStudy(f"{folder}: {_what_is_open(outcome)}. The same call continues.", runs)
    return runs


def prepare_run(
    study: Study, out: Path, workers: int | None = None, *, force: bool = False, report: Report = silent
) -> None:
    """Everything before the first step: plan, checks, tokens, plan.json.

    Args:
        study: to be run.
        out: folder of the study run; made if missing.
        workers: worker processes; None = those of the study.
        force: take a folder that holds another study.
        report: called with what is being prepared and which share of it is done.

    Raises:
        UserError: the request is wrong.
    """
    check_workers(workers)
    execution = study.execution if workers is None else study.execution.model_copy(update={"workers": workers})
    write_plan(plan_study(study), out, execution, force=force, report=report)


class _Calls(Observer):
    """Hands every look to a function."""

    def __init__(self, progress: Callable[[Snapshot], None]) -> None:
        self._progress = progress

    def on_look(self, snapshot: Snapshot) -> None:
        """Calls."""
        self._progress(snapshot)


def _what_is_open(outcome: Outcome) -> str:
    states = outcome.snapshot.states
    failed = [state for state in states.values() if state.status is Status.FAILED]
    if not failed:
        done = sum(state.status in (Status.DONE, Status.DIVERGED) for state in states.values())
        return f"{outcome.trouble or 'stopped'}, {done} of {len(states)} done"
    first = failed[0]
    reason = f": {first.failure.message}" if first.failure is not None else ""
    return f"{len(failed)} of {len(states)} failed, the first {first.unit.id}{reason}"
