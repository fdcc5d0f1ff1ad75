"""What of a planned study a folder has already: results, and what is left to be trained and evaluated."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from indelible.records import StageResult, evaluation_path, run_dir
from indelible.scheduling.curves import lacks_curves
from indelible.scheduling.folder import StudyFolder
from indelible.workflow.planning import Planned
from indelible.workflow.preparing import plan_record


@dataclass(frozen=True)
class Standing:
    """How far a study is."""

    results: dict[str, StageResult]  # by run id, of the planned runs that are done or diverged and lack no curve
    unreachable: frozenset[str]  # run ids behind a diverged run: they are never made
    missing: dict[str, list[int]]  # kinds of the evaluations that are to be made, by checkpoint id
    missing_tasks: dict[str, list[int]]  # numbers of the tasks of those that are to be made, by checkpoint id
    num_evaluations: int  # planned, those of diverged and unreachable runs left out

    @property
    def settled(self) -> frozenset[str]:
        """Run ids of which nothing is left to be trained."""
        return self.unreachable.union(self.results)

    @property
    def num_missing(self) -> int:
        """Evaluations that are to be made."""
        return sum(len(kinds) for kinds in (*self.missing.values(), *self.missing_tasks.values()))


def standing_of(planned: Planned, out: Path | None) -> Standing:
    """Reads from a study folder what is done of a plan; None = nothing is."""
    results = _results(planned, out) if out else {}
    unreachable: set[str] = set()
    diverged = {name for name, result in results.items() if result.status == "diverged"}
    for run in planned.graph.runs.values():  # parents come first
        if run.parent in diverged or run.parent in unreachable:
            unreachable.add(run.id)
    out_of_reach = diverged | unreachable
    heldout, tasks = (
        {checkpoint: one for checkpoint, one in kinds.items() if checkpoint not in out_of_reach}
        for kinds in (planned.graph.evaluations, planned.graph.task_evaluations)
    )
    count = sum(len(kinds) for kinds in (*heldout.values(), *tasks.values()))
    missing, missing_tasks = _missing(heldout, out), _missing(tasks, out)
    return Standing(results, frozenset(unreachable), missing, missing_tasks, count)


def _missing(wanted: Mapping[str, Mapping[str, int]], out: Path | None) -> dict[str, list[int]]:
    """The kinds of evaluation that have no file yet, by checkpoint."""
    evaluated = names_in(out / "evaluations") if out else set()
    missing = {}
    for checkpoint, kinds in wanted.items():
        made = names_in(evaluation_path(out, checkpoint, "any").parent) if out and checkpoint in evaluated else set()
        if left := [kind for name, kind in kinds.items() if f"{name}.json" not in made]:
            missing[checkpoint] = left
    return missing


def _results(planned: Planned, out: Path) -> dict[str, StageResult]:
    begun, found = names_in(out / "runs"), {}
    folder: StudyFolder | None = None
    for run in planned.graph.runs.values():
        result = StageResult.read(run_dir(out, run.id) / "result.json") if run.id in begun else None
        if result is None:
            continue
        if run.watch is not None:
            folder = folder or StudyFolder(out, plan_record(planned), (0, 0, 0))
            if lacks_curves(folder, folder.runs[run.id], result):
                continue
        found[run.id] = result
    return found


def names_in(folder: Path) -> set[str]:
    """Names of the entries of a folder; none where there is no such folder."""
    try:
        return set(os.listdir(folder))
    except OSError:
        return set()
