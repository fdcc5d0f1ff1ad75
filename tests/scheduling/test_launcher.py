"""The launcher with real worker processes and a fake engine: everything is done once, whatever happens."""

import json
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from indelible.errors import UserError
from indelible.records import PlannedChain, StageResult
from indelible.scheduling.executors import local
from indelible.scheduling.folder import StudyFolder
from indelible.scheduling.launcher import Observer, launch
from indelible.scheduling.lease import Lease, LeaseObserver
from indelible.scheduling.run_index import RunIndex
from indelible.scheduling.settings import WorkerSettings, WorkerStart
from indelible.scheduling.snapshot import Snapshot, snapshot_of
from indelible.scheduling.units import longest_chain_first, seed_by_seed

ENGINE = "fake_engine:run_stage"


def _tree(step_seconds: float = 0.0, **root: Any) -> list[tuple[str, str | None, dict[str, Any]]]:
    """One pretrain, two posttrain, two finetune below each."""
    quick = {"steps": 3, "step_seconds": step_seconds}
    runs: list[tuple[str, str | None, dict[str, Any]]] = [("pretrain-r", None, {**quick, **root})]
    for i in range(2):
        runs.append((f"posttrain-{i}", "pretrain-r", {**quick, "i": i}))
        runs += [(f"finetune-{i}{j}", f"posttrain-{i}", {**quick, "i": i, "j": j}) for j in range(2)]
    return runs


def _run(out: Path, workers: int | None = 2, **options: Any) -> tuple[int, str]:
    return sys.modules["fake_engine"].run_quietly(out, workers, **options)


def _weights(out: Path) -> dict[str, str]:
    return {path.parent.name: json.loads(path.read_text())["weights_sha256"] for path in out.glob("runs/*/result.json")}


def _finished(out: Path) -> Counter[str]:
    return Counter((out / "finished.log").read_text().split())


def _launch(out: Path) -> "subprocess.Popen[str]":
    return subprocess.Popen(sys.modules["fake_engine"].command(out), stdout=subprocess.PIPE, text=True)


def _wait(condition: Callable[[], Any], seconds: float = 15.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.02)


def test_whole_tree_once_and_then_nothing(tmp_path: Path, fake: ModuleType) -> None:
    out = fake.make_plan(tmp_path / "out", _tree())
    code, text = _run(out)
    assert code == 0
    assert "toy: 7 done" in text
    assert set(_finished(out).values()) == {1}
    assert not list(out.rglob("*.tmp"))
    code, text = _run(out)
    assert (code, "7 done. Nothing to do." in text) == (0, True)
    assert set(_finished(out).values()) == {1}


def test_leftovers_of_a_kill_behind_the_last_result_are_removed(tmp_path: Path, fake: ModuleType) -> None:
    out = fake.make_plan(tmp_path / "out", _tree())
    assert _run(out)[0] == 0
    state = out / "runs" / "finetune-00" / "resume" / "state.json"
    state.parent.mkdir()
    state.write_text("{}")
    assert "Nothing to do" in _run(out)[1]
    assert not state.parent.exists()


def test_replanned_folder_runs_only_what_is_new(tmp_path: Path, fake: ModuleType) -> None:
    out = fake.make_plan(tmp_path / "out", _tree())
    assert _run(out)[0] == 0
    fake.make_plan(out, [*_tree(), ("finetune-new", "posttrain-0", {"steps": 2, "lr": 3})])
    assert _run(out)[0] == 0
    assert set(_finished(out).values()) == {1}
    assert _finished(out)["finetune-new"] == 1


def test_deterministic_error_fails_at_once_and_blocks_only_its_descendants(tmp_path: Path, fake: ModuleType) -> None:
    runs = _tree()
    runs[1][2]["fail"] = {"how": "error", "at": 1}  # posttrain-0
    out = fake.make_plan(tmp_path / "out", runs)
    code, text = _run(out)
    assert code == 1
    assert "ValueError: wrong by design" in text
    counts = snapshot_of(out).counts
    assert (counts["done"], counts["failed"], counts["blocked"]) == (4, 1, 2)
    failure = json.loads((out / "runs" / "posttrain-0" / "failure.json").read_text())
    assert (failure["kind"], failure["type"], failure["attempt"], failure["is_final"]) == (
        "error",
        "ValueError",
        1,
        True,
    )
    assert "_maybe_fail" in failure["traceback"]
    # the same command tries it again, once: it may have been mended
    assert _run(out)[0] == 1
    assert (out / "runs" / "posttrain-0" / "tries").read_text() == "xx"


