"""Worker jobs on a real Slurm: nodes die, jobs are preempted, launchers are closed; results stay bitwise the same."""

import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from indelible.errors import UserError
from indelible.scheduling.launcher import launch
from indelible.scheduling.snapshot import snapshot_of

pytestmark = pytest.mark.slow

_HERE = Path(__file__).parent
_ENGINE = "fake_engine:run_stage"
_SLURM = {"time_minutes": 10, "cpus_per_task": 2}


def _load(name: str, path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


toy = _load("toy_cluster", _HERE / "toy_cluster.py")
fake = _load("fake_engine", _HERE.parent / "scheduling" / "fake_engine.py")


@pytest.fixture(scope="module")
def cluster() -> Iterator[ModuleType]:
    """A cluster of two nodes; skips with the reason where none can be had."""
    try:
        toy.up()
    except toy.CannotStart as why:
        pytest.skip(f"no Slurm here: {why}")
    yield toy
    toy.down()


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch, cluster: ModuleType) -> Iterator[None]:
    monkeypatch.setenv("SLURM_CONF", cluster.environment()["SLURM_CONF"])
    monkeypatch.setenv(
        "PYTHONPATH", os.pathsep.join([str(_HERE.parent / "scheduling"), os.environ.get("PYTHONPATH", "")])
    )
    yield
    subprocess.run(("scancel", "--quiet", "--signal=KILL", "--user=root"), env=cluster.environment(), check=False)
    subprocess.run(("scancel", "--quiet", "--user=root"), env=cluster.environment(), check=False)
    _wait(lambda: not cluster.call("squeue", "-h"), 30)


def _wait(condition: Callable[[], Any], seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.1)


def _study(out: Path, step_seconds: float, slurm: dict[str, Any] | None = None) -> Path:
    quick = {"steps": 6, "step_seconds": step_seconds}
    runs: list[tuple[str, str | None, dict[str, Any]]] = [("pretrain-r", None, quick)]
    for i in range(3):
        runs.append((f"posttrain-{i}", "pretrain-r", {**quick, "i": i}))
        runs += [(f"finetune-{i}{j}", f"posttrain-{i}", {**quick, "i": i, "j": j}) for j in range(2)]
    return fake.make_plan(out, runs, execution={"device": "cpu", "slurm": {**_SLURM, **(slurm or {})}})


def _run(out: Path, executor: str = "slurm", **options: Any) -> tuple[int, str]:
    return fake.run_quietly(out, 4, executor, **options)  # on Slurm two jobs of two workers


def _launch(out: Path, engine: str = _ENGINE) -> "subprocess.Popen[str]":
    return subprocess.Popen(fake.command(out, 4, "slurm", engine), stdout=subprocess.PIPE, text=True)


def _weights(out: Path) -> dict[str, str]:
    return {path.parent.name: json.loads(path.read_text())["weights_sha256"] for path in out.glob("runs/*/result.json")}


def _finished(out: Path) -> Counter[str]:
    return Counter((out / "finished.log").read_text().split())


def _started(out: Path) -> int:
    return len(list(out.glob("runs/*/lease/1.json")))


def test_killed_node_changes_nothing(tmp_path: Path, cluster: ModuleType) -> None:
    out = _study(tmp_path / "slurm", 0.5)
    launcher = _launch(out)
    _wait(lambda: any(b'"training"' in path.read_bytes() for path in out.glob("runs/posttrain-*/lease/1.beat")))
    cluster.kill_node("n1")
    time.sleep(1.0)
    cluster.start_node("n1")
    text, _ = launcher.communicate(timeout=180)
    assert launcher.returncode == 0, text
    assert set(_finished(out).values()) == {1}
    assert len(list(out.glob("runs/*/lease/2.json"))) >= 1  # the node did work when it died
    local = _study(tmp_path / "local", 0.5)
    assert _run(local, "local")[0] == 0
    assert _weights(local) == _weights(out)
    assert "Nothing to do" in _run(out)[1]


