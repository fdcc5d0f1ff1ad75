"""An engine for tests of the lab: "trains" by hashing, with resume states, and fails on demand.

The weights of a run are a hash over its spec, its parent's weights and its steps, so a lost or repeated step shows.
Settings in a spec: steps, step_seconds, save_every, and fail = {how, at, times, unless}.
"""

import errno
import hashlib
import json
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from indelible.files import write_json, write_text
from indelible.train.job import Progress, StageJob


def _maybe_fail(job: StageJob, step: int) -> None:
    fail = job.spec.get("fail")
    if not fail or fail["at"] != step or Path(fail.get("unless", "/nowhere")).exists():
        return
    tries = job.run_dir / "tries"
    before = len(tries.read_text()) if tries.exists() else 0
    if before >= fail.get("times", 10**6):
        return
    tries.write_text("x" * (before + 1))
    if fail["how"] == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    if fail["how"] == "full":
        raise OSError(errno.ENOSPC, "No space left on device")
    if fail["how"] == "io":
        raise OSError(errno.EIO, "Input/output error")
    if fail["how"] == "memory":
        raise MemoryError("no memory")
    raise ValueError("wrong by design")


def _start(job: StageJob) -> tuple[int, str]:
    state = job.run_dir / "resume" / "state.json"
    if state.exists():
        saved = json.loads(state.read_text())
        return saved["step"], saved["weights"]
    parent = ""
    if job.parent_dir is not None:
        parent = (job.parent_dir / "checkpoint" / "model.safetensors").read_text()
    return 0, hashlib.sha256((json.dumps(job.spec, sort_keys=True) + parent).encode()).hexdigest()


def _finish(job: StageJob, weights: str, status: str, seconds: float, guard: Callable[[], None]) -> None:
    guard()
    if status == "done":
        write_text(job.run_dir / "checkpoint" / "model.safetensors", weights)
        write_json(job.run_dir / "checkpoint" / "config.json", {})
    guard()
    with open(job.tokens_dir.parent / "finished.log", "a") as log:  # O_APPEND: every finish of every process is seen
        log.write(job.run_id + "\n")
    result: dict[str, Any] = {"format": 1, "id": job.run_id, "stage": job.stage, "status": status}
    result |= {"weights_sha256": weights, "stop_reason": "max_tokens", "losses": {"music": {"nats_per_token": 2.0}}}
    result |= {"trained_seconds": seconds, "eval_seconds": 0.0, "total_seconds": seconds}
    write_json(job.run_dir / "result.json", result)


def run_stage(job: StageJob, *, progress: Callable[[Progress], None], guard: Callable[[], None]) -> None:
    """A stage: hash, save, hash, save, write the result."""
    started = time.monotonic()
    step, weights = _start(job)
    steps, state = job.spec.get("steps", 3), job.run_dir / "resume" / "state.json"
    while step < steps:
        _maybe_fail(job, step)
        time.sleep(job.spec.get("step_seconds", 0.0))
        step += 1
        weights = hashlib.sha256((weights + str(step)).encode()).hexdigest()
        if step % job.spec.get("save_every", 1) == 0:
            guard()
            write_json(state, {"step": step, "weights": weights})
        progress(Progress(step, steps, 1.0 / step, step * 10, 10.0, "training"))
    status = "diverged" if job.spec.get("diverges") else "done"
    _finish(job, weights, status, time.monotonic() - started, guard)


def run_on_gpus(job: StageJob, *, progress: Callable[[Progress], None], guard: Callable[[], None]) -> None:
    """The same, noting which GPUs the worker may use."""
    with open(job.tokens_dir.parent / "gpus.log", "a") as log:
        log.write(os.environ.get("CUDA_VISIBLE_DEVICES", "none") + "\n")
    run_stage(job, progress=progress, guard=guard)


def run_one_rank(job: StageJob, *, progress: Callable[[Progress], None], guard: Callable[[], None]) -> None:
    """The same in a process group: the first rank does it all."""
    with open(job.tokens_dir.parent / "ranks.log", "a") as log:
        log.write(f"{os.environ['RANK']}/{os.environ['WORLD_SIZE']}\n")
    if os.environ["RANK"] == "0":
        run_stage(job, progress=progress, guard=guard)
    else:
        while not (job.run_dir / "result.json").exists():
            time.sleep(0.1)


def make_plan(out: Path, runs: list[tuple[str, str | None, dict[str, Any]]]) -> Path:
    """Writes a plan.json of (id, parent, spec); the stage is the id up to its first dash."""
    entries = [
        {
            "id": run_id,
            "stage": run_id.split("-")[0],
            "parent": parent,
            "spec": spec,
            "cost": {"flops": spec.get("steps", 3)},
        }
        for run_id, parent, spec in runs
    ]
    (out / "tokens").mkdir(parents=True, exist_ok=True)
    write_json(out / "plan.json", {"format": 1, "name": "toy", "execution": {}, "stage_runs": entries, "chains": []})
    return out
