"""What a study costs before it is run: tokens, FLOPs, storage, hours, and what sharing stages saves."""

from collections.abc import Container, Mapping
from dataclasses import dataclass
from typing import Any

from indelible.errors import UserError
from indelible.study.graph import Graph, stage_windows, total_steps
from indelible.study.spec import ModelSpec
from indelible.study.stages import STAGES, StageSpec


def num_parameters(model: ModelSpec, vocab_size: int) -> int:
    """Exact number of weights of the Llama architecture; a tied head counts once."""
    hidden, width = model.hidden_size, model.intermediate_size
    kv_size = hidden // model.num_heads * model.num_kv_heads
    attention = 2 * hidden * hidden + 2 * hidden * kv_size  # Q and O, K and V
    layer = attention + 3 * hidden * width + 2 * hidden  # gate, up, down; two norms
    embeddings = vocab_size * hidden * (1 if model.tie_embeddings else 2)
    return embeddings + model.num_layers * layer + hidden


def model_of_config(config: Mapping[str, Any]) -> ModelSpec:
    """The shape of a given checkpoint from its config.json, to reckon its cost; exact for Llama-like models."""
    hidden = config.get("hidden_size") or config.get("n_embd") or config.get("d_model")
    heads = config.get("num_attention_heads") or config.get("n_head")
    layers = config.get("num_hidden_layers") or config.get("n_layer")
    if not (hidden and heads and layers):
        raise UserError(
            f"init: config.json of a {config.get('model_type', 'nameless')} model has no hidden_size, "
            "num_attention_heads and num_hidden_layers; indelible takes causal language models of transformers."
        )
    return ModelSpec(
        hidden_size=hidden,
        num_layers=layers,
        num_heads=heads,
        num_kv_heads=config.get("num_key_value_heads") or heads,
        intermediate_size=config.get("intermediate_size") or config.get("n_inner") or 4 * hidden,
        tie_embeddings=config.get("tie_word_embeddings", True),
    )


def forward_flops_per_token(model: ModelSpec, vocab_size: int, seq_len: int) -> float:
    """FLOPs of one forward pass per predicted token: two per weight of every matrix product and head, and attention.

    Attention is counted in full, seq_len keys a query, as is usual for MFU; the embedding look-up costs nothing.
    """
    hidden = model.hidden_size
    norms = model.num_layers * 2 * hidden + hidden
    matrices = num_parameters(model, vocab_size) - norms - (0 if model.tie_embeddings else vocab_size * hidden)
    return 2.0 * matrices + 4.0 * model.num_layers * seq_len * hidden


@dataclass(frozen=True)
class StageCost:
    """Upper bound of one stage run: early stopping may end it before."""

    tokens: int  # trained tokens
    flops: float  # training (three forward passes a token) and evaluation
    checkpoint_bytes: int  # fp32 weights


def stage_cost(spec: StageSpec, model: ModelSpec, vocab_size: int) -> StageCost:
    """Cost of one stage run of a model."""
    tokens = stage_windows(spec) * spec.seq_len
    forward = forward_flops_per_token(model, vocab_size, spec.seq_len)
    interval = spec.training.eval_interval
    stops = (total_steps(spec) // interval + 2) if interval else 0
    evaluation = spec.evaluation
    evaluated = (stops * evaluation.stop_windows + len(evaluation.stores) * evaluation.windows) * spec.seq_len
    flops = forward * (3 * tokens + evaluated)
    return StageCost(tokens, flops, 4 * num_parameters(model, vocab_size))


def graph_costs(graph: Graph, models: dict[str, ModelSpec], vocab_size: int) -> dict[str, StageCost]:
    """Costs by run id; ``models`` gives the model of each run."""
    return {run.id: stage_cost(run.spec, models[run.id], vocab_size) for run in graph.runs.values()}


def models_by_run(graph: Graph, fallback: ModelSpec) -> dict[str, ModelSpec]:
    """The model that each run trains: its own, or that of its first ancestor; ``fallback`` for given checkpoints."""
    models: dict[str, ModelSpec] = {}
    for run in graph.runs.values():  # parents come first
        models[run.id] = run.spec.model or (models[run.parent] if run.parent else fallback)
    return models


def token_bytes(graph: Graph, vocab_size: int) -> int:
    """Bytes of the tokens that a plan reads; the stores hold at least those."""
    read: dict[str, int] = {}
    for run in graph.runs.values():
        for store, windows in run.spec.data.asked_windows.items():
            read[store] = max(read.get(store, 0), windows * run.spec.seq_len)
    return sum(read.values()) * (2 if vocab_size <= 1 << 16 else 4)


def remaining_flops(graph: Graph, costs: dict[str, StageCost], done: Container[str]) -> tuple[float, float]:
    """FLOPs of all runs that are not done, and those of the longest chain of them, which no workers can shorten."""
    work = 0.0
    ends: dict[str, float] = {}  # FLOPs from the start of a run's chain to its end
    for run in graph.runs.values():  # parents come first
        own = 0.0 if run.id in done else costs[run.id].flops
        work += own
        ends[run.id] = own + ends.get(run.parent or "", 0.0)
    return work, max(ends.values(), default=0.0)


def summary(graph: Graph, costs: dict[str, StageCost], vocab_size: int) -> dict[str, Any]:
    """Totals of a plan by stage, and the saving against running every chain alone."""
    stages = {}
    for stage in STAGES:
        runs = [run for run in graph.runs.values() if run.stage == stage]
        used = [costs[chain.runs[stage]] for chain in graph.chains if stage in chain.runs]
        stages[stage] = {
            "runs": len(runs),
            "runs_without_sharing": len(used),
            "tokens": sum(costs[run.id].tokens for run in runs),
            "flops": sum(costs[run.id].flops for run in runs),
            "flops_without_sharing": sum(cost.flops for cost in used),
        }
    flops = sum(entry["flops"] for entry in stages.values())
    alone = sum(entry["flops_without_sharing"] for entry in stages.values())
    largest = max((cost.checkpoint_bytes for cost in costs.values()), default=0)
    return {
        "chains": len(graph.chains),
        "stage_runs": len(graph.runs),
        "stages": stages,
        "tokens": sum(entry["tokens"] for entry in stages.values()),
        "flops": flops,
        "flops_without_sharing": alone,
        "saving": alone / flops if flops else 1.0,
        "kept_bytes": sum(cost.checkpoint_bytes for cost in costs.values()),  # every run's checkpoint
        "token_bytes": token_bytes(graph, vocab_size),
        "resume_bytes_per_worker": 4 * largest,  # weights, two moments and, with early stopping, the best weights
    }
