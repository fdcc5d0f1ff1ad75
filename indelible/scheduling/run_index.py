"""What has become of every unit of a plan, read from the files of docs/run-folder.md."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from indelible.records import Failure, StageResult
from indelible.scheduling.curves import lacks_curves
from indelible.scheduling.folder import StudyFolder, plan_stamp
from indelible.scheduling.lease import LEASE_SECONDS, LeaseObserver, LeaseView
from indelible.scheduling.units import Priorities, Unit, priorities_of, units_of


class Status(StrEnum):
    """What has become of a unit."""

    PLANNED = "planned"  # not begun, waiting for its parent, or interrupted: it will be taken up
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    BLOCKED = "blocked"  # an ancestor failed
    DIVERGED = "diverged"  # itself or an ancestor: a result of the sweep


SETTLED = (Status.DONE, Status.FAILED, Status.BLOCKED, Status.DIVERGED)
_ENDS_HERE = (Status.FAILED, Status.BLOCKED, Status.DIVERGED)  # nothing is run after these


@dataclass(frozen=True)
class UnitState:
    """A unit and what its files say."""

    unit: Unit
    status: Status
    lease: LeaseView | None = None  # of running units, of planned ones that were interrupted, of evaluations
    failure: Failure | None = None
    result: StageResult | None = None  # of a stage run; one that is planned has it if it is run again for its curves

    @property
    def outcome(self) -> Status:
        """What counts for those that wait for this unit: a result serves them, whatever is still to be made of it."""
        if self.result is None:
            return self.status
        return Status.DIVERGED if self.result.status == "diverged" else Status.DONE


class RunIndex:
    """Statuses of all units of a plan. Remembers what is finished, so that looking again costs little."""

    def __init__(
        self,
        folder: StudyFolder,
        lease_seconds: float = LEASE_SECONDS,
        priorities: Priorities | None = None,
    ) -> None:
        self.observer = LeaseObserver(lease_seconds)
        self._priorities = priorities
        self._finished: dict[str, UnitState] = {}  # stage runs that lack nothing
        self._take(folder)

    def _take(self, folder: StudyFolder) -> None:
        self.folder = folder
        self.units = {unit.id: unit for unit in units_of(folder)}
        priorities = (self._priorities or priorities_of(folder))(self.units.values())
        self._order = sorted(self.units.values(), key=lambda unit: -priorities[unit.id])
        self._evaluated: dict[str, UnitState | None] = {}  # complete; None: by the stage run itself
        self._needed: set[str] = set()  # remembered runs whose checkpoint something still waits for
        known, self._finished = self._finished, {}
        for run_id, state in known.items():
            if run_id in folder.runs and state.result is not None:
                self._remember(run_id, state.result)

    def _remember(self, run_id: str, result: StageResult) -> None:
        if not lacks_curves(self.folder, self.folder.runs[run_id], result):
            status = Status.DIVERGED if result.status == "diverged" else Status.DONE
            self._finished[run_id] = UnitState(self.units[run_id], status, result=result)

    def follow_plan(self) -> None:
        """Reads plan.json again if it was written again.

        Raises:
            UserError: it has gone, or makes no sense.
        """
        if plan_stamp(self.folder.out) != self.folder.stamp:
            self._take(StudyFolder.open(self.folder.out))

    def result(self, run_id: str) -> StageResult | None:
        """result.json of a run that is done or diverged."""
        if run_id in self._finished:
            return self._finished[run_id].result
        result = StageResult.read(self.folder.run_dir(run_id) / "result.json")
        if result is not None:
            self._remember(run_id, result)
        return result

    def forget(self, run_id: str) -> None:
        """Drops what was remembered of a run whose files turned out to have gone."""
        self._finished.pop(run_id, None)
        self._evaluated.pop(run_id, None)

    def is_finished(self, unit: Unit) -> bool:
        """True if nothing of a unit is left to be done, by its files as they are now."""
        if unit.run is None:
            return self.folder.is_evaluated(unit.checkpoint)
        self.forget(unit.id)
        self.result(unit.id)
        return unit.id in self._finished

    def state(self, unit: Unit) -> UnitState:
        """State of one unit by its own files: as if its parent were done."""
        return self._state(unit, Status.DONE)

    def _state(self, unit: Unit, parent: Status) -> UnitState:
        result = None
        if unit.run is not None:
            result = self.result(unit.id)
            if unit.id in self._finished:
                return self._finished[unit.id]
        if parent in (Status.FAILED, Status.BLOCKED):
            return UnitState(unit, Status.BLOCKED, result=result)
        if parent is Status.DIVERGED:
            return UnitState(unit, Status.DIVERGED, result=result)
        failure = Failure.read(unit.folder / "failure.json")
        if failure is not None and failure.is_final:
            return UnitState(unit, Status.FAILED, failure=failure, result=result)
        lease = self.observer.look(unit.folder)
        return UnitState(unit, Status.RUNNING if lease.is_held else Status.PLANNED, lease, failure, result)

    def scan(self) -> dict[str, UnitState]:
        """State of every unit, in the plan's order; of evaluations only those that no stage run made."""
        for run_id in self._needed:
            if not (self.folder.run_dir(run_id) / "result.json").exists():
                self.forget(run_id)  # made again, as its checkpoint had gone
        begun, evaluated = _names(self.folder.out / "runs"), _names(self.folder.out / "evaluations")
        states: dict[str, UnitState] = {}
        for unit in self.units.values():
            if unit.id in self._finished:
                states[unit.id] = self._finished[unit.id]
                continue
            parent = states[unit.parent].outcome if unit.parent is not None else Status.DONE
            if unit.run is None:
                if parent is Status.DONE and (state := self._evaluations_state(unit, unit.checkpoint in evaluated)):
                    states[unit.id] = state
            elif unit.id in begun or parent in _ENDS_HERE:
                states[unit.id] = self._state(unit, parent)
            else:
                states[unit.id] = UnitState(unit, Status.PLANNED)
        waiting = {s.unit.parent for s in states.values() if s.status not in SETTLED and s.unit.parent is not None}
        self._needed = waiting & self._finished.keys()
        return states

    def _evaluations_state(self, unit: Unit, has_folder: bool) -> UnitState | None:
        """State of the evaluations of a checkpoint that is there; None if its stage run made them all."""
        checkpoint = unit.checkpoint
        if checkpoint not in self._evaluated:
            if not has_folder:
                return UnitState(unit, Status.PLANNED)
            if not self.folder.is_evaluated(checkpoint):
                return self._state(unit, Status.DONE)
            lease = self.observer.look(unit.folder)
            self._evaluated[checkpoint] = UnitState(unit, Status.DONE, lease) if lease.generation else None
        return self._evaluated[checkpoint]

    def is_settled(self) -> bool:
        """True when no unit can become ready any more."""
        return all(state.status in SETTLED for state in self.scan().values())

    def ready(self) -> Iterator[tuple[Unit, LeaseView]]:
        """Units that may be taken now, in the order of their priorities. Looks at files only as far as it is asked."""
        closed: set[str] = set()  # parents that are not done, as seen in this pass
        for unit in self._order:
            if unit.id in self._finished or unit.parent in closed:
                continue
            if unit.parent is not None:
                parent = self.result(unit.parent)
                if parent is None or parent.status == "diverged":
                    closed.add(unit.parent)
                    continue
            state = self._evaluations_state(unit, True) if unit.run is None else self._state(unit, Status.DONE)
            if state is not None and state.status is Status.PLANNED and state.lease is not None:
                yield unit, state.lease


def _names(folder: Path) -> set[str]:
    try:
        return set(os.listdir(folder))
    except OSError:
        return set()
