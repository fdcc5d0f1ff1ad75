"""Adds up what a study's stage runs cost; a run that several chains share counts once."""

from dataclasses import dataclass
from typing import Any

from indelible.analysis.columns import STAGES
from indelible.analysis.runs import StudyRun


@dataclass(frozen=True)
class StageCost:
    """One stage's runs."""

    stage: str
    num_runs: int  # with a result
    tokens: int  # trained
    unshared_tokens: int  # if every chain had trained the stage itself
    hours: float  # machine hours, evaluation included
    flops: float


@dataclass(frozen=True)
class Cost:
    """What the study's stage runs cost, and what it would be without sharing stages."""

    num_runs: int  # stage runs of the plan
    num_done: int
    planned_tokens: int
    planned_flops: float
    stages: tuple[StageCost, ...]

    @property
    def trained_tokens(self) -> int:
        """Tokens of all finished runs, each once."""
        return sum(stage.tokens for stage in self.stages)

    @property
    def unshared_tokens(self) -> int:
        """Tokens as if no chain shared a run."""
        return sum(stage.unshared_tokens for stage in self.stages)

    @property
    def trained_flops(self) -> float:
        """FLOPs of all finished runs, each once."""
        return sum(stage.flops for stage in self.stages)

    @property
    def hours(self) -> float:
        """Machine hours of all finished runs, each once."""
        return sum(stage.hours for stage in self.stages)

    @property
    def saved(self) -> float:
        """The part of the tokens that sharing stages saved, 0 to 1."""
        return 1 - self.trained_tokens / self.unshared_tokens if self.unshared_tokens else 0.0


def study_cost(run: StudyRun) -> Cost:
    """Adds up plan and results."""
    planned = [stage_run.get("cost") or {} for stage_run in run.plan.get("stage_runs", [])]
    return Cost(
        num_runs=len(planned),
        num_done=len(run.results),
        planned_tokens=sum(_number(cost, "tokens") for cost in planned),
        planned_flops=sum(_number(cost, "flops") for cost in planned),
        stages=tuple(_stage_cost(run, stage) for stage in STAGES),
    )


def _stage_cost(run: StudyRun, stage: str) -> StageCost:
    results = [result for result in run.results.values() if result.get("stage") == stage]
    chains = [run.results.get(chain.get(f"{stage}_id") or "") or {} for chain in run.plan["chains"]]
    return StageCost(
        stage=stage,
        num_runs=len(results),
        tokens=sum(_number(result, "train_tokens") for result in results),
        unshared_tokens=sum(_number(result, "train_tokens") for result in chains),
        hours=sum(_number(result, "total_seconds") for result in results) / 3600,
        flops=sum(_number(result, "flops") for result in results),
    )


def _number(values: dict[str, Any], key: str) -> Any:
    return values.get(key) or 0
