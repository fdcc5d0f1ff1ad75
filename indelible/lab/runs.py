"""The plan of a study folder and the status of its stage runs, read from the files of docs/run-folder.md."""

import json
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from indelible.errors import UserError
from indelible.files import read_json
from indelible.lab.lease import LEASE_SECONDS, LeaseObserver, LeaseView

PLAN_FORMAT = 1
_RUN_ID = re.compile(r"\w[\w.,+=@-]*")  # a plain file name: no path can leave the runs folder


class Status(StrEnum):
    """What has become of a stage run."""

    PLANNED = "planned"  # not begun, waiting for its parent, or interrupted: it will be taken up
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    BLOCKED = "blocked"  # an ancestor failed
    DIVERGED = "diverged"  # itself or an ancestor: a result of the sweep


SETTLED = (Status.DONE, Status.FAILED, Status.BLOCKED, Status.DIVERGED)


@dataclass(frozen=True)
class PlannedRun:
    """One stage run of the plan."""

    id: str
    stage: str
    parent: str | None
    spec: dict[str, Any]
    cost: float  # FLOPs, or tokens where the plan gives no FLOPs


@dataclass(frozen=True)
class Plan:
    """plan.json, checked."""

    out: Path
    name: str
    execution: dict[str, Any]
    runs: dict[str, PlannedRun]  # parents before children
    stores: tuple[str, ...]  # names of folders below tokens/ that the plan needs
    stamp: tuple[int, int, int]  # identity of the plan.json that was read: inode, size, modification time (ns)
    resume_bytes: int = 0  # of the largest resume state, at most

    def run_dir(self, run_id: str) -> Path:
        """Folder of a stage run."""
        return self.out / "runs" / run_id

    def priorities(self) -> dict[str, float]:
        """Cost of the longest chain that begins with each run: what is longest is started first."""
        longest = {run_id: run.cost for run_id, run in self.runs.items()}
        below: dict[str, float] = {}
        for run_id in reversed(self.runs):
            longest[run_id] += below.get(run_id, 0.0)
            parent = self.runs[run_id].parent
            if parent is not None:
                below[parent] = max(below.get(parent, 0.0), longest[run_id])
        return longest


def plan_stamp(out: Path) -> tuple[int, int, int]:
    """Identity of the plan.json now in the folder; changes when the plan is written again.

    Raises:
        UserError: there is none.
    """
    try:
        info = os.stat(out / "plan.json")
    except OSError:
        raise UserError(
            f"{out}: no plan.json; is this the --out folder of a study? `indelible run STUDY --out DIR` writes it."
        ) from None
    return info.st_ino, info.st_size, info.st_mtime_ns


def load_plan(out: Path) -> Plan:
    """Reads and checks ``<out>/plan.json``.

    Raises:
        UserError: missing, another format, an id that is no plain file name, or a parent that does not come first.
    """
    stamp = plan_stamp(out)
    path = out / "plan.json"
    value = read_json(path)
    if not isinstance(value, dict) or value.get("format") != PLAN_FORMAT:
        found = value.get("format") if isinstance(value, dict) else type(value).__name__
        raise UserError(
            f"{path}: format {found!r} where {PLAN_FORMAT} is expected; write the plan again with `indelible run`."
        )
    runs: dict[str, PlannedRun] = {}
    for entry in value["stage_runs"]:
        run_id, parent = entry["id"], entry.get("parent")
        if not isinstance(run_id, str) or not _RUN_ID.fullmatch(run_id):
            raise UserError(f"{path}: stage run id {run_id!r} is no plain folder name; write the plan again.")
        if run_id in runs:
            raise UserError(f"{path}: stage run {run_id} is listed twice; write the plan again.")
        if parent is not None and parent not in runs:
            raise UserError(f"{path}: parent {parent!r} of {run_id} is not listed before it; write the plan again.")
        cost = entry.get("cost") or {}
        runs[run_id] = PlannedRun(
            run_id, entry["stage"], parent, entry["spec"], float(cost.get("flops") or cost.get("tokens") or 1.0)
        )
    stores = tuple(str(name) for name in (*value.get("stores", {}).values(), value.get("tokenizer")) if name)
    resume_bytes = int((value.get("summary") or {}).get("resume_bytes_per_worker") or 0)
    return Plan(out, value["name"], value.get("execution") or {}, runs, stores, stamp, resume_bytes)


def canonical(spec: dict[str, Any]) -> str:
    """One text for equal specs, whatever the order of their keys."""
    return json.dumps(spec, sort_keys=True, ensure_ascii=False)


