"""plan.json: the resolved graph of a study, its stage runs, chains and evaluations."""

import re
from collections.abc import Container, Iterable, Mapping
from typing import Any, ClassVar, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from indelible.records.base import RUN_ID, Amount, Record, Tally
from indelible.study.execution import ExecutionSpec
from indelible.study.inference import InferenceSpec
from indelible.study.stage_spec import EvaluationSpec, TaskEvaluation
from indelible.study.training import WatchSpec

_COLUMN = re.compile(r"\w[\w .:,+-]*")


class RunCost(BaseModel):
    """What a stage run costs, at most."""

    model_config = ConfigDict(frozen=True, allow_inf_nan=False)

    tokens: Amount = 0.0
    flops: Amount = 0.0


class PlannedRun(BaseModel):
    """One stage run of the plan."""

    model_config = ConfigDict(frozen=True)

    id: str
    stage: str
    parent: str | None = None  # run id
    spec: dict[str, Any]  # canonical, with class tags: what is hashed
    cost: RunCost = RunCost()
    watch: WatchSpec | None = None  # curves that are asked of it; in no identity

    @property
    def work(self) -> float:
        """FLOPs, or tokens where the plan gives no FLOPs."""
        return self.cost.flops or self.cost.tokens or 1.0


class PlannedChain(BaseModel):
    """The stage runs of one arm with one seed a stage, and the losses that it is asked for."""

    model_config = ConfigDict(frozen=True)

    columns: dict[str, Any]  # settings by column of the results table
    roles: dict[str, str] = Field(default_factory=dict)  # pre, post, ft to corpora
    stages: dict[str, str]  # stage to run id, in order
    start: str | None = None  # checkpoint id of the given checkpoint that it starts from
    views: dict[str, tuple[str, str]] = Field(default_factory=dict)  # name of a loss to (checkpoint id, corpus)

    def check(self, name: str, runs: Mapping[str, str], given: Container[str]) -> None:
        """Checks that a chain is one of a plan with these stage runs (id to stage) and given checkpoints."""
        if not self.stages:
            raise ValueError(f"{name} has no stages")
        for column in (*self.columns, *self.views):
            if not _COLUMN.fullmatch(column):
                raise ValueError(f"{name}: {column!r} is no name of a column")
        for stage, run_id in self.stages.items():
            if runs.get(run_id) != stage:
                raise ValueError(f"{name}: {run_id!r} is no stage run of {stage!r}")
        known = {*self.stages.values(), *([self.start] if self.start is not None else [])}
        if self.start is not None and self.start not in given:
            raise ValueError(f"{name}: start {self.start!r} is no given checkpoint")
        for view, (checkpoint, _) in self.views.items():
            if checkpoint not in known:
                raise ValueError(f"{name}: {view} is a loss of {checkpoint!r}, which is no checkpoint of the chain")


NOTES = "notes"  # key of a plan's summary: what in the study is out of proportion, in words


class Plan(Record):
    """plan.json: the resolved graph of a study."""

    FORMAT: ClassVar[int] = 2

    name: str
    description: str = ""
    scale: str = ""
    seeds: tuple[Tally, ...] | dict[str, tuple[Tally, ...]] = ()
    stores: dict[str, str] = Field(default_factory=dict)  # corpus to folder below tokens/
    tokenizer: str = ""  # folder below tokens/
    execution: ExecutionSpec = ExecutionSpec()
    inference: InferenceSpec = InferenceSpec()  # how it is judged
    given: dict[str, str] = Field(default_factory=dict)  # checkpoint id of a given checkpoint to its folder
    summary: dict[str, Any] = Field(default_factory=dict)
    stage_runs: tuple[PlannedRun, ...]  # parents before children
    heldout: tuple[EvaluationSpec, ...] = ()  # kinds of evaluation, their `checkpoint` empty
    evaluations: dict[str, dict[str, int]] = Field(default_factory=dict)  # checkpoint id: evaluation id: its kind
    tasks: tuple[TaskEvaluation, ...] = ()  # that checkpoints are evaluated on too, their `checkpoint` empty
    task_evaluations: dict[str, dict[str, int]] = Field(default_factory=dict)  # checkpoint id: evaluation id: its task
    chains: tuple[PlannedChain, ...] = ()

    @property
    def notes(self) -> tuple[str, ...]:
        """What in the study is out of proportion, each with what to do; none of plans written before it was noted."""
        found = self.summary.get(NOTES, ())
        return tuple(map(str, found)) if isinstance(found, list | tuple) else ()

    @model_validator(mode="after")
    def _ids_are_sound(self) -> Self:
        stages: dict[str, str] = {}  # by run id
        for run in self.stage_runs:
            if not RUN_ID.fullmatch(run.id):
                raise ValueError(f"stage run id {run.id!r} is no plain folder name")
            if run.id in stages:
                raise ValueError(f"stage run {run.id} is listed twice")
            if run.parent is not None and run.parent not in stages:
                raise ValueError(f"parent {run.parent!r} of {run.id} is not listed before it")
            if run.watch is not None and not {*(run.watch.corpora or ())} <= self.stores.keys():
                raise ValueError(f"watch of {run.id} names a corpus that has no store")
            stages[run.id] = run.stage
        folders = (*self.stores.values(), *(kind.store for kind in self.heldout), self.tokenizer or "none")
        _check_plain("folder below tokens/", folders)
        _check_plain("file below tasks/", (task.stored_name for task in self.tasks))
        _check_plain("id of a given checkpoint", self.given)
        checkpoints = {*stages, *self.given}
        _check_evaluations("evaluations", self.evaluations, checkpoints, len(self.heldout))
        _check_evaluations("task_evaluations", self.task_evaluations, checkpoints, len(self.tasks))
        for number, chain in enumerate(self.chains):
            chain.check(f"chain {number}", stages, self.given)
        return self


def _check_evaluations(
    what: str, evaluations: Mapping[str, Mapping[str, int]], checkpoints: Container[str], kinds: int
) -> None:
    """Evaluations are of checkpoints of the plan and of kinds that it has, and their ids are file names."""
    for checkpoint, wanted in evaluations.items():
        if checkpoint not in checkpoints:
            raise ValueError(f"{what} name {checkpoint!r}, which is neither a stage run nor a given checkpoint")
        for name, kind in wanted.items():
            if not RUN_ID.fullmatch(name) or not 0 <= kind < kinds:
                raise ValueError(f"evaluation {name!r} of {checkpoint} is not sound")


def _check_plain(what: str, names: Iterable[str]) -> None:
    """Names that become folders are plain: none leaves the study folder."""
    for name in names:
        if not RUN_ID.fullmatch(name):
            raise ValueError(f"{name!r} is no plain name, and is read as the {what}")
