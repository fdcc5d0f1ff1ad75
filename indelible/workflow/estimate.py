"""What a study would run and what it costs: runs, evaluations, tokens, FLOPs, storage, hours. The content of `plan`."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from indelible.corpora.sources import default_cache_dir
from indelible.errors import UserError
from indelible.host import default_workers
from indelible.measure.speed import chosen_device, find_speed
from indelible.records import StageResult, run_dir
from indelible.study import cost
from indelible.study.architecture import Architecture
from indelible.study.execution import check_workers
from indelible.study.load import Study
from indelible.workflow.planning import Planned
from indelible.workflow.proportions import heldout_notes, proportions
from indelible.workflow.standing import Standing, names_in, standing_of

CPU_FLOPS_PER_CORE = 5e10  # a cautious rate where no speed was measured


@dataclass(frozen=True)
class ModelSize:
    """A model of the study and the chains that train it."""

    parameters: int
    chains: int
    where: dict[str, Any]  # columns that these chains alone have with one value; empty where all have one model


@dataclass(frozen=True)
class Estimate:
    """A study before it is run. Tokens, FLOPs and hours are upper bounds: early stopping ends stages before."""

    study: str
    scale: str
    precision: str  # that of the stage runs: fp32, bf16, or "bf16 and fp32"
    models: tuple[ModelSize, ...]
    chains: int
    stage_runs: int
    already_done: int  # of the stage runs, diverged ones included
    unreachable: int  # stage runs behind a diverged one: they are never made
    evaluations: int  # a checkpoint on a corpus or on a task
    evaluations_done: int
    stages: dict[str, dict[str, Any]]  # runs, runs_without_sharing, tokens, flops and flops_without_sharing by stage
    tokens: int
    flops: float
    flops_estimated: bool  # some model is of a family whose weights and FLOPs are not counted exactly
    flops_without_sharing: float
    saving: float  # factor of FLOPs, against running every chain alone
    kept_bytes: int  # every run's checkpoint
    token_bytes: int
    resume_bytes_per_worker: int
    peak_bytes: int  # checkpoints, tokens, and two resume states a worker
    flops_per_second: float  # of one worker
    rate: str  # given, measured or assumed
    rate_source: str  # where the rate comes from, in words
    workers: int
    hours: float  # of what is left to do
    notes: tuple[str, ...]  # proportions that make the study say little, each with what to do; what is not priced

    @property
    def remaining(self) -> str:
        """What is left to do, in words."""
        runs = self.stage_runs - self.already_done - self.unreachable
        evaluations = self.evaluations - self.evaluations_done
        if not runs and not evaluations:
            return "nothing to do"
        if not runs:
            return f"no training run, only {evaluations:,} evaluation{'s' * (evaluations > 1)}"
        return (
            f"{runs:,} stage run{'s' * (runs > 1)} and {evaluations:,} evaluation{'s' * (evaluations != 1)} to be made"
        )

    def as_json(self) -> dict[str, Any]:
        """For machines."""
        return {**asdict(self), "remaining": self.remaining}


def estimate(
    planned: Planned, out: Path | None = None, *, workers: int | None = None, flops_per_second: float | None = None
) -> Estimate:
    """Says what a planned study would run and what it costs.

    Args:
        planned: the study.
        out: a study folder: what is done there is counted, and its speed taken.
        workers: worker processes; None = those of the study, or as many as this machine carries.
        flops_per_second: speed of a worker; None = measured, else assumed.

    Raises:
        UserError: fewer than one worker, or no speed.
    """
    check_workers(workers)
    if flops_per_second is not None and not 0 < flops_per_second < math.inf:
        raise UserError(f"--flops-per-second {flops_per_second:g}: expected a number above 0.")
    study, summary = planned.study, planned.summary
    standing = standing_of(planned, out)
    state_bytes = summary["resume_bytes_per_worker"]
    num_workers = workers or study.execution.workers or _fitting_workers(study, len(planned.graph.runs), state_bytes)
    rate, origin, source = _rate(flops_per_second, out, study, num_workers)
    token_bytes = _folder_bytes(out / "tokens") if out and (out / "tokens").is_dir() else summary["token_bytes"]
    return Estimate(
        study=study.name,
        scale=study.scale,
        precision=" and ".join(sorted({run.spec.precision for run in planned.graph.runs.values()})),
        models=_models(planned),
        already_done=len(standing.results),
        unreachable=len(standing.unreachable),
        evaluations=standing.num_evaluations,
        evaluations_done=standing.num_evaluations - standing.num_missing,
        **{**summary, "token_bytes": token_bytes},
        # a new resume state is complete before the one before it is removed
        peak_bytes=summary["kept_bytes"] + token_bytes + 2 * num_workers * state_bytes,
        flops_per_second=rate,
        rate=origin,
        rate_source=source,
        workers=num_workers,
        hours=_seconds(planned, standing, num_workers, rate) / 3600,
        notes=(
            *proportions(study),
            *(heldout_notes(planned.graph, out / "tokens") if out else ()),
            *_unpriced(planned),
        ),
    )


def _fitting_workers(study: Study, runs: int, state_bytes: int) -> int:
    return default_workers(study.execution.device, runs, study.execution.devices_per_run, state_bytes)


def _seconds(planned: Planned, standing: Standing, workers: int, rate: float) -> float:
    """Of what is left, at most: the work shared evenly, or the longest chain, which no workers can shorten."""
    work, longest = cost.remaining_flops(planned.graph, planned.costs, standing.settled)
    for checkpoint, kinds in standing.missing.items():
        if checkpoint in standing.results or checkpoint not in planned.graph.runs:  # else a stage run's price has it
            work += _evaluation_flops(planned, checkpoint, kinds)
    work += sum(task_flops(planned, checkpoint, numbers) for checkpoint, numbers in standing.missing_tasks.items())
    return max(work / workers, longest) / rate


def _evaluation_flops(planned: Planned, checkpoint: str, kinds: list[int]) -> float:
    shape = _shape_of(planned, checkpoint)
    heldout = [planned.graph.heldout[kind] for kind in kinds]
    return sum(shape.forward_flops(kind.seq_len) * kind.tokens for kind in heldout)


def task_flops(planned: Planned, checkpoint: str, numbers: Sequence[int]) -> float:
    """FLOPs of a checkpoint's evaluations on tasks, at most; of lm-eval's own tasks they are not known."""
    shape, seq_len = _shape_of(planned, checkpoint), planned.study.arms[0].seq_len
    return shape.forward_flops(seq_len) * sum(planned.graph.tasks[number].tokens for number in numbers)


def _unpriced(planned: Planned) -> list[str]:
    """Tasks whose length only lm-eval knows, once it has loaded them."""
    names = ", ".join(task.task for task in planned.graph.tasks if not task.tokens)
    return [f"the hours leave out lm-eval's own tasks ({names}): a plan does not load their examples."] if names else []


def _shape_of(planned: Planned, checkpoint: str) -> Architecture:
    return planned.shapes.get(checkpoint) or planned.given_shapes[checkpoint]


def _models(planned: Planned) -> tuple[ModelSize, ...]:
    """The models of the study by size, each with what its chains alone have in common."""
    groups: dict[int, list[Mapping[str, Any]]] = {}
    for chain in planned.graph.chains:
        size = planned.shapes[next(iter(chain.runs.values()))].num_parameters
        groups.setdefault(size, []).append(chain.columns)
    found = []
    for size, chains in groups.items():
        others = [columns for other, group in groups.items() if other != size for columns in group]
        where = {
            name: value
            for name, value in chains[0].items()
            if others and all(one[name] == value for one in chains) and all(one.get(name) != value for one in others)
        }
        found.append(ModelSize(size, len(chains), where))
    return tuple(found)


def measured_rate(out: Path) -> float | None:
    """FLOP/s of one worker, from the finished runs of a study folder; None if there are none."""
    paths = [run_dir(out, name) / "result.json" for name in sorted(names_in(out / "runs"))]
    results = [result for path in paths if (result := StageResult.read(path)) is not None]
    seconds = sum(result.total_seconds for result in results)
    return sum(result.flops for result in results) / seconds if seconds else None


def _rate(given: float | None, out: Path | None, study: Study, workers: int) -> tuple[float, str, str]:
    """FLOP/s of one worker, whether it was given, measured or assumed, and a phrase that says where it comes from."""
    if given:
        return given, "given", "given"
    rate = measured_rate(out) if out else None
    if rate:
        return rate, "measured", f"measured on the finished runs of {out}"
    device, threads = chosen_device(study.execution.device), study.execution.threads or 1
    speed = find_speed(default_cache_dir(), study.scale, device, threads, workers)
    if speed is not None:
        return speed.flops_per_second, "measured", f"measured by `indelible bench`, {speed.workers} at work"
    return CPU_FLOPS_PER_CORE, "assumed", f"assumed; `indelible bench --scale {study.scale}` measures it"


def _folder_bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
