"""Weights & Biases: a run a stage run, in the project $WANDB_PROJECT (``indelible``), grouped by study.

Its own settings hold: WANDB_MODE=offline writes below tracking/wandb/wandb, to be sent by `wandb sync`.
"""

import hashlib
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import wandb

from indelible.tracking.series import Row, Setting, TrackedRun

_LONGEST_ID = 128  # characters


class WandB:
    """Opens a run, sends and waits until it has arrived, each time: what was sent is known."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.ended_runs_only = os.environ.get("WANDB_MODE") == "offline"  # else a folder of its own for each part

    def send(self, run: TrackedRun, rows: Sequence[Row], end: Mapping[str, Setting], *, is_first: bool) -> None:
        """Continues the run of this id, or begins it."""
        self._folder.mkdir(parents=True, exist_ok=True)
        settings = wandb.Settings(
            console="off", silent=True, x_disable_stats=True, x_disable_meta=True, disable_git=True, disable_code=True
        )
        opened = wandb.init(
            project=os.environ.get("WANDB_PROJECT") or "indelible",
            id=_id(run.id),
            name=run.id,
            group=run.study,
            job_type=run.stage,
            config=dict(run.config),
            dir=str(self._folder),
            resume="allow",
            settings=settings,
        )
        opened.define_metric("*", step_metric="optimizer_step")
        for row in rows:
            finite = {key: value for key, value in row.values.items() if math.isfinite(value)}
            opened.log({"optimizer_step": row.step, "tokens": row.tokens, **finite})
        opened.summary.update({f"result.{name}": value for name, value in end.items()})
        opened.finish()

    def close(self) -> None:
        """Ends the process that wandb keeps beside this one."""
        wandb.teardown()


def _id(run_id: str) -> str:
    """Run ids name everything that goes into a run, so they are ids there, too."""
    if len(run_id) <= _LONGEST_ID:
        return run_id
    return f"{run_id[:100]}-{hashlib.sha256(run_id.encode()).hexdigest()[:12]}"


def open_tracker(folder: Path) -> WandB:
    """Weights & Biases; its local files below ``folder``."""
    return WandB(folder)
