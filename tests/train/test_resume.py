"""Killed and resumed equals uninterrupted, bitwise: every stage, with dropout, early stopping and replay on."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from safetensors.torch import load_file
from tiny_engine import TINY, job_of, layered, quiet, run_all, runs_of
from token_folder import plan_on_arrays

from indelible.train.job import Progress
from indelible.train.stage import run_stage

EVERYTHING = {
    "exposure": {"fraction": 0.5},
    "pretrain": {"dropout": 0.1, "eval_interval": 3},
    "posttrain": {"dropout": 0.1, "patience": 3, "replay_fraction": 0.1, "max_tokens": 3200},
    "finetune": {"dropout": 0.1, "tokens": 25 * 32, "replay_fraction": 0.1, "eval_interval": 2},
}
IMPATIENT = layered(EVERYTHING, {"posttrain": {"min_improvement": 100.0, "patience": 6}})  # best at 0, ends at 12
KILL_AT = {"pretrain": 2, "posttrain": 9, "finetune": 2}  # steps; in stage 2 in mid-patience
TIMINGS = {"trained_seconds", "eval_seconds", "total_seconds", "tokens_per_second", "resumed", "environment", "mfu"}


class Killed(Exception):
    """Stands for a stop that the lab asks for."""


def facts(run_dir: Path) -> tuple[dict, list, dict]:
    """All that a run reports but times, its metrics without speeds, and its weights."""
    result = {k: v for k, v in json.loads((run_dir / "result.json").read_text()).items() if k not in TIMINGS}
    lines = [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]
    metrics = [{k: v for k, v in line.items() if not k.startswith("speed/")} for line in lines]
    return result, metrics, load_file(run_dir / "checkpoint" / "model.safetensors")


def assert_same_run(one: Path, other: Path) -> None:
    (result, metrics, weights), (result_2, metrics_2, weights_2) = facts(one), facts(other)
    assert result == result_2
    assert metrics == metrics_2
    assert weights.keys() == weights_2.keys()
    assert all(weights[name].equal(weights_2[name]) for name in weights)


@pytest.fixture(autouse=True)
def _report_every_step(monkeypatch):
    monkeypatch.setattr("indelible.train.loop.REPORT_SECONDS", 0.0)


@pytest.mark.parametrize("stop_at", [1, 2, 5])
def test_stopped_at_any_step_and_continued_equals_uninterrupted(tiny_study, stop_at):
    whole, broken = tiny_study(EVERYTHING, "whole"), tiny_study(EVERYTHING, "broken")
    run_all(whole)
    for entry in runs_of(broken):
        job = job_of(broken, entry)
        stops = {stop_at, stop_at + 1}

        def stop(now: Progress, stops: set[int] = stops) -> None:
            if now.phase == "training" and now.step in stops:
                stops.discard(now.step)
                raise Killed

        for _ in range(2):
            with pytest.raises(Killed):
                run_stage(job, progress=stop, guard=lambda: None)
            assert len(list((job.run_dir / "resume").iterdir())) == 1, "resume states never pile up"
        run_stage(job, progress=stop, guard=lambda: None)
        assert json.loads((job.run_dir / "result.json").read_text())["resumed"] == 1
        assert not (job.run_dir / "resume").exists()
        assert_same_run(whole / "runs" / entry["id"], job.run_dir)


def test_stopped_in_mid_patience_counts_on(tiny_study):
    over = layered(EVERYTHING, {"posttrain": {"lr": 0.3, "patience": 3, "eval_interval": 2, "max_tokens": 6400}})
    whole, broken = tiny_study(over, "whole"), tiny_study(over, "broken")
    result = run_all(whole, until="posttrain")["posttrain"]
    assert result["stop_reason"] == "patience"
    run_all(broken, until="pretrain")
    job = job_of(broken, runs_of(broken, "posttrain")[0])
    stop_at = {result["best_step"] + 3}  # one evaluation without improvement, and one step on

    def stop(now: Progress) -> None:
        if now.phase == "training" and now.step in stop_at:
            stop_at.discard(now.step)
            raise Killed

    with pytest.raises(Killed):
        run_stage(job, progress=stop, guard=lambda: None)
    record = json.loads(next(job.run_dir.glob("resume/step-*/state.json")).read_text())
    assert record["loop"]["evaluations_without_improvement"] == 1
    run_stage(job, progress=stop, guard=lambda: None)
    assert_same_run(whole / "runs" / job.run_id, job.run_dir)


KILL_SCRIPT = """
import json, os, signal, sys, traceback
from pathlib import Path
import torch._inductor.config
import indelible.train.loop as loop
from indelible.train.stage import run_stage
from tiny_engine import job_of, runs_of

