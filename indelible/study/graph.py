"""The graph of a study: its stage runs, each once however many chains share it, and its chains.

Sharing falls out of identity: two chains whose first stage has the same canonical spec have the same run id.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from indelible.study.arm_columns import arm_columns
from indelible.study.identity import CODE_VERSION, canonical, run_id
from indelible.study.load import Study
from indelible.study.spec import ArmSpec, PosttrainSpec, TrainingSpec
from indelible.study.stages import (
    STAGES,
    ExposureData,
    ReplayData,
    StageData,
    StageEvaluation,
    StageInit,
    StageName,
    StageSpec,
    StageTraining,
)


@dataclass(frozen=True)
class Stores:
    """Folder names of the token stores and of the tokenizer, by their fingerprints."""

    corpora: Mapping[str, str]  # corpus name to `<corpus>-<fingerprint>`
    tokenizer: str  # `tokenizer-<fingerprint>`


@dataclass(frozen=True)
class StageRun:
    """One node of the graph."""

    id: str
    spec: StageSpec

    @property
    def stage(self) -> StageName:
        return self.spec.stage

    @property
    def parent(self) -> str | None:
        return self.spec.parent


@dataclass(frozen=True)
class Chain:
    """The stage runs of one arm and one seed."""

    columns: dict[str, Any]  # the settings of the arm, named as in the results table
    roles: dict[str, str]  # pre, post, ft to corpus names
    runs: dict[StageName, str]  # run ids; a chain from a given checkpoint lacks the stages before it


@dataclass(frozen=True)
class Graph:
    """A study as stage runs (parents before children) and chains."""

    runs: dict[str, StageRun]
    chains: tuple[Chain, ...]


def build_graph(study: Study, stores: Stores, init: StageInit | None = None) -> Graph:
    """Resolves every chain of a study into stage runs.

    Args:
        study: the validated study.
        stores: token stores by corpus, as fingerprinted.
        init: identity of the checkpoint that `init:` names, None without one.
    """
    builder = _Builder(study, stores, init)
    for arm in study.arms:
        builder.add_arm(arm, study.seeds)
    return Graph(builder.runs, tuple(builder.chains))


def num_windows(tokens: int, seq_len: int) -> int:
    """Windows that hold ``tokens`` to within half a window, at least one."""
    return max(1, round(tokens / seq_len))


def exposure_windows(arm: ArmSpec) -> int:
    """Windows of D_post shown in pretraining, over all passes."""
    return round(arm.exposure.fraction * arm.posttrain.tokens / arm.seq_len)


class _Builder:
    """Collects runs and chains.

    A stage's spec is made once for each arm, as that of seed 0 without a parent, and once for each distinct setting it
    is looked up among the others: the seeds then only take a copy. A study of 10,000 runs is planned in a second so.
    """

    def __init__(self, study: Study, stores: Stores, init: StageInit | None) -> None:
        self.study, self.stores, self.init = study, stores, init
        self.runs: dict[str, StageRun] = {}
        self.chains: list[Chain] = []
        self._templates: dict[StageSpec, int] = {}  # numbers of distinct settings
        self._ids: dict[tuple[int, int, str | None], str] = {}  # of template, seed and parent

    def add_arm(self, arm: ArmSpec, seeds: Iterable[int]) -> None:
        """The chains of one arm, one a seed."""
        first: StageName = arm.init.at if arm.init else "pretrain"
        templates: list[tuple[StageSpec, int, str]] = []
        for stage in STAGES[STAGES.index(first) :]:
            spec = self._pretrain(arm) if stage == "pretrain" else self._later_stage(stage, arm, stage == first)
            number = self._templates.setdefault(spec, len(self._templates))
            templates.append((spec, number, _pretrain_label(arm) if stage == "pretrain" else _label(stage, arm)))
        for seed in seeds:
            ids: dict[StageName, str] = {}
            parent: str | None = None
            for spec, number, label in templates:
                ids[spec.stage] = parent = self._add(spec, number, seed, parent, label)
            self.chains.append(Chain(arm_columns(self.study.name, arm, seed), arm.pipeline.model_dump(), ids))

    def _add(self, template: StageSpec, number: int, seed: int, parent: str | None, label: str) -> str:
        key = number, seed, parent
        name = self._ids.get(key)
        if name is None:
            spec = template.model_copy(update={"seed": seed, "parent": parent})
            name = self._ids[key] = run_id(spec, f"{label}-s{seed}")
            self.runs[name] = StageRun(name, spec)
        return name

    def _pretrain(self, arm: ArmSpec) -> StageSpec:
        shown = exposure_windows(arm)
        pre_windows = num_windows(arm.pretrain.tokens, arm.seq_len)
        exposure = None
        if shown:
            exposure = ExposureData(
                store=self.stores.corpora[arm.pipeline.post],
                unique_windows=min(shown, num_windows(arm.posttrain.tokens, arm.seq_len)),
                windows=shown,
                mode=arm.exposure.mode,
                placement=arm.exposure.placement,
            )
        data = StageData(
            store=self.stores.corpora[arm.pipeline.pre],
            first_window=0,
            windows=pre_windows,
            total_windows=num_windows(arm.pretrain.max_tokens or arm.pretrain.tokens, arm.seq_len),
            exposure=exposure,
        )
        return self._spec("pretrain", arm, data, arm.pretrain, init=None, stop_corpus=arm.pipeline.pre)

    def _later_stage(self, stage: StageName, arm: ArmSpec, is_first: bool) -> StageSpec:
        training: TrainingSpec = getattr(arm, stage)
        corpus = arm.pipeline.post if stage == "posttrain" else arm.pipeline.ft
        windows, first, passes_end = num_windows(training.tokens, arm.seq_len), 0, training.max_tokens
        if isinstance(training, PosttrainSpec) and training.allocation == "matched":
            first = min(exposure_windows(arm), windows)  # exactly what pretraining did not show, once
            windows, passes_end = windows - first, None
            training = training.model_copy(update={"patience": None, "eval_interval": None})
        replay = self._replay(training, arm)
        one_pass = windows + (replay.windows if replay and windows else 0)
        total = num_windows(passes_end, arm.seq_len) if passes_end else one_pass
        data = StageData(
            store=self.stores.corpora[corpus], first_window=first, windows=windows, total_windows=total, replay=replay
        )
        init = self.init if is_first else None
        return self._spec(stage, arm, data, training, init=init, stop_corpus=corpus)

    def _replay(self, training: TrainingSpec, arm: ArmSpec) -> ReplayData | None:
        if training.replay_fraction == 0:
            return None
        pre_windows = num_windows(arm.pretrain.tokens, arm.seq_len)
        return ReplayData(
            store=self.stores.corpora[arm.pipeline.pre],
            first_window=0 if training.replay_from == "seen" else pre_windows,
            windows=max(1, round(training.replay_fraction * pre_windows)),
        )

    def _spec(
        self,
        stage: StageName,
        arm: ArmSpec,
        data: StageData,
        training: TrainingSpec,
        *,
        init: StageInit | None,
        stop_corpus: str,
    ) -> StageSpec:
        return StageSpec(
            stage=stage,
            code_version=CODE_VERSION[stage],
            seed=0,
            seq_len=arm.seq_len,
            precision=arm.precision,
            tokenizer=self.stores.tokenizer,
            model=arm.model if stage == "pretrain" else None,
            init=init,
            parent=None,
            loss_on=arm.data.loss_on,
            data=data,
            training=_resolved(training),
            evaluation=StageEvaluation(
                stores=dict(sorted(self.stores.corpora.items())),
                windows=arm.evaluation.windows,
                stop_store=self.stores.corpora[stop_corpus],
                stop_windows=arm.evaluation.stop_windows or arm.evaluation.windows,
            ),
        )


def _resolved(training: TrainingSpec) -> StageTraining:
    return StageTraining(
        lr=training.lr,
        min_lr=training.lr / 10 if training.min_lr is None else training.min_lr,
        warmup_steps=training.warmup_steps,
        global_batch_size=training.global_batch_size,
        weight_decay=training.weight_decay,
        betas=training.betas,
        eps=training.eps,
        max_grad_norm=training.max_grad_norm,
        dropout=training.dropout,
        max_loss=training.max_loss,
        eval_interval=training.eval_interval,
        patience=training.patience,
        min_improvement=training.min_improvement,
        lora=training.lora if training.method == "lora" else None,
    )


def _pretrain_label(arm: ArmSpec) -> str:
    return f"{arm.pipeline.post}{exposure_windows(arm) * arm.seq_len}" if exposure_windows(arm) else "plain"


def _label(stage: StageName, arm: ArmSpec) -> str:
    corpus = arm.pipeline.post if stage == "posttrain" else arm.pipeline.ft
    return f"{corpus}-lr{getattr(arm, stage).lr:g}"


def plan_runs(graph: Graph, costs: Mapping[str, dict[str, float]]) -> list[dict[str, Any]]:
    """The `stage_runs` entries of plan.json."""
    return [
        {
            "id": run.id,
            "stage": run.stage,
            "parent": run.parent,
            "spec": canonical(run.spec),
            "cost": costs[run.id],
        }
        for run in graph.runs.values()
    ]


def plan_chains(graph: Graph) -> list[dict[str, Any]]:
    """The `chains` entries of plan.json."""
    return [
        {
            "columns": chain.columns,
            "roles": chain.roles,
            **{f"{stage}_id": chain.runs.get(stage) for stage in ("pretrain", "posttrain", "finetune")},
        }
        for chain in graph.chains
    ]


def total_steps(spec: StageSpec) -> int:
    """Optimizer steps of the whole schedule; early stopping may end the stage before."""
    return math.ceil(stage_windows(spec) / spec.training.global_batch_size)


def stage_windows(spec: StageSpec) -> int:
    """Windows of the whole schedule, exposure included."""
    added = spec.data.exposure.windows if spec.data.exposure and spec.data.exposure.mode == "add" else 0
    return spec.data.total_windows + added
