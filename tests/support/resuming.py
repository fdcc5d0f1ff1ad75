"""One stage stopped, killed or shared by ranks, beside the same stage in one piece: for guards and objectives."""

import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gloo_ranks import run_tasks
from safetensors.torch import load_file
from tiny_engine import job_of, losses_of, result_of, run_all, runs_of

from indelible.train.job import Progress
from indelible.train.stage import run_stage

TIMES = {"trained_seconds", "eval_seconds", "total_seconds", "tokens_per_second", "resumed", "environment", "mfu"}
EXECUTIONS: dict[str, tuple[int, dict[str, Any]]] = {
    "one": (1, {}),
    "ddp": (2, {"parallel": "ddp", "micro_batch_size": 2}),
    "fsdp": (2, {"parallel": "fsdp", "micro_batch_size": 2}),
}


def run_folder(out: Path, stage: str) -> Path:
    """Folder of the first run of a stage."""
    return out / "runs" / runs_of(out, stage)[0].id


def weights_of(out: Path, stage: str) -> dict[str, Any]:
    """The weights that a stage ended with."""
    return load_file(run_folder(out, stage) / "checkpoint" / "model.safetensors")


def stage_before(out: Path, stage: str) -> str:
    """The stage in front of another."""
    stages = list(dict.fromkeys(run.stage for run in runs_of(out)))
    return stages[stages.index(stage) - 1]


def assert_same_stage(one: Path, other: Path, stage: str) -> None:
    """Two studies ended a stage with the same bits, the same metrics and the same result."""
    folders = [run_folder(out, stage) for out in (one, other)]
    results = [result_of(out, folder.name) for out, folder in zip((one, other), folders, strict=True)]
    assert results[0] is not None
    assert results[1] is not None
    assert results[0].model_dump(exclude=TIMES) == results[1].model_dump(exclude=TIMES)
    lines = [_metrics(folder) for folder in folders]
    assert lines[0] == lines[1]
    assert sum("train/loss" in line for line in lines[0]) == results[0].steps
    ours, theirs = weights_of(one, stage), weights_of(other, stage)
    assert ours.keys() == theirs.keys()
    assert all(ours[name].equal(theirs[name]) for name in ours)
    kept = [{path.name: path.read_bytes() for path in folder.glob("start_log_probs.*")} for folder in folders]
    assert kept[0] == kept[1]


def _metrics(folder: Path) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{key: value for key, value in line.items() if not key.startswith("speed/")} for line in lines]


def assert_stopped_equals_uninterrupted(
    plan: Callable[[str], Path], stage: str, monkeypatch: pytest.MonkeyPatch, stops: Iterable[int] = (2, 4)
) -> None:
    """Stopped and continued, a stage ends as if it had not been stopped.

    Args:
        plan: makes a planned study of a name.
        stage: that is stopped.
        monkeypatch: so that progress is reported at every step.
        stops: the steps behind which it is stopped.
    """
    monkeypatch.setattr("indelible.train.loop.REPORT_SECONDS", 0.0)
    whole, broken = plan("whole"), plan("broken")
    run_all(whole, until=stage)
    run_all(broken, until=stage_before(broken, stage))
    job, left = job_of(broken, runs_of(broken, stage)[0]), set(stops)

    def stop(now: Progress) -> None:
        if now.phase == "training" and now.step in left:
            left.discard(now.step)
            raise InterruptedError

    for _ in range(len(left)):
        with pytest.raises(InterruptedError):
            run_stage(job, progress=stop, guard=lambda: None)
    run_stage(job, progress=stop, guard=lambda: None)
    result = result_of(broken, job.run_id)
    assert result is not None
    assert result.resumed == 1
    assert_same_stage(whole, broken, stage)


def runs_on_ranks(
    stage: str,
    shared: dict[str, Callable[[Path], Path]],
    killed: dict[str, Callable[[Path], Path]],
    root: Path,
    kill_at: int = 3,
) -> dict[str, Path]:
    """Studies trained on one and two ranks, and on each one that is killed by SIGKILL; folders by name.

    Args:
        stage: that is shared and killed.
        shared: plans in a folder, by name: ``<name> one``, ``<name> ddp`` and ``<name> fsdp`` are trained.
        killed: plans: ``<name> <where> whole`` and ``<name> <where> killed``, in the same three ways.
        root: of all folders.
        kill_at: step behind which rank 0 dies.
    """
    found: dict[str, Path] = {}
    tasks: list[dict[str, Any]] = []

    def task(name: str, where: str, plan: Callable[[Path], Path], **more: Any) -> None:
        if name not in found:
            found[name] = plan(root / name)
            before = {"world": 1, "until": stage_before(found[name], stage), "execution": {}}
            tasks.append({"out": str(found[name]), **before})
        world, execution = EXECUTIONS[where]
        tasks.append({"out": str(found[name]), "world": world, "until": stage, "execution": execution, **more})

    for name, plan in shared.items():
        for where in EXECUTIONS:
            task(f"{name} {where}", where, plan)
    for name, plan in killed.items():
        for where in EXECUTIONS if name == "all" else ("one",):
            task(f"{name} {where} whole", where, plan)
            task(f"{name} {where} killed", where, plan, kill_at=kill_at)
            task(f"{name} {where} killed", where, plan)
    run_tasks(tasks, root)
    return found


def assert_two_ranks_equal_one(
    folders: dict[str, Path], stage: str, name: str, parallel: str, keys: Iterable[str], tolerance: float = 1e-5
) -> None:
    """Curves of two ranks are those of one process, to rounding, and so are the weights."""
    one, two = folders[f"{name} one"], folders[f"{name} {parallel}"]
    for key in keys:
        alone, ours = (np.array(list(losses_of(run_folder(out, stage), key).values())) for out in (one, two))
        assert len(ours) == len(alone) > 3
        assert np.abs(ours - alone).max() < tolerance * max(1.0, np.abs(alone).max()), key
    before, after = weights_of(one, stage), weights_of(two, stage)
    assert max((after[key] - before[key]).abs().max().item() for key in before) < 1e-3


def assert_killed_equals_uninterrupted(folders: dict[str, Path], stage: str, name: str) -> None:
    """Killed by SIGKILL and continued, a stage ends with the bits of one that was not."""
    out = folders[f"{name} killed"]
    killed = result_of(out, run_folder(out, stage).name)
    assert killed is not None
    assert killed.resumed == 1
    assert_same_stage(folders[f"{name} whole"], out, stage)
