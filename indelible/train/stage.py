"""One stage run from its job to its result.json: spec + parent checkpoint in, checkpoint + held-out losses out."""

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from indelible.data.ledger import Ledger, build_ledger, corpus_of
from indelible.data.store import TokenStore
from indelible.files import write_json
from indelible.model.lora import kept_adapters, merged
from indelible.study.identity import without_tags
from indelible.study.stages import StageSpec
from indelible.train import checkpoint
from indelible.train.device import Device, choose_device, fitting_micro_batch
from indelible.train.distributed import World
from indelible.train.job import Progress, StageJob
from indelible.train.loop import Loop, StoppedByFirst, StopRule
from indelible.train.metrics import cut_metrics
from indelible.train.program import Program, forget_programs
from indelible.train.result import facts, final_losses, heldout_windows, ledger_picture, training_flops
from indelible.train.start import starting_program

SAY_SECONDS = 30.0  # between two lines of a run's log that say where it stands


@dataclass(frozen=True)
class _Inputs:
    """Everything a stage reads."""

    spec: StageSpec
    stores: dict[str, TokenStore]  # by folder name
    ledger: Ledger
    tokenizer_dir: Path


def run_stage(job: StageJob, *, progress: Callable[[Progress], None], guard: Callable[[], None]) -> None:
    """Runs one stage to its result.json, from its resume state if there is one.

    In a process group of torch all ranks call it with the same job and train it together; rank 0 writes the files.

    Args:
        job: the run and its inputs.
        progress: called a few times a second; may raise to stop the run, which is then saved first.
        guard: called before every write of state or results; raises when this process may not write any more.

    Raises:
        UserError: an input is missing or does not fit.
    """
    begun = time.monotonic()
    progress(Progress(0, 0, None, 0, 0.0, "loading"))
    world = World.current(job.execution.get("parallel") or "ddp")
    spec = StageSpec.model_validate(without_tags(job.spec))
    inputs = open_inputs(spec, job.tokens_dir)
    if world.size > 1:
        forget_programs()  # those kept belong to another wrapping of this process group
    program = starting_program(job, spec, inputs.tokenizer_dir, choose_device(spec.precision, job.execution))
    program.device = _split(program, job, spec, world)
    world.spread(program)
    loop = _loop(job, inputs, program, _said(job, progress) if world.is_first else progress, guard, world)
    resumed, earlier_seconds = _resume(loop, job)
    if world.is_first:
        _announce(job, loop)
    try:
        stop_reason = loop.run() if len(inputs.ledger) else "empty"
    except StoppedByFirst:
        return  # rank 0 raises what it was asked with
    losses: dict[str, Any] = {}
    extra: dict[str, Any] = {}
    if stop_reason != "diverged":
        loop.restore_best()
        evaluating = time.perf_counter()
        losses = final_losses(loop, spec, inputs.stores, progress)
        loop.state.eval_seconds += time.perf_counter() - evaluating
        extra = {"weights_sha256": _write_checkpoint(job, program, inputs, world, guard)}
    if world.is_first:
        seconds = earlier_seconds + time.monotonic() - begun
        result = facts(job, loop, stop_reason, losses) | extra | {"total_seconds": seconds, "resumed": int(resumed)}
        guard()
        write_json(job.run_dir / "ledger.json", ledger_picture(inputs.ledger, loop))
        write_json(job.run_dir / "result.json", result)
        checkpoint.delete_resume(job.run_dir)
    world.barrier()


def open_inputs(spec: StageSpec, tokens_dir: Path) -> _Inputs:
    """Opens the token stores that a stage trains and evaluates on, and builds its ledger.

    Raises:
        UserError: a store is missing or damaged, or a corpus is smaller than asked.
    """
    names = {spec.data.store, *spec.evaluation.stores.values()}
    names |= {part.store for part in (spec.data.exposure, spec.data.replay) if part is not None}
    stores = {name: TokenStore.open(tokens_dir / name) for name in sorted(names)}
    windows = {name: store.num_windows("train", spec.seq_len) for name, store in stores.items()}
    return _Inputs(spec, stores, build_ledger(spec, windows), tokens_dir / spec.tokenizer)


def _split(program: Program, job: StageJob, spec: StageSpec, world: World) -> Device:
    """The device of a program with the micro batch that was asked for, or on a GPU that fits."""
    device, asked = program.device, job.execution.get("micro_batch_size")
    if asked is None and device.torch_device.type == "cuda":
        parameters = sum(weight.numel() for weight in program.model.parameters())
        held = parameters // world.size if world.parallel == "fsdp" else parameters
        memory_bytes = torch.cuda.get_device_properties(device.torch_device).total_memory
        share = world.share_of(spec.training.global_batch_size)
        asked = fitting_micro_batch(program.config, held, spec.seq_len, share, device, memory_bytes)
    return replace(device, micro_batch_size=asked)


