"""The records of a study folder: plan.json, result.json, failure.json and evaluations. One format, one reader each.

The files are the database, and this is its schema. Keys that a later version adds are passed over; a record of another
format is refused.
"""

import json
import re
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from indelible.errors import UserError
from indelible.files import write_text
from indelible.study.execution import ExecutionSpec
from indelible.study.inference import InferenceSpec
from indelible.study.seeds import Seeds
from indelible.study.stage_spec import EvaluationSpec
from indelible.study.training import WatchSpec

RUN_ID = re.compile(r"\w[\w.,+=@-]*")  # a plain file name: no path can leave the runs folder


class Record(BaseModel):
    """A JSON file of a study folder."""

    model_config = ConfigDict(frozen=True, extra="ignore", protected_namespaces=(), ser_json_inf_nan="null")

    FORMAT: ClassVar[int] = 1

    format: int = 0  # set when it is written

    @classmethod
    def read(cls, path: Path | str) -> Self | None:
        """The record in a file; None where the file does not exist (any more).

        Raises:
            UserError: not JSON, another format, or not such a record.
        """
        try:
            with open(path, "rb", buffering=0) as file:  # a large study has tens of thousands of records
                data = file.readall()
        except (FileNotFoundError, NotADirectoryError):
            return None
        try:
            record = cls.model_validate_json(data)  # at once
        except ValidationError:
            return cls._read_with_reasons(path, data)
        return record if record.format == cls.FORMAT else cls._read_with_reasons(path, data)

    @classmethod
    def _read_with_reasons(cls, path: Path | str, data: bytes) -> Self:
        """Reads a record that is not right, to say what is wrong with it."""
        try:
            value = json.loads(data)
        except ValueError as error:
            raise UserError(f"{path}: not a JSON file ({error}); delete it and run the same command again.") from None
        found = value.get("format") if isinstance(value, dict) else type(value).__name__
        if found != cls.FORMAT:
            raise UserError(
                f"{path}: format {found!r} where {cls.FORMAT} is expected; another version of indelible wrote it. "
                "Use that version, or another --out."
            )
        try:
            return cls.model_validate(value)
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(str(part) for part in first["loc"]) or "the record"
            raise UserError(
                f"{path}: {where}: {first['msg']}; the file was edited or cut. "
                "Delete it and run the same command again."
            ) from None

    def write(self, path: Path, *, indent: int | None = 1) -> None:
        """Writes the record atomically."""
        write_text(path, self.model_copy(update={"format": self.FORMAT}).model_dump_json(indent=indent) + "\n")


class RunCost(BaseModel):
    """What a stage run costs, at most."""

    model_config = ConfigDict(frozen=True)

    tokens: float = 0.0
    flops: float = 0.0


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


class Plan(Record):
    """plan.json: the resolved graph of a study."""

    FORMAT: ClassVar[int] = 2

    name: str
    description: str = ""
    scale: str = ""
    seeds: Seeds = ()
    stores: dict[str, str] = Field(default_factory=dict)  # corpus to folder below tokens/
    tokenizer: str = ""  # folder below tokens/
    execution: ExecutionSpec = ExecutionSpec()
    inference: InferenceSpec = InferenceSpec()  # how it is judged
    given: dict[str, str] = Field(default_factory=dict)  # checkpoint id of a given checkpoint to its folder
    summary: dict[str, Any] = Field(default_factory=dict)
    stage_runs: tuple[PlannedRun, ...]  # parents before children
    heldout: tuple[EvaluationSpec, ...] = ()  # kinds of evaluation, their `checkpoint` empty
    evaluations: dict[str, dict[str, int]] = Field(default_factory=dict)  # checkpoint id: evaluation id: its kind
    chains: tuple[PlannedChain, ...] = ()

    @model_validator(mode="after")
    def _ids_are_sound(self) -> Self:
        known: set[str] = set()
        for run in self.stage_runs:
            if not RUN_ID.fullmatch(run.id):
                raise ValueError(f"stage run id {run.id!r} is no plain folder name")
            if run.id in known:
                raise ValueError(f"stage run {run.id} is listed twice")
            if run.parent is not None and run.parent not in known:
                raise ValueError(f"parent {run.parent!r} of {run.id} is not listed before it")
            known.add(run.id)
        for checkpoint, wanted in self.evaluations.items():
            if checkpoint not in known and checkpoint not in self.given:
                raise ValueError(
                    f"evaluations name {checkpoint!r}, which is neither a stage run nor a given checkpoint"
                )
            for name, kind in wanted.items():
                if not RUN_ID.fullmatch(name) or not 0 <= kind < len(self.heldout):
                    raise ValueError(f"evaluation {name!r} of {checkpoint} is not sound")
        return self


