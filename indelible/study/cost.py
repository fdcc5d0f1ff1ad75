"""What a study costs before it is run: tokens, FLOPs, storage, hours, and what sharing stages saves."""

from collections.abc import Container, Mapping
from dataclasses import dataclass
from typing import Any

from indelible.objectives import PairObjective
from indelible.study.architecture import Architecture, architecture_of_spec
from indelible.study.arm import ModelSpec
from indelible.study.graph import Graph, StageRun, stage_sequences, total_steps
from indelible.study.stage_spec import StageSpec

DEFAULT_POINTS = 17  # of a curve whose steps nobody chose, about


def num_parameters(model: ModelSpec, vocab_size: int) -> int:
    """Exact number of weights of a model that is drawn from a spec; a tied head counts once."""
    return architecture_of_spec(model, vocab_size).num_parameters


def forward_flops_per_token(model: ModelSpec, vocab_size: int, seq_len: int) -> float:
    """FLOPs of one forward pass per predicted token of a model that is drawn from a spec."""
    return architecture_of_spec(model, vocab_size).forward_flops(seq_len)


@dataclass(frozen=True)
class StageCost:
    """Upper bound of one stage run: early stopping may end it before."""

    tokens: int  # trained tokens
    flops: float  # training (three forward passes a token) and evaluation
    checkpoint_bytes: int  # fp32 weights
    is_estimate: bool = False  # of FLOPs and bytes: the model is of a family that is not counted exactly


def stage_cost(spec: StageSpec, shape: Architecture, reported_sequences: int = 0) -> StageCost:
    """Cost of one stage run of a model.

    Args:
        spec: the stage run.
        shape: of the model that it trains.
        reported_sequences: held-out windows that are evaluated beside training, over all corpora: when it has ended,
            and at the points of its curves; a pair is two.
    """
    tokens = stage_sequences(spec) * spec.seq_len
    forward = shape.forward_flops(spec.seq_len)
    interval = spec.training.eval_interval
    stops = (total_steps(spec) // interval + 2) if interval else 0
    stopping = stops * (spec.stop.windows if spec.stop else 0) * spec.data.main.sequences
    evaluated = (stopping + reported_sequences) * spec.seq_len
    flops = forward * (training_passes(spec) * tokens + start_tokens(spec) + evaluated)
    return StageCost(tokens, flops, 4 * shape.num_parameters, not shape.is_exact)


def training_passes(spec: StageSpec) -> float:
    """Forward passes that a trained token costs: forward, backward (two), and those of a guard."""
    return 3 * spec.objective.forward_passes + spec.guard.forward_passes


def start_tokens(spec: StageSpec) -> float:
    """Tokens that go once through the model that a preference stage starts from: its pairs, and those that stop it."""
    if not isinstance(spec.objective, PairObjective):
        return 0.0
    pairs = spec.data.main.windows + (spec.stop.windows if spec.stop else 0)
    return spec.objective.start_passes * pairs * spec.objective.sequences * spec.seq_len


def graph_costs(graph: Graph, shapes: Mapping[str, Architecture]) -> dict[str, StageCost]:
    """Costs by run id; ``shapes`` gives the model of each run."""
    reported = {
        checkpoint: sum(graph.heldout[kind].tokens // graph.heldout[kind].seq_len for kind in wanted.values())
        for checkpoint, wanted in graph.evaluations.items()
    }
    return {
        run.id: stage_cost(run.spec, shapes[run.id], reported.get(run.id, 0) + watched_windows(run, graph))
        for run in graph.runs.values()
    }


def watched_windows(run: StageRun, graph: Graph) -> int:
    """Held-out windows that the curves of a run take, over all points and corpora, at most."""
    if run.watch is None:
        return 0
    last = total_steps(run.spec)
    points = min(last + 1, DEFAULT_POINTS)
    if run.watch.steps is not None:
        points = len({step for step in run.watch.steps if step < last}) + 1  # the end is always one
    kinds = graph.heldout
    if run.watch.corpora is not None:
        kinds = tuple(kind for kind in kinds if kind.store.rpartition("-")[0] in run.watch.corpora)
    return points * sum(run.watch.windows or kind.windows for kind in kinds if kind.seq_len == run.spec.seq_len)


def shapes_by_run(graph: Graph, vocab_size: int, given: Mapping[str, Architecture]) -> dict[str, Architecture]:
    """The model that each run trains: its own, or that of its first ancestor.

    Args:
        graph: the study.
        vocab_size: of the study's tokenizer.
        given: the models of given checkpoints, by their sha256.
    """
    shapes: dict[str, Architecture] = {}
    own: dict[ModelSpec, Architecture] = {}
    for run in graph.runs.values():  # parents come first
        if run.spec.init is not None:
            shapes[run.id] = given[run.spec.init.sha256]
        elif run.spec.model is not None:
            shapes[run.id] = own.setdefault(run.spec.model, architecture_of_spec(run.spec.model, vocab_size))
        else:
            shapes[run.id] = shapes[str(run.parent)]
    return shapes


def token_bytes(graph: Graph, vocab_size: int) -> int:
    """Bytes of the tokens that a plan reads; the stores hold at least those."""
    read: dict[str, int] = {}
    for run in graph.runs.values():
        sequences = {use.store: use.sequences for use in run.spec.data.uses}
        for store, windows in run.spec.data.asked_windows.items():
            read[store] = max(read.get(store, 0), windows * sequences[store] * run.spec.seq_len)
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
    for stage in graph.stages:
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
        "flops_estimated": any(cost.is_estimate for cost in costs.values()),
        "flops_without_sharing": alone,
        "saving": alone / flops if flops else 1.0,
        "kept_bytes": sum(cost.checkpoint_bytes for cost in costs.values()),  # every run's checkpoint
        "token_bytes": token_bytes(graph, vocab_size),
        "resume_bytes_per_worker": 4 * largest,  # weights, two moments and, with early stopping, the best weights
    }