def test_launcher_can_be_closed_and_opened_again(tmp_path: Path, cluster: ModuleType) -> None:
    out = _study(tmp_path / "out", 1.0)  # a study that outlives the closing of its launcher
    launcher = _launch(out)
    _wait(lambda: _started(out))
    launcher.send_signal(signal.SIGINT)
    text, _ = launcher.communicate(timeout=30)
    assert launcher.returncode == 1
    assert "go on; the same command watches again, `scancel" in " ".join(text.split())
    before = set(cluster.call("squeue", "-h", "-o", "%F").split())
    assert before
    done = snapshot_of(out).counts["done"]
    code, text = _run(out)
    assert code == 0
    assert done < 10
    jobs = json.loads((out / "workers" / "slurm.json").read_text())["jobs"]
    assert set(jobs) == before  # the jobs of the first launch did it all
    assert set(_finished(out).values()) == {1}


def test_preempted_jobs_save_and_are_put_back(tmp_path: Path, cluster: ModuleType) -> None:
    out = _study(tmp_path / "out", 0.5)
    launcher = _launch(out)
    _wait(lambda: list(out.glob("runs/pretrain-r/resume/state.json")))
    cluster.call("sbatch", "-p", "urgent", "-N2", "--exclusive", "-o", "/dev/null", "--wrap", "sleep 2")
    beat = out / "runs" / "pretrain-r" / "lease" / "1.beat"
    _wait(lambda: json.loads(beat.read_text())["outcome"] == "stopped")
    text, _ = launcher.communicate(timeout=180)
    assert launcher.returncode == 0, text
    assert set(_finished(out).values()) == {1}
    assert json.loads((out / "runs" / "pretrain-r" / "lease" / "2.json").read_text())["failures"] == 0
    restarts = [line for path in out.glob("workers/slurm/*.out") for line in path.read_text().splitlines()]
    assert sum("Starting with" in line for line in restarts) >= 3  # two jobs, at least one of them twice


def test_before_the_time_limit_jobs_save_and_ask_to_be_put_back(tmp_path: Path, cluster: ModuleType) -> None:
    out = _study(tmp_path / "out", 0.5)
    launcher = _launch(out)
    _wait(lambda: list(out.glob("runs/pretrain-r/resume/state.json")))
    job = json.loads((out / "workers" / "slurm.json").read_text())["jobs"][0]
    cluster.call("scancel", "--signal=USR2", job)  # what Slurm sends by itself two minutes before the limit
    beat = out / "runs" / "pretrain-r" / "lease" / "1.beat"
    _wait(lambda: json.loads(beat.read_text())["outcome"] == "stopped")
    text, _ = launcher.communicate(timeout=180)
    assert launcher.returncode == 0, text
    assert set(_finished(out).values()) == {1}


def test_many_runs_share_one_allocation(tmp_path: Path, cluster: ModuleType) -> None:
    out = _study(tmp_path / "out", 0.05)
    assert _run(out)[0] == 0
    records = [json.loads(path.read_text()) for path in out.glob("runs/*/lease/1.json")]
    assert len(records) == 10
    assert len({record["owner"]["pid"] for record in records}) <= 4  # two jobs of two long-lived workers
    assert len(json.loads((out / "workers" / "slurm.json").read_text())["jobs"]) == 1


def test_workers_of_a_job_share_out_the_gpus_that_slurm_gave_it(tmp_path: Path, cluster: ModuleType) -> None:
    if not cluster.has_gpus():
        pytest.skip("device files cannot be made here")
    runs: list[tuple[str, str | None, dict[str, Any]]] = [
        (f"pretrain-{i}", None, {"steps": 4, "step_seconds": 0.5, "i": i}) for i in range(4)
    ]
    execution = {"device": "auto", "slurm": {**_SLURM, "gpus_per_node": 2}}
    out = fake.make_plan(tmp_path / "out", runs, execution=execution)
    assert launch(out, 2, "slurm", engine="fake_engine:run_on_gpus").exit_code == 0
    used = Counter((out / "gpus.log").read_text().split())
    assert set(used) == {"0", "1"}  # each worker one of the two that its job has
    assert sum(used.values()) == 4