@pytest.mark.parametrize("how", ["io", "memory", "kill"])
def test_infrastructure_errors_are_tried_again(tmp_path: Path, fake: ModuleType, how: str) -> None:
    runs = _tree()
    runs[2][2]["fail"] = {"how": how, "at": 1, "times": 2}
    out = fake.make_plan(tmp_path / "out", runs)
    assert _run(out)[0] == 0
    assert set(_finished(out).values()) == {1}
    assert json.loads((out / "runs" / runs[2][0] / "lease" / "3.json").read_text())["generation"] == 3


@pytest.mark.parametrize("how", ["io", "kill"])
def test_attempts_without_progress_are_limited_and_the_same_command_tries_again(
    tmp_path: Path, fake: ModuleType, how: str
) -> None:
    bad = {"steps": 3, "fail": {"how": how, "at": 0, "times": 3}}
    out = fake.make_plan(tmp_path / "out", [("pretrain-a", None, bad), ("finetune-b", "pretrain-a", {})])
    assert _run(out, 1)[0] == 1
    failure = json.loads((out / "runs" / "pretrain-a" / "failure.json").read_text())
    assert (failure["kind"], failure["failures"]) == ("infrastructure", 3)
    if how == "kill":
        assert "3 workers in a row ended" in failure["message"]
    assert (out / "runs" / "pretrain-a" / "tries").read_text() == "xxx"
    assert _run(out, 1)[0] == 0


def test_killed_but_advancing_run_is_never_given_up(tmp_path: Path, fake: ModuleType) -> None:
    from indelible.scheduling import failures

    run_dir = tmp_path / "r"
    for generation, saved in ((1, "a"), (2, "b"), (3, "c"), (4, "d")):
        view = LeaseObserver().look(run_dir)
        assert failures.failures_before(run_dir, view) == 0
        lease = Lease.take(run_dir, generation, "w")
        assert lease is not None
        (run_dir / "resume").mkdir(exist_ok=True)
        (run_dir / "resume" / saved).write_text(saved)
        lease.abandon()  # as if killed: no outcome
    lease = Lease.take(run_dir, 5, "w")
    assert lease is not None
    lease.abandon()
    assert failures.failures_before(run_dir, LeaseObserver().look(run_dir)) == 1


def test_diverged_parent_is_a_result_and_exits_0(tmp_path: Path, fake: ModuleType) -> None:
    out = fake.make_plan(tmp_path / "out", _tree(diverges=True))
    assert _run(out)[0] == 0
    assert snapshot_of(out).counts["diverged"] == 7
    assert _finished(out) == {"pretrain-r": 1}
    assert "Nothing to do" in _run(out)[1]


def test_full_disk_stops_everything_without_costing_an_attempt(tmp_path: Path, fake: ModuleType) -> None:
    runs = _tree(fail={"how": "full", "at": 1, "unless": str(tmp_path / "freed")})
    out = fake.make_plan(tmp_path / "out", runs)
    for _ in range(4):  # more often than the limit of attempts
        code, text = _run(out)
        assert code == 1
        assert "its disk is full or read-only. The same command continues." in " ".join(text.split())
        assert snapshot_of(out).counts["planned"] == 7
    (tmp_path / "freed").touch()
    assert _run(out)[0] == 0
    assert set(_finished(out).values()) == {1}


