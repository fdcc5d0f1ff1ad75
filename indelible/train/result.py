"""What a finished stage reports: losses on every corpus, counts, times, FLOPs."""

import math
from collections.abc import Callable
from typing import Any

from indelible.data.ledger import Ledger, corpus_of
from indelible.data.loader import Batch, read_heldout
from indelible.data.store import TokenStore
from indelible.errors import UserError
from indelible.study.cost import forward_flops_per_token
from indelible.study.spec import ModelSpec
from indelible.study.stages import StageSpec
from indelible.train.device import environment
from indelible.train.evaluate import evaluate
from indelible.train.job import Progress, StageJob
from indelible.train.loop import Loop
from indelible.train.program import Program

LEDGER_BINS = 50  # parts of the stage in ledger.json


def heldout_windows(store: TokenStore, windows: int, spec: StageSpec) -> Batch:
    """The held-out windows of a store that a stage evaluates on: at most ``windows``, always the same.

    Raises:
        UserError: there is not even one.
    """
    available = store.num_windows("heldout", spec.seq_len)
    if available == 0:
        raise UserError(
            f"corpus {corpus_of(store.folder.name)!r}: its held-out split is shorter than one window of {spec.seq_len} "
            "tokens; raise data.split.heldout_fraction or give the corpus more text."
        )
    return read_heldout(store, min(windows, available), spec.seq_len, spec.loss_on)


def training_flops(program: Program, seq_len: int, tokens: int) -> float:
    """FLOPs of training on ``tokens``: three forward passes each.

    Exact for the Llama architecture (attention in full); for others two FLOPs a weight, embeddings included once.
    """
    config = program.config
    names = ("hidden_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads", "intermediate_size")
    values = [getattr(config, name, None) for name in names]
    if not all(isinstance(value, int) for value in values) or config.model_type not in ("llama", "mistral", "qwen2"):
        return 6.0 * tokens * sum(weight.numel() for weight in program.model.parameters())
    hidden, layers, heads, kv_heads, width = values
    spec = ModelSpec(
        hidden_size=hidden,
        num_layers=layers,
        num_heads=heads,
        num_kv_heads=kv_heads,
        intermediate_size=width,
        tie_embeddings=config.tie_word_embeddings,
    )
    return 3 * forward_flops_per_token(spec, config.vocab_size, seq_len) * tokens


def final_losses(
    loop: Loop, spec: StageSpec, stores: dict[str, TokenStore], progress: Callable[[Progress], None]
) -> dict[str, Any]:
    """Losses on every corpus of the study; best weights that were restored are evaluated again, and must agree."""
    progress(loop.progress("evaluating"))
    losses = {}
    for corpus, store_name in spec.evaluation.stores.items():
        store = stores[store_name]
        heldout = heldout_windows(store, spec.evaluation.windows, spec)
        loss = evaluate(loop.program, heldout, store.bytes_per_token("heldout"), loop.world)
        losses[corpus] = loss.as_json(spec.loss_on)
    state, rule = loop.state, loop.stop_rule
    if loop.best and rule is not None and state.best_loss is not None:
        again = evaluate(loop.program, rule.heldout, rule.bytes_per_token, loop.world).nats_per_token
        if not math.isclose(again, state.best_loss, rel_tol=1e-6):
            raise RuntimeError(
                f"the restored best weights give {again:.6f} nats on {rule.corpus}, at their step it was "
                f"{state.best_loss:.6f}: they are not the weights that were kept"
            )
    return losses


def facts(job: StageJob, loop: Loop, stop_reason: str, losses: dict[str, Any]) -> dict[str, Any]:
    """The entries of result.json but for identity of weights and total time."""
    state, device, spec = loop.state, loop.program.device, loop.spec
    flops = training_flops(loop.program, spec.seq_len, state.tokens)
    seconds = state.trained_seconds
    peak = device.peak_flops
    return {
        "format": 1,
        "id": job.run_id,
        "stage": job.stage,
        "status": "diverged" if stop_reason == "diverged" else "done",
        "stop_reason": stop_reason,
        "losses": losses,
        "steps": state.step,
        "total_steps": loop.total_steps,
        "best_step": state.best_step if loop.best else None,
        "best_stop_loss": state.best_loss if loop.best else None,
        "train_tokens": state.tokens,
        "tokens_seen": loop.ledger.tokens_by_source(state.step * loop.training.global_batch_size),
        "trained_seconds": seconds,
        "eval_seconds": state.eval_seconds,
        "tokens_per_second": state.tokens / seconds if seconds else 0.0,
        "flops": flops,
        "mfu": flops / seconds / peak / loop.world.size if peak and seconds else None,
        "parent": spec.parent,
        "ledger_sha256": loop.ledger.sha256,
        "precision": device.precision,
        "environment": {**environment(device), "world_size": loop.world.size},
    }


def ledger_picture(ledger: Ledger, loop: Loop) -> dict[str, Any]:
    """What ledger.json holds: tokens per source in each part of the stage, as far as it was trained."""
    end = min(len(ledger), loop.state.step * loop.training.global_batch_size)
    bins = ledger.tokens_by_bin(LEDGER_BINS, end)
    return {"sources": list(bins), "bins": LEDGER_BINS, "tokens": list(bins.values())}
