"""What a stage's training loop is given, and what changes in it as it runs."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from indelible.data.ledger import Ledger
from indelible.data.loader import Batch
from indelible.data.store import TokenStore
from indelible.objectives.base import ActiveGuard
from indelible.study.stage_spec import StageSpec
from indelible.train.distributed import World
from indelible.train.heldout import ReportedPairs
from indelible.train.job import Progress
from indelible.train.preference import Preference
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
    """Windows or pairs whose loss stops the stage early and chooses the best weights. None of them is reported."""

    heldout: Batch | ReportedPairs
    corpus: str


@dataclass(frozen=True)
class StageContext:
    """Everything that one stage's training needs."""

    spec: StageSpec
    program: Program
    guard: ActiveGuard | None  # against forgetting, already started
    ledger: Ledger
    stores: dict[str, TokenStore]  # by folder name
    stop_rule: StopRule | None
    watcher: Watcher | None  # curves on the way
    run_dir: Path
    progress: Callable[[Progress], None]  # may raise to stop the run, which is then saved first
    fence: Callable[[], None]  # raises when this process may not write any more
    resume_seconds: float  # least time between two resume states
    world: World
    identity: dict[str, Any]  # a resume state of another one is not used
    preference: Preference | None = None  # of a stage on pairs


def step_seed(spec: StageSpec, step: int, rank: int) -> int:
    """The seed of the dropout masks of a step on a rank: it depends on nothing that happened before."""
    name = f"{spec.seed}/dropout {spec.stage}/{step}" + (f"/{rank}" if rank else "")
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "little") >> 1
