"""One stage run from its job to its result.json: spec and starting checkpoint in, checkpoint and evaluations out."""

import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from pydantic import ValidationError

from indelible.data.ledger import corpus_of
from indelible.errors import UserError
from indelible.files import write_json
from indelible.models.lora import kept_adapters, merged
from indelible.models.weights import weights_sha256
from indelible.records import StageResult
from indelible.study.identity import digest, without_tags
from indelible.study.stage_spec import StageSpec
from indelible.train import checkpoint
from indelible.train.context import StageContext, StoppedByFirst
from indelible.train.device import Device, choose_device, fitting_micro_batch, stage_execution, versions
from indelible.train.distributed import World
from indelible.train.evaluation import Made, evaluate_all, write_evaluations
from indelible.train.heldout import ReportedPairs
from indelible.train.inputs import Inputs, open_inputs
from indelible.train.job import Progress, StageJob
from indelible.train.loop import Loop
from indelible.train.packing_check import check_packing
from indelible.train.preference import Preference, preference_of
from indelible.train.program import Program, State, forget_programs
from indelible.train.repeat import check_same_weights, keep_first_metrics, kept_result
from indelible.train.result import ledger_picture, stage_result, training_flops
from indelible.train.resuming import resume
from indelible.train.start import starting_program
from indelible.train.stopping import stop_loss
from indelible.train.watch import Watcher, log_spaced_steps

REPORT_LINE_SECONDS = 30.0  # between two lines of a run's log that report where it stands


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
    world = World.current(job.execution.parallel)
    spec = _spec_of(job)
    inputs = open_inputs(spec, job)
    if world.size > 1:
        forget_programs()  # those kept belong to another wrapping of this process group
    device = choose_device(spec.precision, stage_execution(job.execution, inputs.total_steps))
    program = starting_program(job, spec, inputs.tokenizer_dir, device)
    program.device = _with_micro_batch(program, job, spec, world)
    _check_packing(program, job, spec)
    loop = Loop(_context(job, inputs, program, progress, guard, world))
    if world.is_first:
        keep_first_metrics(job.run_dir)
    resumed, earlier_seconds = resume(loop, job)
    if world.is_first:
        _announce(job, loop)
    try:
        stop_reason: str = loop.run() if len(inputs.ledger) else "empty"
    except StoppedByFirst:
        return  # rank 0 raises the stop request itself
    made: Made = {}
    if stop_reason != "diverged":
        made, stop_reason = _evaluated(loop, job, inputs, progress, stop_reason)
    handed_on = _handed_on(program) if stop_reason != "diverged" else None  # all ranks take part in gathering
    if world.is_first:
        result = stage_result(
            job,
            loop,
            stop_reason,
            weights_sha256=weights_sha256(handed_on.state) if handed_on else None,
            total_seconds=earlier_seconds + time.monotonic() - begun,
            resumed=int(resumed),
        )
        _write(job, inputs, loop, result, handed_on, made, guard)
    world.barrier()


def _spec_of(job: StageJob) -> StageSpec:
    try:
        return StageSpec.model_validate(without_tags(job.spec))
    except ValidationError as error:
        first = error.errors()[0]
        raise UserError(
            f"{job.run_id}: spec.{'.'.join(map(str, first['loc']))}: {first['msg']}; plan.json was edited, or another "
            "version of indelible wrote it. `indelible run STUDY --out DIR` writes it again."
        ) from None


def _check_packing(program: Program, job: StageJob, spec: StageSpec) -> None:
    """Tries out the model where some rows that it is to see hold several documents."""
    watched = [one.rules for one in job.heldout] if job.watch is not None else []
    rules = [*spec.store_rules.values(), *(one.rules for one in job.evaluations.values()), *watched]
    if any(one.packing == "best_fit" for one in rules):
        check_packing(program, f"{job.run_id}, packing: best_fit")


def _context(
    job: StageJob,
    inputs: Inputs,
    program: Program,
    progress: Callable[[Progress], None],
    fence: Callable[[], None],
    world: World,
) -> StageContext:
    """What the loop needs. The guard starts, from the weights the stage starts from, before ranks wrap the program."""
    spec = inputs.spec
    active = spec.guard.start(program)
    preference = _preference(spec, inputs, program, job, world, progress)
    world.wrap(program)
    return StageContext(
        spec=spec,
        program=program,
        guard=active,
        preference=preference,
        ledger=inputs.ledger,
        stores=dict(inputs.stores),
        stop_rule=inputs.stop_rule,
        watcher=_watcher(job, inputs),
        run_dir=job.run_dir,
        progress=_with_log_lines(job, progress) if world.is_first else progress,
        fence=fence,
        resume_seconds=job.execution.resume_seconds,
        world=world,
        identity={
            "spec": digest(spec),
            "ledger": inputs.ledger.sha256,
            "precision": program.device.precision,
            **versions(),
        },
    )


def _preference(
    spec: StageSpec, inputs: Inputs, program: Program, job: StageJob, world: World, progress: Callable[[Progress], None]
) -> Preference | None:
    """What a stage on pairs of answers has beside windows, with the log-probabilities of the weights it starts from."""
    if not spec.objective.needs_pairs:
        return None
    progress(Progress(0, 0, None, 0, 0.0, "evaluating"))
    table, stopping = inputs.stores[spec.data.main.store].pairs("train"), inputs.stop_rule and inputs.stop_rule.heldout
    assert stopping is None or isinstance(stopping, ReportedPairs)
    return preference_of(spec, table, inputs.ledger, stopping, program, job.run_dir, world)


