"""Killed and resumed equals uninterrupted, bitwise: every stage, with dropout, early stopping and replay on."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import load_file
from tiny_engine import TINY, evaluated, job_of, layered, quiet, result_of, run_all, runs_of
from tiny_models import tiny_config
from token_folder import plan_on_arrays, write_tokenizer

from indelible.records import StageResult, documents_path
from indelible.train import checkpoint
from indelible.train.device import versions
from indelible.train.distributed import World
from indelible.train.job import Progress
from indelible.train.program import Program, forget_programs
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


def resumed(run_dir: Path) -> int:
    """How often a finished run was continued, as its result says."""
    result = StageResult.read(run_dir / "result.json")
    assert result is not None
    return result.resumed


def facts(run_dir: Path) -> tuple[dict, list, dict, dict]:
    """All that a run reports but times, its metrics without speeds, its weights and its evaluations."""
    result = {k: v for k, v in json.loads((run_dir / "result.json").read_text()).items() if k not in TIMINGS}
    lines = [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]
    metrics = [{k: v for k, v in line.items() if not k.startswith("speed/")} for line in lines]
    out = run_dir.parents[1]
    evaluations = {}
    for corpus, one in evaluated(out, run_dir.name).items():
        table = pq.read_table(documents_path(out, run_dir.name, one.id)).to_pylist()
        evaluations[corpus] = (one.model_dump(exclude={"seconds", "environment"}), table)
    return result, metrics, load_file(run_dir / "checkpoint" / "model.safetensors"), evaluations


def assert_same_run(one: Path, other: Path) -> None:
    (result, metrics, weights, losses), (result_2, metrics_2, weights_2, losses_2) = facts(one), facts(other)
    assert result == result_2
    assert metrics == metrics_2
    assert weights.keys() == weights_2.keys()
    assert all(weights[name].equal(weights_2[name]) for name in weights)
    assert losses.keys() == {"pre", "post", "ft"}
    assert losses == losses_2


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
        assert resumed(job.run_dir) == 1
        assert not (job.run_dir / "resume").exists()
        assert_same_run(whole / "runs" / entry.id, job.run_dir)


def test_stopped_in_mid_patience_counts_on(tiny_study):
    over = layered(EVERYTHING, {"posttrain": {"lr": 0.3, "patience": 3, "eval_interval": 2, "max_tokens": 6400}})
    whole, broken = tiny_study(over, "whole"), tiny_study(over, "broken")
    result = run_all(whole, until="posttrain")["posttrain"]
    assert result.stop_reason == "patience"
    run_all(broken, until="pretrain")
    job = job_of(broken, runs_of(broken, "posttrain")[0])
    stop_at = {result.best_step + 3}  # one evaluation without improvement, and one step on

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
        if run.stage == last:
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
        assert forked(Path(out), how, run.stage, True) == -signal.SIGKILL
        saved = list((Path(out) / "runs" / run.id / "resume").glob("step-*"))
        assert saved, "killed after a state was saved"
        if run.stage == "posttrain":
            state = json.loads((saved[-1] / "state.json").read_text())
            assert state["loop"]["evaluations_without_improvement"] == 4, "killed in mid-patience"
        assert forked(Path(out), how, run.stage, False) == 0
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
            assert_same_run(whole / "runs" / entry.id, broken / "runs" / entry.id)
    result = result_of(wholes["on"], runs_of(wholes["on"], "posttrain")[0].id)
    assert result is not None
    assert (result.stop_reason, result.steps, result.precision) == ("patience", 12, "bf16")


def test_the_stages_of_these_tests_have_what_they_are_to_test(tiny_study):
    results = run_all(tiny_study(EVERYTHING))
    assert results["finetune"].train_tokens % (4 * 32), "a partial last batch"
    assert results["posttrain"].tokens_seen["pre"] > 0
    assert results["finetune"].tokens_seen["pre"] > 0
    assert results["posttrain"].best_step is not None


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
    assert resumed(run_dir) == 0
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
    state.rename(state.with_name(f".{state.name}.123.abcd.tmp"))
    run_stage(job_of(broken, runs_of(broken)[0]), progress=quiet, guard=lambda: None)
    assert "continues" not in capsys.readouterr().out
    assert resumed(run_dir) == 0
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


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"torch": "2.99.0"}, "the version of torch was 2.99.0 and is "),
        ({"transformers": "6.0.0"}, "the version of transformers was 6.0.0 and is "),
        ({"indelible": "0.0.9"}, "the version of indelible was 0.0.9 and is "),
    ],
)
def test_a_resume_state_of_other_versions_is_refused(tiny_study, capsys, monkeypatch, changed, reason):
    whole, broken = tiny_study(EVERYTHING, "whole"), tiny_study(EVERYTHING, "broken")
    run_all(whole, until="pretrain")
    with monkeypatch.context() as older:
        older.setattr("indelible.train.stage.versions", lambda: {**versions(), **changed})
        run_dir = stopped_once(broken)
    run_stage(job_of(broken, runs_of(broken)[0]), progress=quiet, guard=lambda: None)
    printed = capsys.readouterr().out
    assert f"the resume state is not used, and the stage starts anew: {reason}" in printed
    assert resumed(run_dir) == 0
    assert_same_run(whole / "runs" / run_dir.name, run_dir)


def other_precision(spec: dict) -> dict:
    return {**spec, "precision": "bf16"}


def other_decay(spec: dict) -> dict:
    return {**spec, "training": {**spec["training"], "weight_decay": 0.2}}


def other_seed(spec: dict) -> dict:
    return {**spec, "seed": 7}


@pytest.mark.parametrize(
    ("change", "reasons"),
    [
        (other_precision, ["the stage's settings was ", "the precision was fp32 and is bf16"]),
        (other_decay, ["the stage's settings was "]),
        (other_seed, ["the stage's settings was ", "the data order was "]),
    ],
)
def test_a_resume_state_of_another_spec_is_refused(tiny_study, capsys, change, reasons):
    broken = tiny_study(EVERYTHING, "broken")
    run_dir = stopped_once(broken)
    job = job_of(broken, runs_of(broken)[0])
    job = job.model_copy(update={"spec": change(job.spec)})
    run_stage(job, progress=quiet, guard=lambda: None)
    printed = capsys.readouterr().out
    assert "the resume state is not used, and the stage starts anew: " in printed
    for reason in reasons:
        assert reason in printed
    assert resumed(run_dir) == 0
    steps = [json.loads(line)["step"] for line in (run_dir / "metrics.jsonl").read_text().splitlines()]
    assert steps == sorted(steps), "the metrics of the state that was refused are gone"
    assert steps.count(1) == 1


def test_a_resume_state_that_does_not_say_what_it_belongs_to_is_refused(tiny_study, capsys):
    broken = tiny_study(EVERYTHING, "broken")
    run_dir = stopped_once(broken)
    file = next((run_dir / "resume").glob("step-*")) / "state.json"
    record = json.loads(file.read_text())
    del record["identity"]
    record["record_sha256"] = checkpoint._record_sha256(record)
    file.write_text(json.dumps(record))
    run_stage(job_of(broken, runs_of(broken)[0]), progress=quiet, guard=lambda: None)
    assert "starts anew: it does not say what it belongs to" in capsys.readouterr().out
    assert resumed(run_dir) == 0


def test_gradients_of_a_run_that_broke_off_are_not_in_the_next_one(tiny_study, monkeypatch):
    # programs are kept in a process: one that failed between two micro batches has gradients of the first
    broken, whole = tiny_study({}, "broken"), tiny_study({}, "whole")
    forget_programs()
    expected = run_all(whole, {"micro_batch_size": 2}, until="pretrain")["pretrain"].weights_sha256
    step_loss, calls = Program.step_loss, []

    def second_fails(self: Program, *arguments):
        calls.append(1)
        if len(calls) == 2:
            raise MemoryError("the first micro batch is through its backward")
        return step_loss(self, *arguments)

    with monkeypatch.context() as patched:
        patched.setattr(Program, "step_loss", second_fails)
        with pytest.raises(MemoryError):
            run_all(broken, {"micro_batch_size": 2}, until="pretrain")
    assert run_all(broken, {"micro_batch_size": 2}, until="pretrain")["pretrain"].weights_sha256 == expected


def test_two_owners_who_write_one_checkpoint_do_not_touch_each_other_s_files(tmp_path, monkeypatch):
    # an owner that stalls in the middle of writing wakes when its successor has written all of it
    config, tokenizer = tiny_config("llama"), write_tokenizer(tmp_path / "tokenizer", 64)
    folder, write = tmp_path / "run" / "checkpoint", checkpoint.save_file
    seen = []

    def successor_first(tensors: dict, path: Path, metadata: dict) -> None:
        if not seen:
            seen.append(path.parent)
            checkpoint.save_checkpoint(folder, {"weight": torch.ones(3)}, config, tokenizer)
            assert load_file(folder / "model.safetensors")["weight"].equal(torch.ones(3))
            assert (folder / "config.json").exists()
            assert path.parent.is_dir(), "the successor left the half-written folder alone"
        write(tensors, path, metadata)

    monkeypatch.setattr(checkpoint, "save_file", successor_first)
    checkpoint.save_checkpoint(folder, {"weight": torch.zeros(3)}, config, tokenizer)
    assert load_file(folder / "model.safetensors")["weight"].equal(torch.zeros(3))
    assert {file.name for file in folder.iterdir()} >= {"config.json", "model.safetensors", "tokenizer.json"}
    assert [path.name for path in folder.parent.iterdir()] == ["checkpoint"]
    assert seen[0].name.startswith(f".checkpoint.{os.getpid()}.")


@pytest.mark.parametrize(("first", "second", "newest"), [(5, 5, 0.0), (5, 9, 1.0)])
def test_two_owners_who_write_resume_states_do_not_touch_each_other_s_files(
    tmp_path, monkeypatch, first, second, newest
):
    write, seen = checkpoint.save_file, []

    def successor_first(tensors: dict, path: Path) -> None:
        if not seen:
            seen.append(path.parent)
            checkpoint.save_resume(tmp_path, second, {"weight": torch.ones(3)}, {}, World())
            assert path.parent.is_dir(), "the successor left the half-written folder alone"
        write(tensors, path)

    monkeypatch.setattr(checkpoint, "save_file", successor_first)
    checkpoint.save_resume(tmp_path, first, {"weight": torch.zeros(3)}, {}, World())
    folder, damaged = checkpoint.find_resume(tmp_path)
    assert folder is not None
    assert (folder.name, damaged) == (f"step-{second:09d}", [])
    assert load_file(folder / "state.safetensors")["weight"].equal(torch.full((3,), newest))


def test_a_state_that_was_refused_does_not_come_back(tiny_study, capsys):
    broken = tiny_study(EVERYTHING, "broken")
    run_dir = stopped_once(broken)  # a state of step 3
    job = job_of(broken, runs_of(broken)[0])
    job = job.model_copy(update={"spec": other_decay(job.spec)})

    def stop(now: Progress) -> None:
        if now.phase == "training" and now.step == 1:
            raise Killed

    with pytest.raises(Killed):
        run_stage(job, progress=stop, guard=lambda: None)
    assert [path.name for path in (run_dir / "resume").iterdir()] == ["step-000000001"]
    capsys.readouterr()
    run_stage(job, progress=quiet, guard=lambda: None)
    assert "continues at step 1 of" in capsys.readouterr().out
