"""A tiny checkpoint with a capability, the one before it had it, and a battery of seconds."""

import json
from pathlib import Path
from typing import Any

import pytest
from tiny_engine import TINY, run_all, runs_of

from indelible.records import run_dir

BATTERY: dict[str, Any] = {
    "name": "tiny",
    "adapt": ["full"],
    "lr": [3e-3, 1e-2],
    "replay": [0.05],
    "padding": False,
    "seeds": [0, 1],
    "updates": 4,
    "batch": 4,
    "seq_len": 32,
    "windows": 4,
    "curve_points": 3,
    "heldout_fraction": 0.1,
    "relearning": [1, 2],
    "corpora": {name: TINY["corpora"][name] for name in ("post", "ft")},
    "execution": {"compile": "off", "threads": 1, "device": "cpu"},
}


@pytest.fixture
def tiny_battery() -> dict[str, Any]:
    """The battery, to be changed."""
    return json.loads(json.dumps(BATTERY))


@pytest.fixture
def checkpoints(tiny_study) -> tuple[Path, Path]:
    """Folders: the checkpoint before the capability, and the one with it."""
    out = tiny_study({"posttrain": {"lr": 4e-3}}, "source")
    run_all(out, until="posttrain")
    before, after = (run_dir(out, runs_of(out, stage)[0].id) / "checkpoint" for stage in ("pretrain", "posttrain"))
    return before, after
