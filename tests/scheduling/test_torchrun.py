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

import psutil
import pytest

from indelible import records
from indelible.errors import UserError
from indelible.records import Evaluation, Plan, StageResult
from indelible.scheduling.launcher import launch
from indelible.scheduling.processes import descendants, end_groups
from indelible.scheduling.rank import _write_progress
from indelible.scheduling.torchrun import PROGRESS, Exchange, Ranks, torchrun_command
from indelible.study.execution import ExecutionSpec
from indelible.train.job import Progress

TWO = {"device": "cpu", "devices_per_run": 2}


def _wait(condition: Callable[[], Any], seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.1)


def test_how_many_ranks(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    assert Ranks.of(ExecutionSpec()).total == 1
    assert Ranks.of(ExecutionSpec(devices_per_run=4, slurm={"nodes": 2})) == Ranks(1, 4)
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    two_nodes = Ranks.of(ExecutionSpec(slurm={"nodes": 2, "gpus_per_node": 8}))
    assert two_nodes == Ranks(2, 8)
    assert Ranks.of(ExecutionSpec(slurm={"nodes": 2})) == Ranks(2, 1)
    command = torchrun_command(two_nodes, Exchange(tmp_path / "pretrain-a", 3))
    assert command[:2] == ["srun", "--overlap"]
    assert {"--nnodes=2", "--nproc-per-node=8", "--rdzv-id=pretrain-a-3"} <= set(command)


def test_torchrun_and_its_ranks_take_no_notice_of_slurms_warning(tmp_path: Path) -> None:
    command = torchrun_command(Ranks(1, 2), Exchange(tmp_path, 1))
    prefix = command[: command.index(sys.executable)]
    code = (
        "import signal, subprocess, sys; print(signal.getsignal(signal.SIGUSR2) is signal.SIG_IGN); sys.stdout.flush()"
    )
    code += "\nif len(sys.argv) == 1: subprocess.run([sys.executable, '-c', sys.stdin.read(), 'child'])"
    done = subprocess.run([*prefix, sys.executable, "-c", code], input=code, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["True", "True"]


def test_a_heartbeat_is_renamed_into_place_and_never_flushed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    flushed: list[int] = []
    monkeypatch.setattr(os, "fsync", flushed.append)
    now = Progress(3, 10, float("nan"), 30, 5.0, "training", lr=1e-3)
    _write_progress(tmp_path / "1.progress", now)
    read = PROGRESS.validate_json((tmp_path / "1.progress").read_bytes())
    assert (read.step, read.lr, read.phase) == (3, 1e-3, "training")
    assert [path.name for path in tmp_path.iterdir()] == ["1.progress"]
    assert flushed == []


def test_what_processes_started_ends_with_them_in_sessions_of_their_own_too() -> None:
    grandchild = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(600)"
    child = "import subprocess, sys, time\n"
    child += f"subprocess.Popen([sys.executable, '-c', {grandchild!r}], start_new_session=True)\n"
    child += "print('started', flush=True); time.sleep(600)"
    process = subprocess.Popen([sys.executable, "-c", child], start_new_session=True, stdout=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.readline()
    _wait(lambda: len(descendants([process.pid])) == 1)
    (below,) = descendants([process.pid])
    begun = time.monotonic()
    end_groups([process], patience_seconds=30.0)
    assert process.returncode == -signal.SIGTERM  # asked first
    assert time.monotonic() - begun < 20
    _wait(lambda: not below.is_running() or below.status() == psutil.STATUS_ZOMBIE, 5)
    end_groups([process])  # nothing to do, and no error
    assert descendants([process.pid]) == []


def test_a_study_file_says_how_many_devices_a_run_takes(tiny_study: Callable[..., Path]) -> None:
    plain = tiny_study(name="plain")
    out = tiny_study({"execution": {"devices_per_run": 2, "slurm": {"gpus_per_node": 4}}}, "two")
    one, two = (Plan.read(folder / "plan.json") for folder in (plain, out))
    assert one is not None
    assert two is not None
    assert Ranks.of(two.execution).total == 2
    assert [plan.execution.devices_per_run for plan in (one, two)] == [1, 2]
    assert one.stage_runs == two.stage_runs  # how it is executed is no part of what is computed
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
    out = fake.make_plan(tmp_path / "out", [("pretrain-a", None, bad)], execution=TWO)
    assert fake.run_quietly(out, 1, engine="fake_engine:run_one_rank")[0] == 1
    failure = json.loads((out / "runs" / "pretrain-a" / "failure.json").read_text())
    assert (failure["kind"], failure["type"], failure["message"]) == ("error", "ValueError", "wrong by design")
    assert {path.name for path in (out / "runs" / "pretrain-a" / "lease").iterdir()} == {"1.json", "1.beat"}


@pytest.mark.slow
def test_evaluations_beside_ranks_are_made_by_one_process_of_their_own(tmp_path: Path, fake: ModuleType) -> None:
    runs = [("pretrain-a", None, {"steps": 2})]
    out = fake.make_plan(tmp_path / "out", runs, execution=TWO)
    assert fake.run_quietly(out, 1, engine="fake_engine:run_one_rank")[0] == 0
    fake.make_plan(out, runs, execution=TWO, corpora=("music", "chemistry"))
    assert fake.run_quietly(out, 1, engine="fake_engine:run_one_rank")[0] == 0
    assert (out / "finished.log").read_text().split() == ["pretrain-a", "evaluations/pretrain-a"]
    assert sorted((out / "ranks.log").read_text().split()) == ["0/2", "1/2"]
    assert {path.name for path in (out / "evaluations" / "pretrain-a" / "lease").iterdir()} == {"1.json", "1.beat"}


@pytest.mark.slow
def test_stop_reaches_the_ranks_and_they_save(tmp_path: Path, fake: ModuleType) -> None:
    out = fake.make_plan(tmp_path / "out", [("pretrain-a", None, {"steps": 100, "step_seconds": 0.2})], execution=TWO)
    launcher = subprocess.Popen(
        fake.command(out, 1, engine="fake_engine:run_one_rank"), stdout=subprocess.PIPE, text=True
    )
    _wait((out / "runs" / "pretrain-a" / "resume" / "state.json").exists)
    launcher.send_signal(signal.SIGINT)
    launcher.communicate(timeout=60)
    beat = json.loads((out / "runs" / "pretrain-a" / "lease" / "1.beat").read_text())
    assert beat["outcome"] == "stopped"
    assert beat["step"] >= 1
    command_lines = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True).stdout
    assert str(out) not in command_lines


def _ranks_of(out: Path) -> list[psutil.Process]:
    pids = [int(path.read_text()) for path in (out / "runs" / "pretrain-a").glob("rank?.pid")]
    return [psutil.Process(pid) for pid in pids]


def _start_hanging_ranks(out: Path, fake: ModuleType) -> tuple["subprocess.Popen[bytes]", list[psutil.Process]]:
    fake.make_plan(out, [("pretrain-a", None, {})], execution=TWO)
    command = fake.command(out, 1, engine="fake_engine:run_hanging_ranks")
    launcher = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    _wait(lambda: len(list((out / "runs" / "pretrain-a").glob("rank?.pid"))) == 2)
    return launcher, _ranks_of(out)


def _are_gone(processes: list[psutil.Process]) -> bool:
    return not any(process.is_running() and process.status() != psutil.STATUS_ZOMBIE for process in processes)


@pytest.mark.slow
@pytest.mark.parametrize("victim", ["launcher", "worker", "torchrun"])
def test_no_rank_outlives_what_started_it(tmp_path: Path, fake: ModuleType, victim: str) -> None:
    """Ranks that hang and take no notice of SIGTERM go all the same, whoever is killed."""
    out = tmp_path / "out"
    launcher, ranks = _start_hanging_ranks(out, fake)
    try:
        torchrun = ranks[0].parent()
        assert torchrun is not None
        worker = torchrun.parent()
        assert worker is not None
        assert worker.ppid() == launcher.pid
        if victim == "launcher":  # twice: stop, and at once
            launcher.send_signal(signal.SIGINT)
            time.sleep(1.0)
            launcher.send_signal(signal.SIGINT)
            launcher.wait(30)
        else:
            {"worker": worker, "torchrun": torchrun}[victim].kill()
        _wait(lambda: _are_gone(ranks), 20)
    finally:
        below = descendants([launcher.pid])
        launcher.kill()
        launcher.wait()
        for process in (*below, *ranks):
            if process.is_running():
                process.kill()
    _wait(lambda: not _processes_that_name(out), 20)


def _processes_that_name(out: Path) -> list[psutil.Process]:
    return [
        process
        for process in psutil.process_iter(["cmdline"])
        if any(str(out) in part for part in process.info["cmdline"] or ())
    ]


@pytest.mark.slow
def test_real_stage_over_two_processes(tiny_study: Callable[..., Path], monkeypatch: Any) -> None:
    monkeypatch.setitem(os.environ, "OMP_NUM_THREADS", "1")
    alone, together = tiny_study(name="alone"), tiny_study({"execution": {"devices_per_run": 2}}, "together")
    for out in (alone, together):
        assert launch(out, 1).exit_code == 0
    plan = Plan.read(alone / "plan.json")
    assert plan is not None
    for run in plan.stage_runs:
        result = StageResult.read(records.run_dir(together, run.id) / "result.json")
        assert result is not None
        assert result.environment["world_size"] == 2
    compared = 0
    for checkpoint, wanted in plan.evaluations.items():
        for name in wanted:
            one, two = (Evaluation.read(records.evaluation_path(out, checkpoint, name)) for out in (alone, together))
            assert one is not None
            assert two is not None
            assert two.nats_per_token == pytest.approx(one.nats_per_token, abs=1e-4)
            compared += 1
    assert compared == 9  # three stages on three corpora