class StageResult(Record):
    """result.json of a stage run. Losses are evaluations, apart from it."""

    FORMAT: ClassVar[int] = 2

    id: str
    stage: str
    status: Literal["done", "diverged"]
    stop_reason: str  # max_tokens, patience, empty or diverged
    steps: int
    total_steps: int
    warmup_steps: int  # as taken: at most a quarter of the stage
    best_step: int | None = None
    best_stop_loss: float | None = None  # nats per token, on the windows that stop the stage
    train_tokens: int  # targets that counted
    tokens_seen: dict[str, int]  # by corpus; by ``corpus:purpose`` where a stage uses a corpus twice
    trained_seconds: float
    eval_seconds: float
    total_seconds: float
    tokens_per_second: float
    flops: float
    flops_estimated: bool = False  # the model is of a family whose FLOPs are not counted exactly
    mfu: float | None = None
    parent: str | None = None
    weights_sha256: str | None = None
    ledger_sha256: str
    precision: str
    resumed: int = 0
    watched: WatchSpec | None = None  # curves that stand in metrics.jsonl
    environment: dict[str, Any] = Field(default_factory=dict)


class Failure(Record):
    """failure.json: why the latest attempt at a stage run or an evaluation failed."""

    id: str
    kind: str  # infrastructure (may be tried again) or error (would come back the same)
    type: str
    message: str
    traceback: str = ""
    attempt: int
    failures: int  # in a row, this one included
    is_final: bool
    worker: str = ""
    host: str = ""
    time: str = ""


class Evaluation(Record):
    """evaluations/<checkpoint>/<id>.json: the loss of one checkpoint on held-out windows of one corpus.

    The losses by document are beside it, in <id>.documents.parquet: document (its number in the held-out split), tokens
    (targets that count) and nats (their sum).
    """

    id: str
    checkpoint: str
    corpus: str
    status: Literal["done", "diverged"]  # diverged: the loss is not finite or above `max_loss`
    nats_per_token: float | None  # None when it is not finite
    bits_per_byte: float | None
    standard_error: float | None  # of nats_per_token, clustered by document; None with fewer than two documents
    tokens: int  # targets that count
    documents: int
    windows: int
    loss_on: Literal["all", "completion"]
    seconds: float = 0.0
    environment: dict[str, Any] = Field(default_factory=dict)


def run_dir(out: Path, run_id: str) -> Path:
    """Folder of a stage run."""
    return out / run_name(run_id)


def run_name(run_id: str) -> str:
    """The same below the folder of a study run."""
    return f"runs/{run_id}"


def evaluation_path(out: Path, checkpoint: str, evaluation: str) -> Path:
    """File of an evaluation."""
    return out / evaluation_name(checkpoint, evaluation)


def evaluation_name(checkpoint: str, evaluation: str) -> str:
    """The same below the folder of a study run."""
    return f"evaluations/{checkpoint}/{evaluation}.json"


def documents_path(out: Path, checkpoint: str, evaluation: str) -> Path:
    """File of the losses by document of an evaluation."""
    return out / "evaluations" / checkpoint / f"{evaluation}.documents.parquet"