def _watcher(job: StageJob, inputs: Inputs) -> Watcher | None:
    if job.watch is None:
        return None
    steps = log_spaced_steps(inputs.total_steps) if job.watch.steps is None else job.watch.steps
    return Watcher(inputs.watched, steps)


def _with_micro_batch(program: Program, job: StageJob, spec: StageSpec, world: World) -> Device:
    """The device of a program with the micro batch that was requested, or on a GPU that fits."""
    device, requested = program.device, job.execution.micro_batch_size
    if requested is None and device.torch_device.type == "cuda":
        parameters = sum(weight.numel() for weight in program.model.parameters())
        held = parameters // world.size if world.parallel == "fsdp" else parameters
        memory_bytes = torch.cuda.get_device_properties(device.torch_device).total_memory
        share = world.share_of(spec.training.global_batch_size) * spec.objective.sequences
        requested = fitting_micro_batch(
            program.config,
            held,
            spec.seq_len,
            share,
            device,
            memory_bytes,
            has_plain_head=program.has_plain_head,
            frozen_parameters=spec.guard.weight_copies * parameters,  # not sharded
        )
    return replace(device, micro_batch_size=requested)


def _evaluated(
    loop: Loop, job: StageJob, inputs: Inputs, progress: Callable[[Progress], None], stop_reason: str
) -> tuple[Made, str]:
    """The evaluations of the weights that the stage hands on; `diverged` where the last updates ruined them."""
    loop.restore_best()
    begun = time.perf_counter()
    progress(loop.progress("evaluating"))
    _check_restored(loop)
    if not loop.has_finite_weights():
        return {}, "diverged"
    made = evaluate_all(loop.program, job.evaluations, inputs.reported, inputs.stores, loop.world, progress)
    loop.state.eval_seconds += time.perf_counter() - begun
    own = corpus_of(inputs.spec.data.main.store)
    for record, losses in made.values():
        is_above = record.corpus == own and losses.mean > inputs.spec.training.max_loss
        if record.status == "diverged" or is_above:
            return {}, "diverged"
    return made, stop_reason


def _check_restored(loop: Loop) -> None:
    """The best weights that were restored are evaluated again, and must give the loss that chose them."""
    rule, state = loop.context.stop_rule, loop.state
    if rule is None or not loop.best or state.best_step == state.step:
        return
    loss, _ = stop_loss(loop.context)
    if loss != state.best_loss:
        raise RuntimeError(
            f"the restored weights of step {state.best_step} give {loss}, where {state.best_loss} was seen"
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
    tokens = sum(loop.ledger.tokens_by_source().values())
    what = f"pairs of 2 x {loop.spec.seq_len}" if loop.context.preference is not None else f"{loop.spec.seq_len}"
    print(
        f"{job.run_id}: {parameters:,} parameters{adapted} on {program.device.describe()}; {loop.total_steps:,} steps "
        f"of {training.global_batch_size} x {what} tokens, {micro} sequence(s) at a time{ranks}; at most "
        f"{tokens:,} tokens and {training_flops(loop, tokens):.2e} FLOPs",
        flush=True,
    )


def _with_log_lines(job: StageJob, progress: Callable[[Progress], None]) -> Callable[[Progress], None]:
    """``progress``, and now and then a line of the log that reports where the training stands."""
    printed_at = time.monotonic()

    def report(now: Progress) -> None:
        nonlocal printed_at
        if now.phase == "training" and time.monotonic() - printed_at >= REPORT_LINE_SECONDS:
            printed_at = time.monotonic()
            print(f"{job.run_id}: {now.describe()}", flush=True)
        progress(now)

    return report


@dataclass(frozen=True)
class _HandedOn:
    """What the next stage starts from."""

    state: State  # adapters folded in
    kept: checkpoint.Adapters | None


def _handed_on(program: Program) -> _HandedOn:
    weights, lora = program.all_weights(), program.lora
    if lora is None:
        return _HandedOn(weights, None)
    kept = None if lora.merge else checkpoint.Adapters(lora, kept_adapters(weights))
    return _HandedOn(merged(weights, lora), kept)


def _write(
    job: StageJob,
    inputs: Inputs,
    loop: Loop,
    result: StageResult,
    handed_on: _HandedOn | None,
    made: Made,
    guard: Callable[[], None],
) -> None:
    """Writes checkpoint, evaluations and result, in this order: a stage is done once its result is there.

    Raises:
        UserError: the run was made again for its curves and gave other weights than the first time.
    """
    earlier = StageResult.read(job.run_dir / "result.json")
    if earlier is not None:
        check_same_weights(job, earlier, result.weights_sha256)
    elif handed_on is not None:
        guard()
        folder, config = job.run_dir / "checkpoint", loop.program.config
        kept, start = handed_on.kept, job.start_dir
        checkpoint.save_checkpoint(folder, handed_on.state, config, inputs.tokenizer_dir, kept, start)
    if job.evaluations_dir is not None:
        write_evaluations(made, job.evaluations_dir, guard)
    guard()
    write_json(job.run_dir / "ledger.json", ledger_picture(inputs.ledger, loop))
    (result if earlier is None else kept_result(job, earlier)).write(job.run_dir / "result.json")
    checkpoint.delete_resume(job.run_dir)