def has_other_spec(run_dir: Path, run: PlannedRun) -> bool:
    """True if the folder holds the work of another spec: spec.json and the plan disagree."""
    path = run_dir / "spec.json"
    return path.exists() and canonical(read_json(path).get("spec")) != canonical(run.spec)


def has_checkpoint(run_dir: Path) -> bool:
    """True if the run's folder still holds weights that a child can start from."""
    folder = run_dir / "checkpoint"
    return (folder / "config.json").is_file() and any(folder.glob("*.safetensors"))


def read_optional(path: Path) -> dict[str, Any] | None:
    """A JSON object, or None when the file does not exist (any more)."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except ValueError as error:
        raise UserError(f"{path}: not a JSON file ({error}); delete it and run the same command again.") from None
    return value


@dataclass(frozen=True)
class RunState:
    """A stage run and what its files say."""

    run: PlannedRun
    status: Status
    lease: LeaseView | None = None  # of running runs, and of planned ones that were interrupted
    failure: dict[str, Any] | None = None  # failure.json, if there is one
    result: dict[str, Any] | None = None  # result.json, if there is one


class Board:
    """Statuses of all runs of a plan. Remembers finished runs, so that looking again costs little."""

    def __init__(self, plan: Plan, lease_seconds: float = LEASE_SECONDS) -> None:
        self.plan = plan
        self.observer = LeaseObserver(lease_seconds)
        self._finished: dict[str, dict[str, Any]] = {}
        self._order = self._by_priority()

    def _by_priority(self) -> list[PlannedRun]:
        priorities = self.plan.priorities()
        return sorted(self.plan.runs.values(), key=lambda run: -priorities[run.id])

    def result(self, run_id: str) -> dict[str, Any] | None:
        """result.json of a run that is done or diverged."""
        if run_id not in self._finished:
            result = read_optional(self.plan.run_dir(run_id) / "result.json")
            if result is None:
                return None
            self._finished[run_id] = result
        return self._finished[run_id]

    def forget(self, run_id: str) -> None:
        """Drops what was remembered of a run whose files turned out to have gone."""
        self._finished.pop(run_id, None)

    def replan(self, plan: Plan) -> None:
        """Takes a plan that was written again for the same folder."""
        self.plan = plan
        self._order = self._by_priority()

    def _own_state(self, run: PlannedRun, parent: Status | None) -> RunState:
        result = self.result(run.id)
        if result is not None:
            return RunState(run, Status.DIVERGED if result.get("status") == "diverged" else Status.DONE, result=result)
        if parent in (Status.FAILED, Status.BLOCKED):
            return RunState(run, Status.BLOCKED)
        if parent is Status.DIVERGED:
            return RunState(run, Status.DIVERGED)
        run_dir = self.plan.run_dir(run.id)
        failure = read_optional(run_dir / "failure.json")
        if failure is not None and failure.get("is_final"):
            return RunState(run, Status.FAILED, failure=failure)
        lease = self.observer.look(run_dir)
        return RunState(run, Status.RUNNING if lease.is_held else Status.PLANNED, lease, failure)

    def scan(self) -> dict[str, RunState]:
        """State of every run, in the plan's order."""
        try:
            begun = set(os.listdir(self.plan.out / "runs"))
        except OSError:
            begun = set()
        states: dict[str, RunState] = {}
        for run_id, run in self.plan.runs.items():
            parent = states[run.parent].status if run.parent is not None else None
            if (
                run_id in begun
                or run_id in self._finished
                or parent in (Status.FAILED, Status.BLOCKED, Status.DIVERGED)
            ):
                states[run_id] = self._own_state(run, parent)
            else:
                states[run_id] = RunState(run, Status.PLANNED)
        return states

    def is_settled(self) -> bool:
        """True when no run can become ready any more."""
        return all(state.status in SETTLED for state in self.scan().values())

    def ready(self) -> Iterator[tuple[PlannedRun, LeaseView]]:
        """Runs that may be taken now, the longest remaining chain first. Looks at files only as far as it is asked."""
        closed: set[str] = set()  # parents that are not done, as seen in this pass
        for run in self._order:
            if run.id in self._finished or run.parent in closed:
                continue
            if run.parent is not None:
                parent = self.result(run.parent)
                if parent is None or parent.get("status") == "diverged":
                    closed.add(run.parent)
                    continue
            state = self._own_state(run, None)
            if state.status is Status.PLANNED and state.lease is not None:
                yield run, state.lease