def test_one_stage_over_two_nodes(tmp_path: Path, cluster: ModuleType) -> None:
    execution = {"device": "cpu", "slurm": {**_SLURM, "nodes": 2}}
    out = fake.make_plan(tmp_path / "out", [("pretrain-r", None, {"steps": 5})], execution=execution)
    assert launch(out, 1, "slurm", engine="fake_engine:run_one_rank").exit_code == 0
    assert set(_finished(out).values()) == {1}
    assert sorted((out / "ranks.log").read_text().split()) == ["0/2", "1/2"]


def test_real_stages_on_a_dying_node_give_the_local_results(
    tmp_path: Path, cluster: ModuleType, tiny_study: Callable[..., Path]
) -> None:
    over = {
        "exposure": {"fraction": [0, 1.0]},
        "pretrain": {"tokens": 14_800, "global_batch_size": 1},
        "execution": {"slurm": _SLURM},
    }
    over["execution"] |= {"resume_seconds": 0.2}
    local, out = tiny_study(over, "local"), tiny_study(over, "slurm")
    assert launch(local, 2).exit_code == 0
    engine = "indelible.train.stage:run_stage"
    launcher = _launch(out, engine)
    _wait(lambda: any(b'"training"' in path.read_bytes() for path in out.glob("runs/pretrain-*/lease/1.beat")))
    cluster.kill_node("n1")
    cluster.kill_node("n2")
    time.sleep(1.0)
    cluster.start_node("n1")
    cluster.start_node("n2")
    text, _ = launcher.communicate(timeout=240)
    assert launcher.returncode == 0, text
    assert _weights(out) == _weights(local)
    assert list(out.glob("runs/*/lease/2.json"))


def test_evaluations_that_are_left_are_made_in_a_job(tmp_path: Path, cluster: ModuleType) -> None:
    out = _study(tmp_path / "out", 0.0)
    assert _run(out, "local")[0] == 0
    plan = json.loads((out / "plan.json").read_text())
    runs = [(run["id"], run["parent"], run["spec"]) for run in plan["stage_runs"]]
    fake.make_plan(out, runs, corpora=("music", "chemistry"), execution=plan["execution"])
    code, text = _run(out)
    assert code == 0
    assert "20 done" in text
    assert _finished(out) == {name: 1 for run, _, _ in runs for name in (run, f"evaluations/{run}")}


def test_slurms_warning_to_a_whole_step_reaches_the_worker_and_spares_its_ranks(
    tmp_path: Path, cluster: ModuleType
) -> None:
    execution = {"device": "cpu", "devices_per_run": 2, "slurm": {**_SLURM, "cpus_per_task": 2}}
    spec = {"steps": 40, "step_seconds": 0.25}
    out = fake.make_plan(tmp_path / "out", [("pretrain-r", None, spec)], execution=execution)
    launcher = _launch(out, "fake_engine:run_one_rank")
    _wait((out / "runs" / "pretrain-r" / "resume" / "state.json").exists)
    job = json.loads((out / "workers" / "slurm.json").read_text())["jobs"][0]
    cluster.call("scancel", "--signal=USR2", job)
    beat = out / "runs" / "pretrain-r" / "lease" / "1.beat"
    _wait(lambda: json.loads(beat.read_text())["outcome"] is not None)
    assert json.loads(beat.read_text())["outcome"] == "stopped"  # the ranks saved: they were not killed
    text, _ = launcher.communicate(timeout=180)
    assert launcher.returncode == 0, text
    assert set(_finished(out).values()) == {1}
    assert json.loads((out / "runs" / "pretrain-r" / "lease" / "2.json").read_text())["failures"] == 0


def test_what_slurm_refuses_is_one_clear_message(tmp_path: Path, cluster: ModuleType) -> None:
    out = _study(tmp_path / "out", 0.0, {"partition": "nowhere"})
    with pytest.raises(UserError, match=r"Slurm did not take the job: [\s\S]*partition"):
        _run(out)


def test_without_slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = _study(tmp_path / "out", 0.0)
    with monkeypatch.context() as patch:
        patch.setenv("PATH", str(tmp_path))
        with pytest.raises(UserError, match="there is no `squeue` here"):
            _run(out)
