"""What a stage run is given and what it says while it runs. Imports no torch, so that launchers stay light."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class StageJob:
    """One stage run to be done."""

    run_dir: Path  # the folder of the run; everything is written below it
    run_id: str  # <stage>-<label>-<12 hex>
    stage: str  # pretrain | posttrain | finetune
    spec: dict[str, Any]  # canonical resolved spec, as in plan.json
    parent_dir: Path | None  # folder of the parent run, whose checkpoint/ is the start
    tokens_dir: Path  # folder of the token stores and of the tokenizer
    execution: dict[str, Any] = field(default_factory=dict)  # how to run it; never changes what is computed


@dataclass(frozen=True)
class Progress:
    """A sign of life from a running stage."""

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
