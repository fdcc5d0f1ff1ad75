"""How fast this machine trains: the real loop on random tokens, in worker processes as the local pool starts them.

``python -m indelible.measure.bench FOLDER NUMBER`` is one of those processes. Each warms up (it builds and compiles the
model and makes a few updates), waits until all of them are warm, and counts tokens until the time is over.
"""

import hashlib
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from statistics import fmean
from typing import Any, Literal

import numpy as np
from pydantic import BaseModel

from indelible.errors import UserError
from indelible.files import read_json, write_json, write_text
from indelible.host import visible_gpus
from indelible.measure.speed import Speed, chosen_device, now, this_machine
from indelible.scheduling.executors.local import worker_environment
from indelible.study.arm import ArmSpec, EvaluationSettings
from indelible.study.cost import forward_flops_per_token
from indelible.study.execution import ExecutionSpec
from indelible.study.graph import Stores, build_graph
from indelible.study.identity import canonical
from indelible.study.load import Study
from indelible.study.stage_spec import StageSpec
from indelible.study.training import StageSettings
from indelible.train.job import Progress, StageJob

WARM_STEPS = 3  # optimizer steps that are not counted: the first one compiles
WINDOWS = 256  # distinct windows of random tokens; the loop passes over them again and again
STEP_FLOPS = {"cpu": 1e11, "cuda": 1e13}  # of one step at most: a large scale's batch is cut down to that
_MAX_STEPS = 1_000_000  # more than any machine makes in the time
_MAX_WINDOWS = 1 << 24
_LOOK_SECONDS = 0.05
WARM_SECONDS = 900.0  # what a worker may take until it is warm; a model that takes longer is too large for the machine


class _Enough(Exception):
    """The time is over."""


class Task(BaseModel):
    """What one bench process is given, in ``task.json`` of its folder."""

    spec: dict[str, Any]
    execution: ExecutionSpec
    workers: int
    seconds: float


def _first_stage(arm: ArmSpec) -> StageSettings:
    return next(iter(arm.stages.values()))


def step_windows(arm: ArmSpec, vocab_size: int, device: str, micro_batch_size: int | None) -> int:
    """Sequences in a step of the benchmark: the first stage's batch, as far as a step stays short."""
    flops = 3 * forward_flops_per_token(arm.model, vocab_size, arm.seq_len) * arm.seq_len
    most = max(micro_batch_size or 1, int(STEP_FLOPS[device] / flops))
    return max(1, min(_first_stage(arm).global_batch_size, most))


def bench_spec(
    study: Study, batch: int, store: str, tokenizer: str, precision: Literal["fp32", "bf16"] = "fp32"
) -> StageSpec:
    """The stage run of the benchmark: the first stage of the first arm, from scratch and with nothing beside it.

    Args:
        study: gives the model and the training fields.
        batch: sequences in a step.
        store: folder name of the token store.
        tokenizer: folder name of the tokenizer.
        precision: what `precision: auto` comes to.
    """
    arm = study.arms[0]
    first = _first_stage(arm)
    windows = max(WINDOWS, min(_MAX_STEPS * batch, _MAX_WINDOWS))
    chosen = {name: getattr(first, name) for name in StageSettings.model_fields if name not in _LEFT_OUT}
    budget = {"tokens": WINDOWS * arm.seq_len, "max_tokens": windows * arm.seq_len, "global_batch_size": batch}
    stage = StageSettings(**chosen, **budget, max_loss=1e9)  # nothing is learned from random tokens
    plain = {"stages": {"pretrain": stage}, "views": {}, "evaluation": EvaluationSettings()}
    alone = replace(study, seeds=(0,), arms=(arm.model_copy(update=plain),))
    graph = build_graph(alone, Stores({first.corpus: store}, tokenizer), precision=precision)
    return next(iter(graph.runs.values())).spec


# Settings of the study that the benchmark does not take over: each then has its default
_LEFT_OUT = (
    *("tokens", "max_tokens", "global_batch_size", "max_loss", "eval_interval", "patience"),
    *("not_shown_in", "order", "mix", "objective", "guard", "adapt", "watch", "init"),
)


def write_random_tokens(tokens_dir: Path, seq_len: int, vocab_size: int) -> tuple[str, str]:
    """Writes a token store of random tokens and a tokenizer's numbers; returns the names of both folders."""
    dtype = np.dtype(np.uint16 if vocab_size <= 1 << 16 else np.uint32)
    source = np.random.Generator(np.random.PCG64(0))
    sides = {"train": WINDOWS, "heldout": 1}
    digest = hashlib.sha256(f"bench {vocab_size} {seq_len}".encode()).hexdigest()
    folder = tokens_dir / f"bench-{digest[:12]}"
    folder.mkdir(parents=True)
    shards = {}
    for side, windows in sides.items():
        tokens = source.integers(0, vocab_size, windows * seq_len + 1).astype(dtype)
        path = folder / f"{side}-00000.npy"
        np.save(path, tokens, allow_pickle=False)
        files = [{"name": path.name, "bytes": path.stat().st_size, "sha256": ""}]
        shards[side] = [{"tokens": len(tokens), "bytes": 4 * len(tokens), "files": files}]
    head = {"format": 1, "corpus": "bench", "fingerprint": digest, "has_mask": False}
    write_json(folder / "manifest.json", {**head, "fates": {}, "shards": shards})
    write_json(tokens_dir / "tokenizer-bench" / "indelible.json", {"vocab_size": vocab_size, "eos_id": 0})
    return folder.name, "tokenizer-bench"