torch._inductor.config.compile_threads = 1
loop.REPORT_SECONDS, loop.RESUME_SHARE, loop.SAVE_BYTES_PER_SECOND = 0.0, 1e9, 1e18

kill_at = json.loads(sys.argv[2])

def attempt(out, how, last, kill):
    # trains what has no result yet up to stage `last`; with `kill` it dies at a step of the first such stage
    for run in runs_of(out):
        job = job_of(out, run, {**how, "resume_seconds": 1e-9})
        if not (job.run_dir / "result.json").exists():
            def progress(now):
                if kill and now.phase == "training" and now.step == kill_at[job.stage]:
                    os.kill(os.getpid(), signal.SIGKILL)
            run_stage(job, progress=progress, guard=lambda: None)
            if kill:
                raise AssertionError("the kill came too late")
        if run["stage"] == last:
            break

def forked(*arguments):
    # imports are done, nothing is computed in this process: a child is a fresh process, seconds earlier
    child = os.fork()
    if child == 0:
        try:
            attempt(*arguments)
        except BaseException:
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])

for out, how, is_killed in json.load(open(sys.argv[1])):
    if not is_killed:
        assert forked(Path(out), how, "finetune", False) == 0
        continue
    for run in runs_of(Path(out)):
        assert forked(Path(out), how, run["stage"], True) == -signal.SIGKILL
        saved = list((Path(out) / "runs" / run["id"] / "resume").glob("step-*"))
        assert saved, "killed after a state was saved"
        if run["stage"] == "posttrain":
            state = json.loads((saved[-1] / "state.json").read_text())
            assert state["loop"]["evaluations_without_improvement"] == 4, "killed in mid-patience"
        assert forked(Path(out), how, run["stage"], False) == 0
