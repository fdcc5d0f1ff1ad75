"""The kill benchmark in small: a random killer of workers and launchers, and the results of a calm run."""

import importlib.util
import random
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from indelible.scheduling.launcher import launch

pytestmark = pytest.mark.slow

_BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


def test_random_killer_changes_nothing(tmp_path: Path, fake: ModuleType) -> None:
    spec = importlib.util.spec_from_file_location("kill_benchmark", _BENCHMARKS / "kill.py")
    kill = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(kill)
    step = {"steps": 20, "step_seconds": 0.1}
    runs: list[tuple[str, str | None, dict[str, Any]]] = [("pretrain-r", None, step)]
    runs += [(f"posttrain-{i}", "pretrain-r", {**step, "i": i}) for i in range(3)]
    runs += [(f"finetune-{i}{j}", f"posttrain-{i}", {**step, "i": i, "j": j}) for i in range(3) for j in range(2)]
    calm, rough = fake.make_plan(tmp_path / "calm", runs), fake.make_plan(tmp_path / "rough", runs)
    engine = "fake_engine:run_stage"
    assert launch(calm, 2, engine=engine).exit_code == 0
    done = kill.disturb(rough, 15, 2, random.Random(0), engine, 0.3)
    assert done["exit 0"] == 1
    assert done["worker"] + done["launcher"] >= 8
    assert kill.cut_short(rough) > 0  # the killer met runs in the middle
    assert kill.outcome(rough) == kill.outcome(calm)
    assert kill.losses(rough) == kill.losses(calm)
    assert len(kill.losses(calm)) == 10
    assert sum(kill.finishes(rough).values()) == 10
    assert max(kill.finishes(rough)) == 1
    assert kill.leftovers(rough) == []
