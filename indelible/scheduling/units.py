"""What workers take: stage runs, and the evaluations of a checkpoint that are still missing; and in which order."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from indelible.records import PlannedRun
from indelible.scheduling.folder import StudyFolder

EVALUATE = "evaluate"  # shown in place of a stage's name


@dataclass(frozen=True)
class Unit:
    """A stage run, or all evaluations of one checkpoint that its stage run did not make."""

    id: str  # run id, or evaluations/<checkpoint id>
    stage: str  # stage name, or `evaluate`
    folder: Path  # holds its lease and its failures
    checkpoint: str  # id of the checkpoint that it makes or evaluates
    parent: str | None  # stage run whose checkpoint it needs
    work: float  # FLOPs, or tokens where the plan gives no FLOPs
    run: PlannedRun | None = None  # None: evaluations


Priorities = Callable[[Iterable[Unit]], Mapping[str, float]]
"""Gives every unit id a number; of those that are ready the one with the highest is taken first."""


def units_of(folder: StudyFolder) -> list[Unit]:
    """All units of a plan: stage runs, parents before children, then one for each checkpoint with evaluations."""
    runs = [
        Unit(run.id, run.stage, folder.run_dir(run.id), run.id, run.parent, run.work, run)
        for run in folder.plan.stage_runs
    ]
    evaluations = [
        Unit(
            f"evaluations/{checkpoint}",
            EVALUATE,
            folder.evaluations_dir(checkpoint),
            checkpoint,
            checkpoint if checkpoint in folder.runs else None,
            _evaluation_work(folder, checkpoint),
        )
        for checkpoint, planned in folder.plan.evaluations.items()
        if planned
    ]
    return runs + evaluations


def _evaluation_work(folder: StudyFolder, checkpoint: str) -> float:
    """One forward pass a token; a stage run's own cost says what that is (three passes, and more)."""
    heldout = folder.plan.heldout
    tokens = sum(heldout[kind].windows * heldout[kind].seq_len for kind in folder.plan.evaluations[checkpoint].values())
    run = folder.runs.get(checkpoint) or next(iter(folder.runs.values()), None)
    if run is None or not run.cost.tokens or not run.cost.flops:
        return float(tokens)
    return tokens * run.cost.flops / run.cost.tokens / 3


def longest_chain_first(units: Iterable[Unit]) -> dict[str, float]:
    """The work of the longest chain that begins with each unit: what takes longest is started first."""
    listed = list(units)
    longest = {unit.id: unit.work for unit in listed}
    below: dict[str, float] = {}
    for unit in reversed(listed):  # children before their parents
        if unit.run is not None:
            longest[unit.id] += below.get(unit.id, 0.0)
            if unit.parent is not None:
                below[unit.parent] = max(below.get(unit.parent, 0.0), longest[unit.id])
    return longest