"""


@pytest.mark.slow
def test_sigkill_in_another_process_and_resume_equals_uninterrupted(tmp_path):
    # one thread and two give the same bits, so one uninterrupted run serves both; eager in fp32, compiled in bf16
    def study(name: str, precision: str) -> Path:
        return plan_on_arrays(tmp_path / name, layered(TINY, {**IMPATIENT, "precision": precision}), 512)

    compared: list[tuple[Path, Path]] = []
    scripts = []
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1] / "support"), "OMP_WAIT_POLICY": "PASSIVE"}
    modes = {"off": "fp32", "on": "bf16"}
    wholes = {mode: study(f"whole-{mode}", precision) for mode, precision in modes.items()}
    for threads in (1, 2):
        tasks: list[tuple[str, dict, bool]] = []
        for mode, precision in modes.items():
            how, broken = {"threads": threads, "compile": mode}, study(f"killed-{threads}-{mode}", precision)
            if threads == 1:
                tasks.append((str(wholes[mode]), how, False))
            tasks.append((str(broken), how, True))
            compared.append((wholes[mode], broken))
        path = tmp_path / f"tasks-{threads}.json"
        path.write_text(json.dumps(tasks))
        environment["TORCHINDUCTOR_CACHE_DIR"] = str(tmp_path / f"compiled-{threads}")
        command = [sys.executable, "-c", KILL_SCRIPT, str(path), json.dumps(KILL_AT)]
        scripts.append(subprocess.Popen(command, env=environment))
    assert [script.wait() for script in scripts] == [0, 0]
    for whole, broken in compared:
        for entry in runs_of(whole):
            assert_same_run(whole / "runs" / entry["id"], broken / "runs" / entry["id"])
    result = json.loads(
        (wholes["on"] / "runs" / runs_of(wholes["on"], "posttrain")[0]["id"] / "result.json").read_text()
    )
    assert (result["stop_reason"], result["steps"], result["precision"]) == ("patience", 12, "bf16")


def test_the_stages_of_these_tests_have_what_they_are_to_test(tiny_study):
    results = run_all(tiny_study(EVERYTHING))
    assert results["finetune"]["train_tokens"] % (4 * 32), "a partial last batch"
    assert results["posttrain"]["tokens_seen"]["pre"] > 0
    assert results["finetune"]["tokens_seen"]["pre"] > 0
    assert results["posttrain"]["best_step"] is not None


def stopped_once(out: Path) -> Path:
    """The folder of a pretraining run that was stopped after three steps."""
    job = job_of(out, runs_of(out)[0])

    def stop(now: Progress) -> None:
        if now.phase == "training" and now.step == 3:
            raise Killed

    with pytest.raises(Killed):
        run_stage(job, progress=stop, guard=lambda: None)
    return job.run_dir


@pytest.mark.parametrize("damage", ["bytes", "record", "number", "missing"])
def test_a_damaged_resume_state_is_noticed_and_the_stage_starts_again(tiny_study, capsys, damage):
    whole, broken = tiny_study(EVERYTHING, "whole"), tiny_study(EVERYTHING, "broken")
    run_all(whole, until="pretrain")
    run_dir = stopped_once(broken)
    state = next((run_dir / "resume").glob("step-*"))
    if damage == "bytes":
        content = bytearray((state / "state.safetensors").read_bytes())
        content[-5] ^= 1
        (state / "state.safetensors").write_bytes(content)
    elif damage == "record":
        (state / "state.json").write_text('{"step": ')
    elif damage == "number":
        record = (state / "state.json").read_text()
        (state / "state.json").write_text(record.replace('"tokens": 384', '"tokens": 385'))
        assert (state / "state.json").read_text() != record
    else:
        (state / "state.json").unlink()
    run_stage(job_of(broken, runs_of(broken)[0]), progress=quiet, guard=lambda: None)
    assert "is damaged" in capsys.readouterr().out
    assert json.loads((run_dir / "result.json").read_text())["resumed"] == 0
    assert_same_run(whole / "runs" / run_dir.name, run_dir)


def test_before_a_damaged_resume_state_an_earlier_one_is_used(tiny_study, tmp_path, capsys):
    # two are there when the process died between writing one and removing the one before
    whole, broken = tiny_study(EVERYTHING, "whole"), tiny_study(EVERYTHING, "broken")
    run_all(whole, until="pretrain")
    run_dir = stopped_once(broken)
    earlier = next((run_dir / "resume").glob("step-*"))
    shutil.copytree(earlier, tmp_path / "kept")
    job = job_of(broken, runs_of(broken)[0])

    def stop(now: Progress) -> None:
        if now.phase == "training" and now.step == 4:
            raise Killed

    with pytest.raises(Killed):
        run_stage(job, progress=stop, guard=lambda: None)
    later = next((run_dir / "resume").glob("step-*"))
    shutil.copytree(tmp_path / "kept", earlier)
    (later / "state.safetensors").write_bytes((later / "state.safetensors").read_bytes()[:-1])
    capsys.readouterr()
    run_stage(job, progress=quiet, guard=lambda: None)
    said = capsys.readouterr().out
    assert "resume state step-000000004 is damaged" in said
    assert "continues at step 3 of" in said
    assert_same_run(whole / "runs" / run_dir.name, run_dir)


def test_a_state_that_was_not_written_to_its_end_is_no_state(tiny_study, capsys):
    broken = tiny_study(EVERYTHING, "broken")
    run_dir = stopped_once(broken)
    state = next((run_dir / "resume").glob("step-*"))
    state.rename(state.with_name(f".{state.name}.tmp"))
    run_stage(job_of(broken, runs_of(broken)[0]), progress=quiet, guard=lambda: None)
    assert "continues" not in capsys.readouterr().out
    assert json.loads((run_dir / "result.json").read_text())["resumed"] == 0
    assert not (run_dir / "resume").exists()


def test_nothing_is_written_after_the_guard_objects(tiny_study):
    out = tiny_study()
    job = job_of(out, runs_of(out)[0])

    def guard() -> None:
        raise PermissionError("the lease is lost")

    with pytest.raises(PermissionError):
        run_stage(job, progress=quiet, guard=guard)
    assert not (job.run_dir / "result.json").exists()
    assert not (job.run_dir / "checkpoint").exists()
