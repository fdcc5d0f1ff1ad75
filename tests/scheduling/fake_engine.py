"""An engine for tests of scheduling: "trains" by hashing, with resume states, and fails on demand.

The weights of a run are a hash over its spec, its parent's weights and its steps, so a lost or repeated step shows.
Settings in a spec: steps, step_seconds, save_every, diverges, and fail = {how, at, times, unless}.
"""

import errno
import hashlib
import io
import json
import os
import signal
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from indelible.files import write_json, write_text
from indelible.records import Evaluation, Plan, PlannedChain, PlannedRun, RunCost, StageResult
from indelible.study.execution import ExecutionSpec
from indelible.study.identity import evaluation_id
from indelible.study.stage_spec import EvaluationSpec
from indelible.study.training import WatchSpec
from indelible.train.job import EvaluationJob, Progress, StageJob

ENGINE = "fake_engine:run_stage"
CORPORA = ("music",)  # every checkpoint of a plan is evaluated on these
Report, Guard = Callable[[Progress], None], Callable[[], None]


def _maybe_fail(fail: dict[str, Any] | None, folder: Path, step: int) -> None:
    if not fail or fail["at"] != step or Path(fail.get("unless", "/nowhere")).exists():
        return
    tries = folder / "tries"
    before = len(tries.read_text()) if tries.exists() else 0
    if before >= fail.get("times", 10**6):
        return
    tries.parent.mkdir(parents=True, exist_ok=True)
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
    parent = "" if job.start_dir is None else (job.start_dir / "model.safetensors").read_text()
    return 0, hashlib.sha256((json.dumps(job.spec, sort_keys=True) + parent).encode()).hexdigest()


def _note_finish(out: Path, name: str) -> None:
    with open(out / "finished.log", "a") as log:  # O_APPEND: every finish of every process is seen
        log.write(name + "\n")


def _finish(job: StageJob, weights: str, seconds: float, guard: Guard) -> None:
    guard()
    status = "diverged" if job.spec.get("diverges") else "done"
    earlier = StageResult.read(job.run_dir / "result.json")
    if status == "done":
        write_text(job.run_dir / "checkpoint" / "model.safetensors", weights)
        write_json(job.run_dir / "checkpoint" / "config.json", {})
        _evaluate(job.evaluations, weights, job.evaluations_dir, guard)
    guard()
    _note_finish(job.tokens_dir.parent, job.run_id)
    steps = job.spec.get("steps", 3)
    result = StageResult(
        id=job.run_id,
        stage=job.stage,
        status=status,
        stop_reason="max_tokens",
        steps=steps,
        total_steps=steps,
        warmup_steps=0,
        train_tokens=10 * steps,
        tokens_seen={"music": 10 * steps},
        trained_seconds=seconds,
        eval_seconds=0.0,
        total_seconds=seconds,
        tokens_per_second=10.0,
        flops=float(steps),
        weights_sha256=weights,
        ledger_sha256="0" * 64,
        precision="fp32",
        watched=job.watch,
    )
    if earlier is not None:
        assert earlier.weights_sha256 == weights
        result = earlier.model_copy(update={"watched": job.watch})
    result.write(job.run_dir / "result.json")


def _evaluate(wanted: dict[str, EvaluationSpec], weights: str, folder: Path, guard: Guard) -> None:
    for name, spec in wanted.items():
        guard()
        write_text(folder / f"{name}.documents.parquet", "losses by document")
        Evaluation(
            id=name,
            checkpoint=spec.checkpoint,
            corpus=spec.store.rpartition("-")[0],
            status="done",
            nats_per_token=int(weights[:4], 16) / 1e4,
            bits_per_byte=1.0,
            standard_error=0.01,
            tokens=spec.windows * spec.seq_len,
            documents=3,
            windows=spec.windows,
            loss_on=spec.loss_on,
        ).write(folder / f"{name}.json")


def run_stage(job: StageJob, *, progress: Report, guard: Guard) -> None:
    """A stage: hash, save, hash, save, evaluate, write the result."""
    started = time.monotonic()
    step, weights = _start(job)
    steps, state = job.spec.get("steps", 3), job.run_dir / "resume" / "state.json"
    while step < steps:
        _maybe_fail(job.spec.get("fail"), job.run_dir, step)
        time.sleep(job.spec.get("step_seconds", 0.0))
        step += 1
        weights = hashlib.sha256((weights + str(step)).encode()).hexdigest()
        if step % job.spec.get("save_every", 1) == 0:
            guard()
            write_json(state, {"step": step, "weights": weights})
        progress(Progress(step, steps, 1.0 / step, step * 10, 10.0, "training"))
    _finish(job, weights, time.monotonic() - started, guard)


def run_evaluations(job: EvaluationJob, *, progress: Report, guard: Guard) -> None:
    """Evaluations of one checkpoint; what ``<out>/fail_evaluations.json`` says goes wrong."""
    out = job.tokens_dir.parent
    progress(Progress(0, len(job.evaluations), None, 0, 0.0, "evaluating"))
    fail = out / "fail_evaluations.json"
    _maybe_fail(json.loads(fail.read_text()) if fail.exists() else None, job.evaluations_dir, 0)
    weights = (job.checkpoint_dir / "model.safetensors").read_text()
    _evaluate(job.evaluations, weights, job.evaluations_dir, guard)
    _note_finish(out, f"evaluations/{job.checkpoint}")


