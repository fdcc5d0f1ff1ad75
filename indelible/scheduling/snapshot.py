"""One look at a study: what runs, what is done, and how long it will take, likely and at most."""

import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from indelible.scheduling.folder import StudyFolder
from indelible.scheduling.lease import LEASE_SECONDS
from indelible.scheduling.run_index import SETTLED, RunIndex, Status, UnitState


@dataclass(frozen=True)
class Snapshot:
    """One look at a study."""

    name: str
    states: dict[str, UnitState]  # by unit id, in the plan's order
    workers: int  # that share the remaining work: those of this launch, or those seen at work

    @property
    def by_stage(self) -> dict[str, Counter[str]]:
        """Number of units per stage and status, stages in the plan's order, `evaluate` last if there is any."""
        stages: dict[str, Counter[str]] = {}
        for state in self.states.values():
            stages.setdefault(state.unit.stage, Counter())[state.status.value] += 1
        return stages

    @property
    def counts(self) -> Counter[str]:
        """Number of units per status."""
        return Counter(state.status.value for state in self.states.values())

    @property
    def running(self) -> list[UnitState]:
        """Units that somebody works on."""
        return [state for state in self.states.values() if state.status is Status.RUNNING]

    @property
    def unsettled(self) -> int:
        """Number of units that are or may become ready."""
        return sum(state.status not in SETTLED for state in self.states.values())

    @property
    def is_settled(self) -> bool:
        """True when no unit can become ready any more."""
        return self.unsettled == 0

    @property
    def is_finished(self) -> bool:
        """True when every unit is done or diverged."""
        return all(state.status in (Status.DONE, Status.DIVERGED) for state in self.states.values())

    def seconds_left(self) -> float | None:
        """Wall time from here as the runs so far make it likely; None before there is a speed to tell by.

        Runs that early stopping ended count with all their work, so that what it saved is taken to be saved again. The
        larger of the work shared evenly and the longest chain that is left.
        """
        return self._seconds_left(self._rates())

    def seconds_at_most(self) -> float | None:
        """The same if early stopping ends no run any more: a bound."""
        return self._seconds_left(self._rates(is_bound=True))

    def _seconds_left(self, rates: Mapping[str, float]) -> float | None:
        if not rates:
            return None
        overall = rates[""]
        work, longest = 0.0, 0.0
        ending: dict[str, float] = {}  # seconds until each unit can have ended, at best
        for unit_id, state in self.states.items():
            if state.status in SETTLED:
                continue
            left = state.unit.work * (1 - fraction_done(state)) / rates.get(state.unit.stage, overall)
            work += left
            ending[unit_id] = left + self._until_parent(state, ending)
            longest = max(longest, ending[unit_id])
        return max(work / max(1, self.workers), longest)

    def _until_parent(self, state: UnitState, ending: dict[str, float]) -> float:
        parent = state.unit.parent
        if parent is None or self.states[parent].outcome is Status.DONE:
            return 0.0  # one that is run again for its curves keeps nobody waiting
        return ending.get(parent, 0.0)

    def _rates(self, *, is_bound: bool = False) -> dict[str, float]:
        """Work per second of each stage, and of all together under "": of finished units, else of those under way.

        By stage, because early stopping cuts the work of some stages and not of others. For a bound a finished unit
        counts with the work that it did, without what early stopping saved.
        """
        finished: dict[str, list[tuple[float, float]]] = {}
        under_way: dict[str, list[tuple[float, float]]] = {}
        for state in self.states.values():
            seconds, stage, work = seconds_taken(state), state.unit.stage, state.unit.work
            if state.status is Status.DONE and seconds:
                done = work * part_trained(state) if is_bound else work
                finished.setdefault(stage, []).append((done, seconds))
            elif state.status is Status.RUNNING and state.lease is not None and state.lease.generation == 1:
                done = work * fraction_done(state)  # of a later attempt it is not known how long the first took
                if done and state.lease.beat.get("seconds"):
                    under_way.setdefault(stage, []).append((done, state.lease.beat["seconds"]))
        timed = {**under_way, **finished}
        sums = {stage: tuple(map(sum, zip(*pairs, strict=True))) for stage, pairs in timed.items()}
        if not sums:
            return {}
        work, seconds = (sum(values) for values in zip(*sums.values(), strict=True))
        return {"": work / seconds, **{stage: work / seconds for stage, (work, seconds) in sums.items()}}

    def as_json(self) -> dict[str, Any]:
        """The snapshot for machines."""
        return {
            "study": self.name,
            "runs": len(self.states),
            "counts": {status.value: self.counts[status.value] for status in Status},
            "by_stage": {stage: dict(counts) for stage, counts in self.by_stage.items()},
            "running": [{"id": state.unit.id, **progress_of(state)} for state in self.running],
            "failed": [
                {"id": state.unit.id, **state.failure.model_dump(include={"kind", "type", "message", "attempt"})}
                for state in self.states.values()
                if state.status is Status.FAILED and state.failure is not None
            ],
            "seconds_left": self.seconds_left(),
            "seconds_at_most": self.seconds_at_most(),
            "is_settled": self.is_settled,
        }


def look(index: RunIndex, workers: int = 0) -> Snapshot:
    """One look.

    Args:
        index: of the study.
        workers: that share the work; those seen at work where they are more.
    """
    states = index.scan()
    running = sum(state.status is Status.RUNNING for state in states.values())
    return Snapshot(index.folder.plan.name, states, max(workers, running))


def snapshot_of(out: Path, lease_seconds: float = LEASE_SECONDS) -> Snapshot:
    """One look at a study folder.

    Raises:
        UserError: the folder has no plan.
    """
    return look(RunIndex(StudyFolder.open(out), lease_seconds))


def progress_of(state: UnitState) -> dict[str, Any]:
    """What a running unit's latest heartbeat shows; None where it shows nothing."""
    beat = state.lease.beat if state.lease is not None else {}
    record = state.lease.record if state.lease is not None else None
    keys = ("phase", "step", "total_steps", "loss", "lr", "grad_norm", "tokens", "tokens_per_second", "seconds")
    return {
        "worker": record.worker if record is not None else None,
        "attempt": state.lease.generation if state.lease is not None else None,
        **{key: beat.get(key) for key in keys},
        "stage_seconds_left": beat.get("seconds_left"),
        "silent_seconds": _silent_seconds(state),
    }


def _silent_seconds(state: UnitState) -> float | None:
    """Seconds since the worker's latest heartbeat by the file's time: for people, as clocks may differ."""
    seen = state.lease.beat_time if state.lease is not None else None
    return None if seen is None else round(max(0.0, time.time() - seen), 1)


def fraction_done(state: UnitState) -> float:
    """How much of a running unit is done, 0 to 1."""
    shown = progress_of(state) if state.status is Status.RUNNING else {}
    return min(1.0, (shown.get("step") or 0) / (shown.get("total_steps") or 1))


def part_trained(state: UnitState) -> float:
    """How much of a finished unit's planned steps was made before early stopping ended it, above 0 to 1."""
    result = state.result
    return 1.0 if result is None or not 0 < result.steps < result.total_steps else result.steps / result.total_steps


def seconds_taken(state: UnitState) -> float | None:
    """How long a finished unit took; None where it is not known."""
    if state.result is not None:
        return state.result.total_seconds
    if state.unit.run is None and state.status is Status.DONE and state.lease is not None:
        return state.lease.beat.get("seconds")
    return None
