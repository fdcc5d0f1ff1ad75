"""Adds up what a study's stage runs cost; a run that several chains share counts once."""

from dataclasses import dataclass

import polars as pl

from indelible.results.columns import stages_of, token_columns
from indelible.results.run_folder import StudyRun


@dataclass(frozen=True)
class StageCost:
    """One stage's runs."""

    stage: str
    num_runs: int  # with a result
    tokens: int  # trained
    unshared_tokens: int  # if every chain had trained the stage itself
    hours: float  # of machines, evaluation included as far as `Cost.hours_of` says so
    flops: float


@dataclass(frozen=True)
class Cost:
    """What the study's stage runs cost, and what it would be without sharing stages."""

    num_runs: int  # stage runs of the plan
    num_done: int
    stages: tuple[StageCost, ...]
    hours_of: str = "machine"  # "training" where only the training loops' hours are known

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
    return Cost(
        num_runs=len(run.plan.stage_runs),
        num_done=len(run.results),
        stages=tuple(_stage_cost(run, stage) for stage in run.stages),
    )


def table_cost(table: pl.DataFrame) -> Cost:
    """Adds up what a results table says of its chains' stage runs; its hours are those of the training loops."""
    names = [stage for stage in stages_of(table) if table[f"{stage}_id"].null_count() < table.height]
    runs = {name for stage in names for name in table[f"{stage}_id"].drop_nulls()}
    stages = tuple(_table_stage_cost(stage, _known(table, stage)) for stage in names)
    return Cost(
        num_runs=len(runs),
        num_done=sum(stage.num_runs for stage in stages),
        stages=stages,
        hours_of="training",
    )


def _known(table: pl.DataFrame, stage: str) -> pl.DataFrame:
    """The stage's finished runs, one row a chain: run, tokens, seconds, flops."""
    tokens = pl.sum_horizontal(pl.lit(0, pl.Int64), *token_columns(table, stage))
    columns = (pl.col(f"{stage}_id").alias("run"), tokens.alias("tokens"),
               pl.col(f"{stage}_seconds").alias("seconds"), pl.col(f"{stage}_flops").alias("flops"))  # fmt: skip
    return table.select(*columns).filter(pl.col("run").is_not_null() & pl.col("flops").is_not_null())


def _table_stage_cost(stage: str, chains: pl.DataFrame) -> StageCost:
    runs = chains.unique("run", keep="first", maintain_order=True)
    return StageCost(
        stage=stage,
        num_runs=runs.height,
        tokens=int(runs["tokens"].sum()),
        unshared_tokens=int(chains["tokens"].sum()),
        hours=float(runs["seconds"].sum()) / 3600,
        flops=float(runs["flops"].sum()),
    )


def _stage_cost(run: StudyRun, stage: str) -> StageCost:
    results = [result for result in run.results.values() if result.stage == stage]
    chains = [chain.stages[stage] for chain in run.plan.chains if stage in chain.stages]
    return StageCost(
        stage=stage,
        num_runs=len(results),
        tokens=sum(result.train_tokens for result in results),
        unshared_tokens=sum(run.results[name].train_tokens for name in chains if name in run.results),
        hours=sum(result.total_seconds for result in results) / 3600,
        flops=sum(result.flops for result in results),
    )
