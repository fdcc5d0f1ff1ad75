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
    tokens = sum(heldout[kind].tokens for kind in folder.plan.evaluations[checkpoint].values())
    tokens += sum(
        folder.plan.tasks[number].tokens for number in folder.plan.task_evaluations.get(checkpoint, {}).values()
    )
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


def seed_by_seed(folder: StudyFolder) -> Priorities:
    """Everything of the first seed before anything of the second, so that whole chains are there early.

    Within a seed the longest chain is first. A run that several seeds share belongs to the first of them.
    """
    seeds = [_seeds_of(chain.columns) for chain in folder.plan.chains]
    ranks = {seed: rank for rank, seed in enumerate(sorted(set(seeds)))}
    first: dict[str, int] = {}
    for chain, seed in zip(folder.plan.chains, seeds, strict=True):
        for checkpoint in (*chain.stages.values(), *([chain.start] if chain.start else [])):
            first[checkpoint] = min(first.get(checkpoint, len(ranks)), ranks[seed])

    def priorities(units: Iterable[Unit]) -> dict[str, float]:
        listed = list(units)
        longest = longest_chain_first(listed)
        most = max(longest.values(), default=0.0) + 1.0
        return {unit.id: longest[unit.id] / most - first.get(unit.checkpoint, len(ranks)) for unit in listed}

    return priorities


def _seeds_of(columns: Mapping[str, object]) -> tuple[tuple[str, int], ...]:
    return tuple((name, value) for name, value in columns.items() if "seed" in name and isinstance(value, int))


def priorities_of(folder: StudyFolder) -> Priorities:
    """As ``execution.order`` says."""
    return seed_by_seed(folder) if folder.plan.execution.order == "seed-by-seed" else longest_chain_first
