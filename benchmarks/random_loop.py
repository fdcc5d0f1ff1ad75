"""The project's stage loop on random tokens: what the benchmarks time and check, without plan, corpus or tokenizer."""

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from indelible.data.ledger import Ledger
from indelible.objectives import NextToken, NoGuard
from indelible.study.adapt import FullAdapt
from indelible.study.stage_spec import CorpusUse, StageData, StageSpec
from indelible.study.training import Optimization
from indelible.train.context import StageContext
from indelible.train.device import Device
from indelible.train.distributed import World
from indelible.train.loop import Loop
from indelible.train.program import get_program

OPTIMIZER: dict[str, Any] = {"lr": 1e-3, "weight_decay": 0.1, "betas": (0.9, 0.95)}
_STORE = "random-0"


class RandomStore:
    """A token store of a few windows, read round and round."""

    def __init__(self, windows: np.ndarray, on_read: Callable[[], None]) -> None:
        self._windows, self._on_read = windows, on_read

    def read(self, split: str, rows: Any, seq_len: int) -> tuple[Any, None]:
        """The windows of some rows, int64 (N, T + 1), and no mask."""
        self._on_read()
        return self._windows[rows % len(self._windows)], None


def stage_loop(
    settings: dict[str, Any],
    model: Any,
    windows: np.ndarray,
    device: Device,
    run_dir: Path,
    *,
    steps: int = 1_000_000,
    world: World | None = None,
    on_read: Callable[[], None] = lambda: None,
) -> Loop:
    """A loop that is ready for its first step.

    Args:
        settings: ``batch_size`` (sequences of a global batch), ``seq_len`` and ``precision``.
        model: a transformers model; its weights are where training starts.
        windows: int64 (N, T + 1).
        device: where it computes.
        run_dir: for resume states and metrics.
        steps: optimizer steps of the schedule.
        world: the ranks that train together; a single process by default.
        on_read: called before every batch is read; may raise.
    """
    batch, seq_len, world = settings["batch_size"], settings["seq_len"], world or World()
    program = get_program(model.config, 0.0, None, device)
    program.load_base({name: weight.detach() for name, weight in model.named_parameters()}, 0)
    world.wrap(program)
    rows = np.arange(batch * steps, dtype=np.uint32)
    ledger = Ledger((_STORE,), ("random",), np.zeros(len(rows), np.uint8), rows, seq_len)
    return Loop(
        StageContext(
            spec=_spec(settings),
            program=program,
            guard=None,
            ledger=ledger,
            stores={_STORE: RandomStore(windows, on_read)},
            stop_rule=None,
            watcher=None,
            run_dir=run_dir,
            progress=lambda now: None,
            fence=lambda: None,
            resume_seconds=1e9,
            world=world,
            identity={},
        )
    )


def _spec(settings: dict[str, Any]) -> StageSpec:
    batch = settings["batch_size"]
    training = Optimization(**OPTIMIZER, min_lr=1e-4, warmup_steps=10, global_batch_size=batch, max_loss=1e9)
    main = CorpusUse(purpose="pre", store=_STORE, first_window=0, windows=1)
    return StageSpec(
        stage="pretrain", code_version=1, seed=0, seq_len=settings["seq_len"], precision=settings["precision"],
        tokenizer="", model=None, init=None, parent=None, loss_on="all", training=training, objective=NextToken(),
        guard=NoGuard(), adapt=FullAdapt(), stop=None, data=StageData(main=main, total_windows=1, order="permutation"),
    )  # fmt: skip


def weights_digest(loop: Loop) -> str:
    """sha256 of all weights, in the order of their names."""
    found = hashlib.sha256()
    for name, weight in sorted(loop.program.all_weights().items()):
        found.update(name.encode() + weight.contiguous().numpy().tobytes())
    return found.hexdigest()