def test_really_full_disk(tmp_path: Path, fake: ModuleType) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=512k", "tmpfs", str(disk)], capture_output=True)
    if mounted.returncode != 0:
        pytest.skip("mounting needs root")
    try:
        out = fake.make_plan(disk / "out", _tree(0.05))
        (disk / "ballast").write_bytes(b"\0" * 400_000)
        code, text = _run(out)
        if code == 0:
            pytest.fail("the disk was not small enough for the test")
        assert "cannot be written" in text or "disk is full" in " ".join(text.split())
        json.loads((out / "plan.json").read_text())
        published = {path.parent.name for path in out.glob("runs/*/result.json")}
        trained = _finished(out)  # one whose result did not fit on the disk any more is in here, too
        (disk / "ballast").unlink()
        assert _run(out)[0] == 0
        assert not published & set(_finished(out) - trained), "what had been published was trained again"
        assert snapshot_of(out).counts["done"] == 7
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def test_folder_that_cannot_be_written_is_refused(tmp_path: Path, fake: ModuleType) -> None:
    out = fake.make_plan(tmp_path / "out", _tree())
    (out / "runs").write_text("a file where the folder should be")
    with pytest.raises(UserError, match="cannot be written"):
        _run(out)


def test_deleted_parent_checkpoint_is_made_again(tmp_path: Path, fake: ModuleType) -> None:
    out = fake.make_plan(tmp_path / "out", _tree())
    assert _run(out)[0] == 0
    before = _weights(out)
    shutil.rmtree(out / "runs" / "pretrain-r" / "checkpoint")
    shutil.rmtree(out / "runs" / "posttrain-0" / "checkpoint")
    assert "Nothing to do" in _run(out)[1]  # nobody needs them
    shutil.rmtree(out / "runs" / "finetune-00")
    assert _run(out)[0] == 0
    assert _weights(out) == before
    expected = {"pretrain-r": 2, "posttrain-0": 2, "finetune-00": 2}
    assert _finished(out) == {**dict.fromkeys(before, 1), **expected}


def test_other_spec_in_a_run_folder_is_refused(tmp_path: Path, fake: ModuleType) -> None:
    out = fake.make_plan(tmp_path / "out", _tree())
    assert _run(out)[0] == 0
    fake.make_plan(out, [("pretrain-r", None, {"steps": 99})])
    with pytest.raises(UserError, match=r"pretrain-r/spec\.json is not the spec that plan\.json has"):
        _run(out)


def test_two_launchers_divide_the_work(tmp_path: Path, fake: ModuleType) -> None:
    out = fake.make_plan(tmp_path / "out", _tree(0.15))
    launchers = [_launch(out), _launch(out)]
    for launcher in launchers:
        launcher.communicate(timeout=60)
    assert [launcher.returncode for launcher in launchers] == [0, 0]
    assert set(_finished(out).values()) == {1}
    workers = {json.loads(path.read_text())["owner"]["pid"] for path in out.glob("runs/*/lease/1.json")}
    assert len(workers) > 2


def test_interrupt_saves_and_the_same_command_continues(tmp_path: Path, fake: ModuleType) -> None:
    out = fake.make_plan(tmp_path / "out", [("pretrain-a", None, {"steps": 40, "step_seconds": 0.1})])
    launcher = _launch(out)
    _wait(lambda: (out / "runs" / "pretrain-a" / "resume" / "state.json").exists())
    launcher.send_signal(signal.SIGINT)
    text, _ = launcher.communicate(timeout=30)
    assert launcher.returncode == 1
    assert "Stopping: workers save their state." in text
    assert "Stopped: asked to stop. The same command continues." in text
    saved = json.loads((out / "runs" / "pretrain-a" / "resume" / "state.json").read_text())["step"]
    assert saved < 40
    beat = json.loads((out / "runs" / "pretrain-a" / "lease" / "1.beat").read_text())
    assert beat["outcome"] == "stopped"
    assert _run(out)[0] == 0
    assert json.loads((out / "runs" / "pretrain-a" / "lease" / "2.json").read_text())["failures"] == 0
    assert not (out / "runs" / "pretrain-a" / "resume").exists()


def test_nohup_is_respected(tmp_path: Path, fake: ModuleType) -> None:
    out = fake.make_plan(tmp_path / "out", [("pretrain-a", None, {"steps": 15, "step_seconds": 0.1})])
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # children inherit it, as they do from nohup
    try:
        launcher = _launch(out)
    finally:
        signal.signal(signal.SIGHUP, before)
    _wait(lambda: (out / "runs" / "pretrain-a" / "resume" / "state.json").exists())
    launcher.send_signal(signal.SIGHUP)
    launcher.communicate(timeout=60)
    assert launcher.returncode == 0


