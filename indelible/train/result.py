"""What a finished stage reports: counts, times, FLOPs. Its losses are evaluations, apart from it."""

from typing import Any

from indelible.data.ledger import Ledger
from indelible.data.row_reader import row_counts
from indelible.records import StageResult, UseCounts
from indelible.study.architecture import architecture_of
from indelible.study.cost import start_tokens, training_passes
from indelible.train.device import environment
from indelible.train.job import StageJob
from indelible.train.loop import Loop
from indelible.train.optim import warmup_of
from indelible.train.program import Program

LEDGER_BINS = 50  # parts of the stage in ledger.json


def forward_flops(program: Program, seq_len: int) -> float:
    """FLOPs of one forward pass a token; exact or an estimate, as `indelible.study.architecture` says."""
    return architecture_of(program.config.to_dict()).forward_flops(seq_len)


def training_flops(loop: Loop, tokens: int) -> float:
    """FLOPs of training on ``tokens``: forward and backward, what a guard adds, and once the start of pairs."""
    passes = training_passes(loop.spec) * tokens + start_tokens(loop.spec)
    return passes * forward_flops(loop.program, loop.spec.seq_len)


def stage_result(job: StageJob, loop: Loop, stop_reason: str, **more: Any) -> StageResult:
    """The result of a stage.

    Args:
        job: the run.
        loop: as it ended.
        stop_reason: max_tokens, patience, empty or diverged.
        more: further fields of `StageResult`: weights_sha256, total_seconds, resumed.
    """
    state, device, spec = loop.state, loop.program.device, loop.spec
    seen = loop.ledger.tokens_by_source(state.step * loop.training.global_batch_size)
    preference = loop.context.preference
    flops = training_flops(loop, sum(seen.values()))  # padding and what is masked go through the model too
    seconds, peak = state.trained_seconds, device.peak_flops
    return StageResult(
        id=job.run_id,
        stage=job.stage,
        status="diverged" if stop_reason == "diverged" else "done",
        stop_reason=stop_reason,
        steps=state.step,
        total_steps=loop.total_steps,
        warmup_steps=warmup_of(loop.training, loop.total_steps),
        best_step=state.best_step if loop.best else None,
        best_stop_loss=state.best_loss if loop.best else None,
        train_tokens=state.tokens,
        sources=sources(loop),
        pairs_too_long=None if preference is None else preference.table.too_long(spec.seq_len),
        tokens_seen=seen,
        trained_seconds=seconds,
        eval_seconds=state.eval_seconds,
        tokens_per_second=state.tokens / seconds if seconds else 0.0,
        flops=flops,
        flops_estimated=not architecture_of(loop.program.config.to_dict()).is_exact,
        mfu=flops / seconds / peak / loop.world.size if peak and seconds else None,
        parent=spec.parent,
        ledger_sha256=loop.ledger.sha256,
        precision=device.precision,
        watched=job.watch,
        environment={**environment(device), "world_size": loop.world.size},
        **more,
    )


def sources(loop: Loop) -> dict[str, UseCounts]:
    """Rows, tokens and trained tokens of each use, as far as the stage was trained."""
    ledger, seq_len = loop.ledger, loop.spec.seq_len
    end = loop.state.step * loop.training.global_batch_size
    found = {}
    for index, use in enumerate(ledger.uses):
        counts = row_counts(loop.context.stores[ledger.stores[index]], "train", seq_len, ledger.rules_of(index))
        shown = ledger.window[:end][ledger.source[:end] == index]
        tokens, trained = int(counts.tokens[shown].sum()), int(counts.trained[shown].sum())
        found[use] = UseCounts(rows=len(shown), tokens=tokens, trained_tokens=trained)
    return found


def ledger_picture(ledger: Ledger, loop: Loop) -> dict[str, Any]:
    """What ledger.json holds: tokens per source in each part of the stage, as far as it was trained."""
    end = min(len(ledger), loop.state.step * loop.training.global_batch_size)
    bins = ledger.tokens_by_bin(LEDGER_BINS, end)
    return {"sources": list(bins), "bins": LEDGER_BINS, "tokens": list(bins.values())}
