"""Curves that a plan asks of stage runs: what is to be watched, and whether a finished run has it already.

Watching changes no weight, so a finished run that lacks a curve is trained again for it and nothing else has to wait.
"""

from indelible.records import PlannedRun, StageResult
from indelible.scheduling.folder import StudyFolder
from indelible.study.training import WatchSpec


def watch_of(folder: StudyFolder, run: PlannedRun) -> WatchSpec | None:
    """The curves that are requested of a run, its corpora by name."""
    if run.watch is None or run.watch.corpora is not None:
        return run.watch
    return run.watch.model_copy(update={"corpora": tuple(sorted(folder.plan.stores))})


def lacks_curves(folder: StudyFolder, run: PlannedRun, result: StageResult) -> bool:
    """True if a run is done and the plan asks for curves that its metrics do not have.

    Where the plan names no corpora, those that are only evaluated on are not missed: a study that is given one more
    trains nothing again. Curves on it in runs that are done are requested by name.
    """
    requested, watched = run.watch, result.watched
    if requested is None or result.status != "done":
        return False
    if watched is None or watched.windows != requested.windows:
        return True
    corpora = folder.trained_corpora if requested.corpora is None else set(requested.corpora)
    has_corpora = watched.corpora is None or corpora <= set(watched.corpora)
    has_steps = watched.steps == requested.steps or (
        watched.steps is not None and requested.steps is not None and set(requested.steps) <= set(watched.steps)
    )
    return not (has_corpora and has_steps)