def test_killed_launcher_takes_its_workers_along_and_costs_no_attempt(tmp_path: Path, fake: ModuleType) -> None:
    out = fake.make_plan(tmp_path / "out", [("pretrain-a", None, {"steps": 60, "step_seconds": 0.1})])
    launcher = _launch(out)
    _wait(lambda: (out / "runs" / "pretrain-a" / "resume" / "state.json").exists())
    pid = json.loads((out / "runs" / "pretrain-a" / "lease" / "1.json").read_text())["owner"]["pid"]
    launcher.kill()
    launcher.communicate()
    _wait(lambda: not Path(f"/proc/{pid}").exists())
    assert json.loads((out / "runs" / "pretrain-a" / "lease" / "1.beat").read_text())["outcome"] == "stopped"
    assert snapshot_of(out).counts["planned"] == 1


def test_stopped_worker_that_comes_back_writes_nothing(tmp_path: Path, fake: ModuleType) -> None:
    """SIGSTOP for longer than the lease: another worker finishes; the first one wakes up and leaves all as it is."""
    out = fake.make_plan(tmp_path / "out", [("pretrain-a", None, {"steps": 20, "step_seconds": 0.05})])
    settings = WorkerSettings(out=out, engine=ENGINE, lease_seconds=1.5)
    command = [sys.executable, "-m", "indelible.scheduling.worker"]
    starts = [WorkerStart(settings=settings, label=label).model_dump_json() for label in ("first", "second")]
    first = subprocess.Popen([*command, starts[0]], stdout=subprocess.PIPE, text=True)
    _wait(lambda: (out / "runs" / "pretrain-a" / "resume" / "state.json").exists())
    first.send_signal(signal.SIGSTOP)
    subprocess.run([*command, starts[1]], check=True, stdout=subprocess.DEVNULL)
    result = (out / "runs" / "pretrain-a" / "result.json").read_bytes()
    first.send_signal(signal.SIGCONT)
    text, _ = first.communicate(timeout=20)
    assert "attempt 1 was taken over by another worker" in text
    assert (out / "runs" / "pretrain-a" / "result.json").read_bytes() == result
    assert _finished(out) == {"pretrain-a": 1}


@pytest.mark.parametrize(
    ("death", "reason"),
    [
        ("os._exit(3)", "with code 3"),
        ("os.kill(os.getpid(), 9)", r"by SIGKILL \(out of memory\?\)"),
        ("os.kill(os.getpid(), 4)", "by SIGILL"),
    ],
)
def test_workers_that_die_before_their_first_unit_end_the_launch(
    tmp_path: Path, fake: ModuleType, monkeypatch: pytest.MonkeyPatch, death: str, reason: str
) -> None:
    monkeypatch.setattr(local, "_RESTART_SECONDS", 0.0)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "shadow"))
    (tmp_path / "shadow").mkdir()
    (tmp_path / "shadow" / "sitecustomize.py").write_text(f"import os; {death}")
    out = fake.make_plan(tmp_path / "out", _tree())
    code, text = _run(out, 1)
    assert code == 1
    assert re.search(
        rf"w0 ended 5 times in a row before it could take a run, the last time {reason}.*; see \S+w0\.log",
        " ".join(text.split()),
    )


