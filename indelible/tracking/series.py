"""What a tracker is shown of a stage run: where it comes from, its points by step, and how it ended."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from indelible.records import Evaluation, Plan, PlannedRun, SentRun, StageResult, evaluation_path, run_dir
from indelible.results.run_folder import read_metrics

Setting = str | float | bool  # of an int, too
_END = ("status", "stop_reason", "steps", "total_steps", "best_step", "best_stop_loss", "train_tokens",
        "trained_seconds", "tokens_per_second", "flops", "mfu", "precision", "weights_sha256")  # fmt: skip
_OF_A_LOSS = ("nats_per_token", "standard_error", "bits_per_byte", "accuracy", "accuracy_se", "margin", "margin_se")
_NOT_SETTINGS = ("study", "scale", "seed")  # columns that the lineage has already


@dataclass(frozen=True)
class TrackedRun:
    """A stage run and its lineage."""

    id: str
    study: str
    stage: str
    lineage: dict[str, Setting]  # study, scale, run, stage, seed, parent, ancestors: first ancestor first
    settings: dict[str, Setting]  # of the arms that it belongs to, as far as these agree
    spec: dict[str, Setting]  # every leaf of what is trained, by dotted name

    @property
    def config(self) -> dict[str, Setting]:
        """All of it under flat names."""
        arm = {f"arm.{name}": value for name, value in self.settings.items()}
        return {**self.lineage, **arm, **{f"spec.{name}": value for name, value in self.spec.items()}}


@dataclass
class Row:
    """What belongs to one step of a stage run."""

    step: int  # optimizer steps done
    tokens: int  # trained in this stage so far
    values: dict[str, float] = field(default_factory=dict)  # by key of metrics.jsonl; ``heldout/<corpus>/...``


@dataclass(frozen=True)
class News:
    """What is to be sent of a stage run, and what will have been sent then."""

    rows: tuple[Row, ...]  # by step
    end: dict[str, Setting]  # what result.json says; empty as long as there is none, and when it was sent before
    sent: SentRun
    is_new: bool  # anything of the two
    is_over: bool  # the run has a result

    @property
    def num_points(self) -> int:
        """Numbers in the rows."""
        return sum(len(row.values) for row in self.rows)


def tracked_runs(plan: Plan) -> list[TrackedRun]:
    """The stage runs of a plan with their lineage, parents before children."""
    known = {run.id: run for run in plan.stage_runs}
    columns: dict[str, dict[str, set[Any]]] = {}
    for chain in plan.chains:
        for run_id in chain.stages.values():
            for name, value in chain.columns.items():
                columns.setdefault(run_id, {}).setdefault(name, set()).add(value)
    found = []
    for run in plan.stage_runs:
        common = {name: next(iter(values)) for name, values in columns.get(run.id, {}).items() if len(values) == 1}
        settings = {
            name: value for name, value in common.items() if name not in _NOT_SETTINGS and value not in (None, "")
        }
        lineage = _lineage(plan, run, known)
        found.append(TrackedRun(run.id, plan.name, run.stage, lineage, settings, dict(_leaves(run.spec))))
    return found


def _lineage(plan: Plan, run: PlannedRun, known: Mapping[str, PlannedRun]) -> dict[str, Setting]:
    ancestors: list[str] = []
    parent = run.parent
    while parent is not None:
        ancestors.insert(0, parent)
        parent = known[parent].parent
    seed = run.spec.get("seed")
    seeds = {"seed": seed} if isinstance(seed, int) else {}
    return {"study": plan.name, "scale": plan.scale, "run": run.id, "stage": run.stage, **seeds,
            "parent": run.parent or "", "ancestors": " > ".join(ancestors)}  # fmt: skip


def _leaves(value: Any, prefix: str = "") -> Iterable[tuple[str, Setting]]:
    if isinstance(value, dict):
        for key, child in value.items():
            yield from _leaves(child, f"{prefix}.{key}" if prefix else str(key))
    elif value is not None:
        yield prefix, value if isinstance(value, str | int | float) else str(value)


def news_of(root: Path, plan: Plan, run: TrackedRun, sent: SentRun) -> News:
    """What a stage run has that was not sent yet.

    Points are remembered by group, so a curve that is asked for when its run is long done is sent whole.

    Args:
        root: folder of the study run.
        plan: its plan.
        run: the stage run.
        sent: what was sent before.

    Raises:
        UserError: a file of the run cannot be read.
    """
    rows: dict[int, Row] = {}
    last = dict(sent.last_steps)
    result = StageResult.read(run_dir(root, run.id) / "result.json")  # first: metrics are complete when it is there
    for record in read_metrics(root, run.id):
        step, tokens = int(record["step"]), int(record.get("tokens") or 0)
        for key, value in record.items():
            group = key.rpartition("/")[0]
            if not group or value is None or step <= sent.last_steps.get(group, -1):
                continue
            rows.setdefault(step, Row(step, tokens)).values[key] = float(value)
            last[group] = max(step, last.get(group, -1))
    made = [] if result is None else _new_evaluations(root, plan, run.id, sent)
    if result is not None and made:
        row = rows.setdefault(result.steps, Row(result.steps, result.train_tokens))
        row.values |= {key: value for one in made for key, value in _losses(one).items()}
    is_over = result is not None and not sent.is_ended
    end = {name: value for name in _END if (value := getattr(result, name)) is not None} if is_over else {}
    after = sent.model_copy(
        update={"last_steps": last, "evaluations": (*sent.evaluations, *(one.id for one in made)),
                "is_ended": result is not None}
    )  # fmt: skip
    return News(tuple(rows[step] for step in sorted(rows)), end, after, after != sent, result is not None)


def _new_evaluations(root: Path, plan: Plan, run_id: str, sent: SentRun) -> list[Evaluation]:
    wanted = (*plan.evaluations.get(run_id, {}), *plan.task_evaluations.get(run_id, {}))
    paths = (evaluation_path(root, run_id, name) for name in wanted if name not in sent.evaluations)
    return [one for path in paths if (one := Evaluation.read(path)) is not None]


def _losses(made: Evaluation) -> dict[str, float]:
    numbers = {name: getattr(made, name) for name in _OF_A_LOSS}
    return {f"heldout/{made.corpus}/{name}": float(value) for name, value in numbers.items() if value is not None}