def run_on_gpus(job: StageJob, *, progress: Report, guard: Guard) -> None:
    """The same, noting which GPUs the worker may use."""
    with open(job.tokens_dir.parent / "gpus.log", "a") as log:
        log.write(os.environ.get("CUDA_VISIBLE_DEVICES", "none") + "\n")
    run_stage(job, progress=progress, guard=guard)


def run_one_rank(job: StageJob, *, progress: Report, guard: Guard) -> None:
    """The same in a process group: the first rank does it all."""
    with open(job.tokens_dir.parent / "ranks.log", "a") as log:
        log.write(f"{os.environ['RANK']}/{os.environ['WORLD_SIZE']}\n")
    if os.environ["RANK"] == "0":
        run_stage(job, progress=progress, guard=guard)
    else:
        while not (job.run_dir / "result.json").exists():
            time.sleep(0.1)


def run_hanging_ranks(job: StageJob, *, progress: Report, guard: Guard) -> None:
    """Ranks that never come back and take no notice of SIGTERM, as those in a stuck collective."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    (job.run_dir / f"rank{os.environ['RANK']}.pid").write_text(str(os.getpid()))
    while True:
        time.sleep(0.1)


Runs = Iterable[tuple[str, str | None, dict[str, Any]]]


def evaluation_name(checkpoint: str, corpus: str) -> str:
    """The id of an evaluation: a hash of what it is, or workers would take the plan for edited."""
    return evaluation_id(_kind(corpus), checkpoint)


def make_plan(
    out: Path,
    runs: Runs,
    *,
    corpora: Iterable[str] = CORPORA,
    execution: dict[str, Any] | None = None,
    watch: dict[str, WatchSpec] | None = None,
    given: dict[str, Path] | None = None,
    chains: Iterable[PlannedChain] = (),
    name: str = "toy",
) -> Path:
    """Writes a plan.json.

    Args:
        out: study folder.
        runs: id, parent and spec; the stage is the id up to its first dash.
        corpora: on which every checkpoint is evaluated.
        execution: fields of `ExecutionSpec`.
        watch: curves by run id.
        given: folders of given checkpoints by their ids.
        chains: of the plan.
        name: of the study.
    """
    listed, corpora = list(runs), list(corpora)
    planned = [
        PlannedRun.model_construct(
            id=run_id,
            stage=run_id.split("-")[0],
            parent=parent,
            spec={"init": None, **spec},
            cost=RunCost(flops=spec.get("steps", 3)),
            watch=(watch or {}).get(run_id),
        )
        for run_id, parent, spec in listed
    ]
    checkpoints = [*(given or {}), *(run_id for run_id, _, _ in listed)]
    (out / "tokens").mkdir(parents=True, exist_ok=True)
    Plan.model_construct(
        name=name,
        stores={corpus: f"{corpus}-0123456789ab" for corpus in corpora},
        tokenizer="tokenizer-0123456789ab",
        execution=ExecutionSpec(**(execution or {})),
        given={key: str(folder) for key, folder in (given or {}).items()},
        stage_runs=tuple(planned),
        heldout=tuple(_kind(corpus) for corpus in corpora),
        evaluations={
            checkpoint: {evaluation_name(checkpoint, corpus): kind for kind, corpus in enumerate(corpora)}
            for checkpoint in checkpoints
            if corpora
        },
        chains=tuple(chains),
    ).write(out / "plan.json")
    return out


def _kind(corpus: str) -> EvaluationSpec:
    store = f"{corpus}-0123456789ab"
    return EvaluationSpec(checkpoint="", store=store, stop_windows=2, windows=4, seq_len=8, loss_on="all")


def run(out: Path, workers: int | None = 2, executor: str = "local", engine: str = ENGINE, **options: Any) -> int:
    """Launches as the command does, printing on standard output; the exit code."""
    from rich.console import Console

    return _run(Console(width=200), out, workers, executor, engine, **options)


def run_quietly(
    out: Path, workers: int | None = 2, executor: str = "local", engine: str = ENGINE, **options: Any
) -> tuple[int, str]:
    """Launches as the command does; exit code and what was printed."""
    from rich.console import Console

    text = io.StringIO()
    code = _run(Console(file=text, width=200), out, workers, executor, engine, **options)
    return code, text.getvalue()


def _run(console: Any, out: Path, workers: int | None, executor: str, engine: str, **options: Any) -> int:
    from indelible.console import live
    from indelible.scheduling.launcher import launch

    with live.watching(console) as observer:
        outcome = launch(out, workers, executor, engine=engine, observer=observer, **options)
    live.print_outcome(console, outcome)
    return outcome.exit_code


def command(out: Path, workers: int = 2, executor: str = "local", engine: str = ENGINE) -> list[str]:
    """The command line of a launcher process; fake_engine must be on its PYTHONPATH."""
    code = "import sys; from pathlib import Path; import fake_engine\n"
    code += "sys.exit(fake_engine.run(Path(sys.argv[1]), int(sys.argv[2]), *sys.argv[3:]))"
    return [sys.executable, "-c", code, str(out), str(workers), executor, engine]