def measure(
    study: Study, vocab_size: int, workers: int, seconds: float, precision: Literal["fp32", "bf16"] = "fp32"
) -> Speed:
    """The speed of one worker while ``workers`` of them train the study's first arm.

    Args:
        study: gives the model, the window length, the batch and the execution settings.
        vocab_size: of the tokenizer.
        workers: processes at work at the same time.
        seconds: how long tokens are counted.
        precision: what `precision: auto` comes to.

    Raises:
        UserError: a worker failed; with the end of its output.
    """
    arm, execution = study.arms[0], study.execution
    device, threads = chosen_device(execution.device), execution.threads or 1
    batch = step_windows(arm, vocab_size, device, execution.micro_batch_size)
    with tempfile.TemporaryDirectory(prefix="indelible-bench-") as name:
        folder = Path(name)
        store, tokenizer = write_random_tokens(folder / "tokens", arm.seq_len, vocab_size)
        spec = bench_spec(study, batch, store, tokenizer, precision)
        endless = execution.model_copy(update={"resume_seconds": 1e9})
        task = Task(spec=canonical(spec), execution=endless, workers=workers, seconds=seconds)
        write_text(folder / "task.json", task.model_dump_json())
        rates = _run_workers(folder, workers, threads, device)
    tokens = fmean(rates)
    flops = 3 * forward_flops_per_token(arm.model, vocab_size, arm.seq_len)
    return Speed(this_machine(), arm.scale, device, threads, workers, tokens, tokens * flops, now())


def _run_workers(folder: Path, workers: int, threads: int, device: str) -> list[float]:
    """Starts the processes and waits for them; tokens per second of each."""
    gpus = visible_gpus() if device == "cuda" else []
    processes: list[subprocess.Popen[bytes]] = []
    try:
        for number in range(workers):
            with open(folder / f"{number}.log", "wb") as log:
                processes.append(
                    subprocess.Popen(
                        [sys.executable, "-m", "indelible.measure.bench", str(folder), str(number)],
                        env=worker_environment(threads, gpus[number % len(gpus)] if gpus else None),
                        stdin=subprocess.DEVNULL,
                        stdout=log,
                        stderr=subprocess.STDOUT,
                    )
                )
        begin = time.monotonic()
        while None in (codes := [process.poll() for process in processes]) or any(codes):
            _check(folder, codes)
            _check_warm(folder, workers, time.monotonic() - begin)
            time.sleep(_LOOK_SECONDS)
    finally:
        for process in processes:
            process.kill()
            process.wait()
    return [float(read_json(folder / f"{number}.json")["tokens_per_second"]) for number in range(workers)]


def _check(folder: Path, codes: list[int | None]) -> None:
    for number, code in enumerate(codes):
        if code not in (None, 0):
            lines = (folder / f"{number}.log").read_text(encoding="utf-8", errors="replace").strip().splitlines()
            why = lines[-1].removeprefix("indelible.errors.UserError: ") if lines else "killed; is there memory enough?"
            raise UserError(f"bench: worker {number} of {len(codes)} ended with code {code}: {why}")


def _check_warm(folder: Path, workers: int, seconds: float) -> None:
    """Refuses to wait for ever: a model that compiles and steps so slowly says nothing in a few seconds of counting."""
    if seconds > WARM_SECONDS and not all((folder / f"{number}.warm").exists() for number in range(workers)):
        raise UserError(
            f"bench: not warm after {WARM_SECONDS:g} s (the model is built and compiled, and {WARM_STEPS} steps are "
            "made, before tokens are counted); try --set execution.compile=off, fewer --workers, or a smaller --scale."
        )


class _Counter:
    """Takes the loop's heartbeats: waits for the other workers once warm, then counts until the time is over."""

    def __init__(self, folder: Path, number: int, task: Task) -> None:
        self._folder, self._number, self._task = folder, number, task
        self._begin: tuple[float, int] | None = None  # when counting began, and the tokens trained by then
        self.tokens_per_second = 0.0

    def __call__(self, now: Progress) -> None:
        if now.phase != "training" or now.step < WARM_STEPS:
            return
        if self._begin is None:
            write_json(self._folder / f"{self._number}.warm", {})
            while any(not (self._folder / f"{other}.warm").exists() for other in range(self._task.workers)):
                time.sleep(_LOOK_SECONDS)
            self._begin = time.monotonic(), now.tokens
            return
        seconds, tokens = time.monotonic() - self._begin[0], now.tokens - self._begin[1]
        if seconds >= self._task.seconds and tokens:
            self.tokens_per_second = tokens / seconds
            raise _Enough

    def guard(self) -> None:
        """Lets no state be written: the loop saves before it stops."""
        raise _Enough


def work(folder: Path, number: int) -> None:
    """One worker of the benchmark."""
    task = Task.model_validate(read_json(folder / "task.json"))
    from indelible.train.stage import run_stage  # torch

    counter = _Counter(folder, number, task)
    run_dir = folder / "runs" / str(number)
    run_dir.mkdir(parents=True)
    job = StageJob(
        run_dir=run_dir,
        run_id="bench",
        stage="pretrain",
        spec=task.spec,
        start_dir=None,
        tokens_dir=folder / "tokens",
        execution=task.execution,
    )
    try:
        run_stage(job, progress=counter, guard=counter.guard)
    except _Enough:
        write_json(folder / f"{number}.json", {"tokens_per_second": counter.tokens_per_second})


if __name__ == "__main__":
    work(Path(sys.argv[1]), int(sys.argv[2]))
    sys.stdout.flush()
    os._exit(0)