@pytest.mark.slow
def test_a_death_after_the_first_unit_is_no_early_crash(
    tmp_path: Path, fake: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(local, "_RESTART_SECONDS", 0.0)
    runs: list[tuple[str, str | None, dict[str, Any]]] = [
        (f"pretrain-{i}", None, {"i": i, "fail": {"how": "kill", "at": 1, "times": 1}}) for i in range(6)
    ]
    out = fake.make_plan(tmp_path / "out", runs)
    assert _run(out, 1)[0] == 0  # one worker, killed six times in a row
    assert snapshot_of(out).counts["done"] == 6


def test_longest_chain_first(tmp_path: Path, fake: ModuleType) -> None:
    runs = [
        ("pretrain-short", None, {"steps": 1}),
        ("pretrain-long", None, {"steps": 2}),
        ("finetune-a", "pretrain-long", {"steps": 50}),
        ("finetune-b", "pretrain-short", {"steps": 5}),
    ]
    out = fake.make_plan(tmp_path / "out", runs)
    index = RunIndex(StudyFolder.open(out))
    priorities = longest_chain_first(unit for unit in index.units.values() if unit.run is not None)
    assert priorities == {"pretrain-short": 6, "pretrain-long": 52, "finetune-a": 50, "finetune-b": 5}
    assert [unit.id for unit, _ in index.ready()] == ["pretrain-long", "pretrain-short"]


def test_priorities_are_a_function_that_may_be_replaced(tmp_path: Path, fake: ModuleType) -> None:
    runs: list[tuple[str, str | None, dict[str, Any]]] = [(f"pretrain-{i}", None, {"steps": 1 + i}) for i in range(3)]
    folder = StudyFolder.open(fake.make_plan(tmp_path / "out", runs))
    as_listed = RunIndex(folder, priorities=lambda units: {unit.id: -i for i, unit in enumerate(units)})
    assert [unit.id for unit, _ in as_listed.ready()] == ["pretrain-0", "pretrain-1", "pretrain-2"]
    assert [unit.id for unit, _ in RunIndex(folder).ready()] == ["pretrain-2", "pretrain-1", "pretrain-0"]


def test_seed_by_seed_finishes_whole_chains_first(tmp_path: Path, fake: ModuleType) -> None:
    runs: list[tuple[str, str | None, dict[str, Any]]] = []
    for seed in (0, 1):
        runs.append((f"pretrain-{seed}", None, {"steps": 50 + seed, "seed": seed}))
        runs.append((f"finetune-{seed}", f"pretrain-{seed}", {"steps": 1, "seed": seed}))
    out = fake.make_plan(tmp_path / "out", runs)
    folder = StudyFolder.open(out)
    chains = tuple(
        PlannedChain(columns={"seed": seed}, stages={"pretrain": f"pretrain-{seed}", "finetune": f"finetune-{seed}"})
        for seed in (0, 1)
    )
    folder = replace(folder, plan=folder.plan.model_copy(update={"chains": chains}))
    units = [unit for unit in RunIndex(folder).units.values() if unit.run is not None]

    def order(priorities: Mapping[str, float]) -> list[str]:
        return sorted(priorities, key=lambda unit: -priorities[unit])

    assert order(seed_by_seed(folder)(units)) == ["pretrain-0", "finetune-0", "pretrain-1", "finetune-1"]
    assert order(longest_chain_first(units))[:2] == ["pretrain-1", "pretrain-0"]
    execution = folder.plan.execution.model_copy(update={"order": "seed-by-seed"})
    folder = replace(folder, plan=folder.plan.model_copy(update={"execution": execution}))
    assert [unit.id for unit, _ in RunIndex(folder).ready()] == ["pretrain-0", "pretrain-1"]


def test_wrong_requests(tmp_path: Path, fake: ModuleType) -> None:
    out = fake.make_plan(tmp_path / "out", _tree())
    with pytest.raises(UserError, match=r"--executor pbs: expected one of local, slurm"):
        _run(out, executor="pbs")
    with pytest.raises(UserError, match="--workers 0: at least 1"):
        _run(out, 0)
    with pytest.raises(UserError, match=r"no plan\.json"):
        _run(tmp_path / "nowhere")


def test_more_devices_a_run_than_the_machine_shows(
    tmp_path: Path, fake: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = fake.make_plan(tmp_path / "out", _tree(), execution={"devices_per_run": 4})
    monkeypatch.setattr("indelible.host._num_gpus", lambda: 8)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    with pytest.raises(UserError, match=r"devices_per_run = 4, and this machine shows 2 GPU\(s\) \(0, 1\); lower it"):
        _run(out)


@pytest.mark.parametrize(
    ("runs", "message"),
    [
        ([("../../etc", None, {})], "no plain folder name"),
        ([("pretrain-a", None, {}), ("pretrain-a", None, {})], "listed twice"),
        ([("finetune-a", "pretrain-b", {}), ("pretrain-b", None, {})], "not listed before it"),
    ],
)
def test_plans_that_make_no_sense(tmp_path: Path, fake: ModuleType, runs: Any, message: str) -> None:
    with pytest.raises(UserError, match=message):
        StudyFolder.open(fake.make_plan(tmp_path / "out", runs))


def test_plan_of_another_format(tmp_path: Path) -> None:
    (tmp_path / "plan.json").write_text('{"format": 7}')
    with pytest.raises(UserError, match=r"plan\.json: format 7 where 2 is expected"):
        StudyFolder.open(tmp_path)


def test_scan_looks_only_into_folders_that_exist(
    tmp_path: Path, fake: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A look at 10,000 runs of which two have begun must not cost 10,000 looks at files."""
    runs: list[tuple[str, str | None, dict[str, Any]]] = [(f"pretrain-{i}", None, {}) for i in range(100)]
    runs += [(f"finetune-{i}-{j}", f"pretrain-{i}", {}) for i in range(100) for j in range(99)]
    out = fake.make_plan(tmp_path / "out", runs)
    for name in ("pretrain-3", "finetune-4-5"):
        (out / "runs" / name).mkdir(parents=True)
    looked: list[Path] = []
    read = StageResult.read
    monkeypatch.setattr(StageResult, "read", lambda path: looked.append(path) or read(path))
    assert snapshot_of(out).counts["planned"] == 10_000
    assert {path.parent.name for path in looked} == {"pretrain-3", "finetune-4-5"}


def test_launcher_threads_do_not_need_signals(tmp_path: Path, fake: ModuleType) -> None:
    out = fake.make_plan(tmp_path / "out", [("pretrain-a", None, {})])
    codes: list[int] = []
    thread = threading.Thread(target=lambda: codes.append(_run(out, 1)[0]))
    thread.start()
    thread.join()
    assert codes == [0]


def test_an_observer_sees_the_study_and_is_told_of_a_stop(tmp_path: Path, fake: ModuleType) -> None:
    class Watching(Observer):
        def __init__(self) -> None:
            self.looks: list[Snapshot] = []
            self.reasons: list[str] = []

        def on_look(self, snapshot: Snapshot) -> None:
            self.looks.append(snapshot)
            if snapshot.counts["done"]:
                signal.raise_signal(signal.SIGTERM)

        def on_stop(self, reason: str) -> None:
            self.reasons.append(reason)

    watching = Watching()
    out = fake.make_plan(tmp_path / "out", _tree(0.1))
    outcome = launch(out, 1, engine=ENGINE, observer=watching)
    assert (outcome.exit_code, outcome.trouble, outcome.has_worked) == (1, "asked to stop", True)
    assert watching.reasons == ["asked to stop"]
    assert watching.looks[0].counts == {"planned": 7}
    assert 1 <= outcome.snapshot.counts["done"] < 7
    assert launch(out, 2, engine=ENGINE).exit_code == 0
    outcome = launch(out, 2, engine=ENGINE)
    assert (outcome.exit_code, outcome.trouble, outcome.has_worked) == (0, None, False)


def test_a_parent_that_cannot_be_made_again_blocks_its_children_and_ends_the_launch(
    tmp_path: Path, fake: ModuleType
) -> None:
    fails_again = {"how": "error", "at": 1, "unless": str(tmp_path / "first")}
    (tmp_path / "first").touch()
    out = fake.make_plan(tmp_path / "out", _tree(fail=fails_again))
    assert _run(out)[0] == 0
    (tmp_path / "first").unlink()
    shutil.rmtree(out / "runs" / "pretrain-r" / "checkpoint")
    shutil.rmtree(out / "runs" / "posttrain-0")
    code, text = _run(out)
    assert code == 1
    counts = snapshot_of(out).counts
    assert (counts["failed"], counts["blocked"], counts["done"]) == (1, 1, 5)
    assert (out / "runs" / "pretrain-r" / "result.superseded.json").exists()
    assert "pretrain-r: failed (ValueError: wrong by design)" in text
