"""What a stage's training loop is given, and what changes in it as it runs."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from indelible.data.ledger import Ledger
from indelible.data.loader import Batch, WindowReader
from indelible.objectives.base import ActiveGuard
from indelible.study.stage_spec import StageSpec
from indelible.train.distributed import World
from indelible.train.job import Progress
from indelible.train.program import Program
from indelible.train.watch import Watcher


class StoppedByFirst(Exception):
    """Raised on the other ranks when rank 0 was requested to stop; the state is saved."""


@dataclass
class LoopState:
    """What changes as the loop runs, besides tensors. All of it is in a resume state."""

    step: int = 0  # optimizer steps done
    tokens: int = 0  # targets trained on
    best_loss: float | None = None  # of the stop corpus, nats per token; always finite
    best_step: int | None = None
    evaluations_without_improvement: int = 0
    trained_seconds: float = 0.0
    eval_seconds: float = 0.0


@dataclass(frozen=True)
class StopRule:
    """Windows whose loss stops the stage early and chooses the best weights. None of them is reported."""

    heldout: Batch
    corpus: str


@dataclass(frozen=True)
class StageContext:
    """Everything that one stage's training needs."""

    spec: StageSpec
    program: Program
    guard: ActiveGuard | None  # against forgetting, already started
    ledger: Ledger
    stores: dict[str, WindowReader]  # by folder name
    stop_rule: StopRule | None
    watcher: Watcher | None  # curves on the way
    run_dir: Path
    progress: Callable[[Progress], None]  # may raise to stop the run, which is then saved first
    fence: Callable[[], None]  # raises when this process may not write any more
    resume_seconds: float  # least time between two resume states
    world: World
    identity: dict[str, Any]  # a resume state of another one is not used