def _loop(
    job: StageJob,
    inputs: _Inputs,
    program: Program,
    progress: Callable[[Progress], None],
    guard: Callable[[], None],
    world: World,
) -> Loop:
    spec = inputs.spec
    stop_rule = None
    if spec.training.eval_interval is not None:
        store = inputs.stores[spec.evaluation.stop_store]
        heldout = heldout_windows(store, spec.evaluation.stop_windows, spec)
        stop_rule = StopRule(heldout, corpus_of(spec.evaluation.stop_store), store.bytes_per_token("heldout"))
    seconds = job.execution.get("resume_seconds") or 30.0
    stores = dict(inputs.stores)
    return Loop(spec, program, inputs.ledger, stores, stop_rule, job.run_dir, progress, guard, seconds, world)


def _resume(loop: Loop, job: StageJob) -> tuple[bool, float]:
    """Loads the resume state if there is one; says so, and says it when one cannot be used.

    Returns:
        Whether the stage continues, and the seconds that it took before.
    """
    world = loop.world
    name = world.first_says(str(_usable_state(loop, job) or "") if world.is_first else "")
    if not name:
        return False, 0.0
    folder = Path(name)
    loop.load(folder)
    if world.is_first:
        print(f"{job.run_id}: continues at step {loop.state.step} of {loop.total_steps}", flush=True)
        _say_world_size(loop, job, checkpoint.read_record(folder)["world_size"])
    return True, loop.state.trained_seconds + loop.state.eval_seconds


def _usable_state(loop: Loop, job: StageJob) -> Path | None:
    folder, damaged = checkpoint.find_resume(job.run_dir)
    for sentence in damaged:
        print(f"{job.run_id}: {sentence}", flush=True)
    if folder is not None and checkpoint.read_record(folder)["ledger"] == loop.ledger.sha256:
        return folder
    if folder is not None:
        print(f"{job.run_id}: the data order changed since the resume state was written; it is not used", flush=True)
    cut_metrics(job.run_dir / "metrics.jsonl", -1)
    return None


def _say_world_size(loop: Loop, job: StageJob, before: int) -> None:
    if before == loop.world.size:
        return
    same = "dropout masks differ from here on" if loop.training.dropout else "sums are added up in another order"
    print(
        f"{job.run_id}: {before} process(es) wrote this state, {loop.world.size} go on: the data order is the same, "
        f"{same}, so the result is not bitwise that of an uninterrupted run",
        flush=True,
    )


def _announce(job: StageJob, loop: Loop) -> None:
    """Says what the run will do."""
    program, training, world = loop.program, loop.training, loop.world
    parameters = sum(weight.numel() for weight in program.model.parameters())
    trainable = sum(weight.numel() for weight in program.trainable().values())
    adapted = f" ({trainable:,} trained)" if trainable != parameters else ""
    share = world.share_of(training.global_batch_size)
    micro = min(program.device.micro_batch_size or share, share)
    ranks = f" on each of {world.size} processes ({world.parallel})" if world.size > 1 else ""
    tokens = len(loop.ledger) * loop.spec.seq_len
    print(
        f"{job.run_id}: {parameters:,} parameters{adapted} on {program.device.describe()}; {loop.total_steps:,} steps "
        f"of {training.global_batch_size} x {loop.spec.seq_len} tokens, {micro} sequence(s) at a time{ranks}; at most "
        f"{tokens:,} tokens and {training_flops(program, loop.spec.seq_len, tokens):.2e} FLOPs",
        flush=True,
    )


def _said(job: StageJob, progress: Callable[[Progress], None]) -> Callable[[Progress], None]:
    """``progress``, and now and then a line that says where the training stands."""
    said_at = time.monotonic()

    def say(now: Progress) -> None:
        nonlocal said_at
        if now.phase == "training" and time.monotonic() - said_at >= SAY_SECONDS:
            said_at = time.monotonic()
            print(f"{job.run_id}: {now.describe()}", flush=True)
        progress(now)

    return say


def _write_checkpoint(
    job: StageJob, program: Program, inputs: _Inputs, world: World, guard: Callable[[], None]
) -> str | None:
    """Writes the checkpoint on rank 0; returns the digest of its weights there."""
    weights = program.all_weights()  # all ranks take part in gathering
    if not world.is_first:
        return None
    lora, kept = program.lora, None
    if lora is not None and not lora.merge:
        kept = checkpoint.Adapters(lora, kept_adapters(weights))
    state = merged(weights, lora) if lora is not None else weights
    guard()
    checkpoint.save_checkpoint(job.run_dir / "checkpoint", state, program.config, inputs.tokenizer_dir, kept)
    return checkpoint.weights_sha256(state)
