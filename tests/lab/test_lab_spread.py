"""One stage run over two processes started by torchrun, with the fake engine and with the real one."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from rich.console import Console

from indelible.errors import UserError
from indelible.lab.runner import run_plan
from indelible.lab.spread import Exchange, Ranks, torchrun_command


def _two(out: Path) -> Path:
    plan = json.loads((out / "plan.json").read_text())
    plan["execution"] |= {"device": "cpu", "devices_per_run": 2}
    (out / "plan.json").write_text(json.dumps(plan))
    return out


def test_how_many_ranks(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    assert Ranks.of({}).total == 1
    assert Ranks.of({"devices_per_run": 4, "slurm": {"nodes": 2}}) == Ranks(1, 4)
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    spread = Ranks.of({"slurm": {"nodes": 2, "gpus_per_node": 8}})
    assert spread == Ranks(2, 8)
    command = torchrun_command(spread, Exchange(tmp_path / "pretrain-a", 3))
    assert command[:2] == ["srun", "--overlap"]
    assert {"--nnodes=2", "--nproc-per-node=8", "--rdzv-id=pretrain-a-3"} <= set(command)


def test_a_study_file_says_how_many_devices_a_run_takes(tiny_study: Callable[..., Path]) -> None:
    plain = tiny_study(name="plain")
    out = tiny_study({"execution": {"devices_per_run": 2, "slurm": {"gpus_per_node": 4}}}, "two")
    plans = [json.loads((folder / "plan.json").read_text()) for folder in (plain, out)]
    assert Ranks.of(plans[1]["execution"]).total == 2
    assert [plan["execution"]["devices_per_run"] for plan in plans] == [1, 2]
    assert plans[0]["stage_runs"] == plans[1]["stage_runs"]  # how it is executed is no part of what is computed
    with pytest.raises(UserError, match=r"devices_per_run = 8 is more than slurm\.gpus_per_node = 4"):
        tiny_study({"execution": {"devices_per_run": 8, "slurm": {"gpus_per_node": 4}}}, "eight")


def test_compile_may_be_switched_without_quotes(tiny_study: Callable[..., Path]) -> None:
    plans = [
        json.loads((tiny_study({"execution": {"compile": value}}, f"c{value}") / "plan.json").read_text())
        for value in (False, True, "auto")
    ]
    assert [plan["execution"]["compile"] for plan in plans] == ["off", "on", "auto"]


@pytest.mark.slow
def test_error_of_a_rank_is_the_runs_error(tmp_path: Path, fake: ModuleType) -> None:
    bad = {"fail": {"how": "error", "at": 1}}
    out = _two(fake.make_plan(tmp_path / "out", [("pretrain-a", None, bad)]))
    assert run_plan(out, 1, engine="fake_engine:run_one_rank", console=Console(quiet=True)) == 1
    failure = json.loads((out / "runs" / "pretrain-a" / "failure.json").read_text())
    assert (failure["kind"], failure["type"], failure["message"]) == ("error", "ValueError", "wrong by design")
    assert {path.name for path in (out / "runs" / "pretrain-a" / "lease").iterdir()} == {"1.json", "1.beat"}


@pytest.mark.slow
def test_stop_reaches_the_ranks_and_they_save(tmp_path: Path, fake: ModuleType) -> None:
    out = _two(fake.make_plan(tmp_path / "out", [("pretrain-a", None, {"steps": 100, "step_seconds": 0.2})]))
    code = "import sys; from pathlib import Path; from indelible.lab.runner import run_plan\n"
    code += "sys.exit(run_plan(Path(sys.argv[1]), 1, engine='fake_engine:run_one_rank'))"
    launcher = subprocess.Popen([sys.executable, "-c", code, str(out)], stdout=subprocess.PIPE, text=True)
    state, deadline = out / "runs" / "pretrain-a" / "resume" / "state.json", time.monotonic() + 60
    while not state.exists():
        assert time.monotonic() < deadline
        time.sleep(0.1)
    launcher.send_signal(signal.SIGINT)
    launcher.communicate(timeout=60)
    beat = json.loads((out / "runs" / "pretrain-a" / "lease" / "1.beat").read_text())
    assert beat["outcome"] == "stopped"
    assert beat["step"] >= 1
    command_lines = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True).stdout
    assert str(out) not in command_lines


@pytest.mark.slow
def test_real_stage_over_two_processes(tiny_study: Callable[..., Path], monkeypatch: Any) -> None:
    monkeypatch.setitem(os.environ, "OMP_NUM_THREADS", "1")
    alone, spread = tiny_study(name="alone"), tiny_study({"execution": {"devices_per_run": 2}}, "spread")
    for out in (alone, spread):
        assert run_plan(out, 1, console=Console(quiet=True)) == 0
    for path in sorted(alone.glob("runs/*/result.json")):
        one = json.loads(path.read_text())
        two = json.loads((spread / "runs" / path.parent.name / "result.json").read_text())
        assert two["environment"]["world_size"] == 2
        for corpus, loss in one["losses"].items():
            assert two["losses"][corpus]["nats_per_token"] == pytest.approx(loss["nats_per_token"], abs=1e-4)
