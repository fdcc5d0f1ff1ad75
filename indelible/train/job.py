"""What a stage run or an evaluation is given, and what it reports while it runs. Imports no torch."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from indelible.study.execution import ExecutionSpec
from indelible.study.stage_spec import EvaluationSpec, TaskEvaluation
from indelible.study.training import WatchSpec


class StageJob(BaseModel):
    """One stage run to be done. Travels between processes as JSON."""

    model_config = ConfigDict(frozen=True)

    run_dir: Path  # folder of the run; everything but evaluations is written below it
    run_id: str  # <stage>-<label>-s<seed>-<12 hex>
    stage: str
    spec: dict[str, Any]  # canonical resolved spec, as in plan.json
    start_dir: Path | None  # checkpoint folder that the stage starts from: its parent's, or a given one
    tokens_dir: Path  # folder of the token stores and of the tokenizer
    execution: ExecutionSpec = ExecutionSpec()  # how to run it; never changes what is computed
    watch: WatchSpec | None = None  # curves to be recorded on the way
    watch_stores: dict[str, str] = Field(default_factory=dict)  # corpus to store folder, of all corpora of the study
    heldout: tuple[EvaluationSpec, ...] = ()  # kinds of evaluation of the plan: the windows that curves are taken on
    evaluations_dir: Path | None = None  # evaluations/<run id>; None = no evaluation
    evaluations: dict[str, EvaluationSpec] = Field(default_factory=dict)  # by id: made when the stage has ended


class EvaluationJob(BaseModel):
    """Evaluations of one checkpoint that exists. Travels between processes as JSON."""

    model_config = ConfigDict(frozen=True)

    checkpoint: str  # run id, or `given-<12 hex>`
    checkpoint_dir: Path  # Hugging Face folder
    tokenizer_dir: Path
    tokens_dir: Path
    evaluations_dir: Path  # evaluations/<checkpoint>
    evaluations: dict[str, EvaluationSpec]  # by id; those whose file exists already are passed over
    tasks: dict[str, TaskEvaluation] = Field(default_factory=dict)  # the same of evaluations on tasks
    execution: ExecutionSpec = ExecutionSpec()


@dataclass(frozen=True)
class Progress:
    """Where a running stage or evaluation stands."""

    step: int  # optimizer steps done
    total_steps: int  # steps of the whole schedule; early stopping may end before
    loss: float | None  # nats per token of the latest reported step, None before the first
    tokens: int  # trained tokens so far
    tokens_per_second: float  # over training time since the start or the resume
    phase: str  # loading | compiling | training | evaluating | saving
    lr: float | None = None  # learning rate of the latest update
    grad_norm: float | None = None  # global L2 norm before clipping, of the latest update
    seconds_left: float | None = None  # to the end of the schedule, from the speed so far

    def describe(self) -> str:
        """One line for the log of the run."""
        parts = [f"step {self.step:,} of {self.total_steps:,}"]
        if self.loss is not None and self.lr is not None and self.grad_norm is not None:
            parts.append(f"loss {self.loss:.4f}, lr {self.lr:.2e}, grad norm {self.grad_norm:.2f}")
        parts.append(f"{self.tokens_per_second:,.0f} tokens/s")
        if self.seconds_left is not None:
            parts.append(f"at most {self.seconds_left:,.0f} s left")
        return ", ".join(parts)
