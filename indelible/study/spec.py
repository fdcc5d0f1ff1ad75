"""The resolved settings of one arm: what a study file says once every axis has taken one value.

Field names are the words of the project (docs/concepts.md). A comment states unit and scope of each field.
"""

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, model_validator

from indelible.study.base import Count, Strict
from indelible.study.corpus_spec import CorpusSpec, LeakSpec, SplitSpec, TokenizerSpec

Fraction = Annotated[float, Field(ge=0, le=1)]


def _interval(value: object) -> object:
    return tuple(value) if isinstance(value, list) else value


def _switch(value: object) -> object:
    return {True: "on", False: "off"}[value] if isinstance(value, bool) else value  # YAML reads on and off as booleans


Placement = Annotated[
    Literal["uniform", "early", "late"] | tuple[Fraction, Fraction], BeforeValidator(_interval)
]  # where in pretraining the exposure sits; [a, b] are fractions of the stage


class PipelineSpec(Strict):
    """Which corpus plays which role (paper, Table 1)."""

    pre: str  # D_pre
    post: str  # D_post
    ft: str  # D_ft


class ModelSpec(Strict):
    """A Llama-architecture model to be built from scratch (paper, Table 2 and SmolLM2)."""

    hidden_size: int = Field(gt=0)
    num_layers: int = Field(gt=0)
    num_heads: int = Field(gt=0)
    num_kv_heads: int = Field(gt=0)  # fewer than num_heads = grouped-query attention
    intermediate_size: int = Field(gt=0)  # width of the gated MLP
    rope_theta: float = Field(default=100_000.0, gt=0)
    rms_norm_eps: float = Field(default=1e-5, gt=0)
    tie_embeddings: bool = True  # the head shares the embedding matrix
    init: Literal["normal", "litgpt"] = "normal"  # normal: std init_std everywhere; litgpt: scaled by width and depth
    init_std: float = Field(default=1 / 24, gt=0)  # SmolLM2's 1/24; unused by `litgpt`

    @model_validator(mode="after")
    def _heads_divide(self) -> "ModelSpec":
        if self.hidden_size % self.num_heads:
            raise ValueError(f"hidden_size {self.hidden_size} is not a multiple of num_heads {self.num_heads}")
        if self.num_heads % self.num_kv_heads:
            raise ValueError(f"num_heads {self.num_heads} is not a multiple of num_kv_heads {self.num_kv_heads}")
        return self


class InitSpec(Strict):
    """Start from a checkpoint that exists, instead of pretraining."""

    checkpoint: str = Field(alias="from")  # a Hugging Face folder, or a hub id with `revision`
    revision: str | None = None  # commit of the hub repository
    at: Literal["posttrain", "finetune"] = "posttrain"  # the first stage that is run


class ExposureSpec(Strict):
    """D_post tokens shown during pretraining."""

    fraction: float = Field(default=0.0, ge=0)  # lambda; above 1 = repeated passes over D_post
    mode: Literal["add", "replace"] = "add"  # on top of the D_pre tokens, or in their place
    placement: Placement = "uniform"
    repeats: bool = False  # must be true for a fraction above 1

    @model_validator(mode="after")
    def _consistent(self) -> "ExposureSpec":
        if self.fraction > 1 and not self.repeats:
            raise ValueError(
                f"fraction {self.fraction:g} shows D_post more than once; "
                "set exposure.repeats: true to allow that, or a fraction of at most 1"
            )
        if isinstance(self.placement, tuple) and not self.placement[0] < self.placement[1]:
            raise ValueError(f"placement {list(self.placement)} must be [a, b] with 0 <= a < b <= 1")
        return self


class LoraSpec(Strict):
    """Low-rank adapters (paper, Table 9)."""

    r: int = Field(default=64, gt=0)
    alpha: float = Field(default=128, gt=0)
    targets: tuple[str, ...] = ("o_proj", "gate_proj", "up_proj", "down_proj", "lm_head")  # Q, K, V excluded
    merge: bool = True  # fold the adapters into the weights before the next stage


class TrainingSpec(Strict):
    """The settings of the one loop; every stage has all of them."""

    tokens: Count = Field(gt=0)  # size of the stage's own data set, tokens
    max_tokens: Count | None = Field(default=None, gt=0)  # budget of the stage and cosine horizon; null = one pass
    lr: float = Field(gt=0)  # peak learning rate
    min_lr: float | None = Field(default=None, ge=0)  # end of the cosine; null = a tenth of lr
    warmup_steps: int = Field(ge=0)  # optimizer steps, linear from 0
    global_batch_size: int = Field(gt=0)  # sequences per optimizer step
    weight_decay: float = Field(default=0.1, ge=0)  # on matrices only; norms and biases get none
    betas: tuple[Annotated[float, Field(ge=0, lt=1)], Annotated[float, Field(ge=0, lt=1)]] = (0.9, 0.95)
    eps: float = Field(default=1e-8, gt=0)  # AdamW's denominator term
    max_grad_norm: float = Field(default=1.0, gt=0)  # global L2 norm
    dropout: float = Field(default=0.0, ge=0, lt=1)  # at embedding, attention, attention output and MLP output
    max_loss: float = Field(default=30.0, gt=0)  # nats per token; above it the run counts as diverged
    eval_interval: int | None = Field(default=None, gt=0)  # optimizer steps between evaluations on the stage's corpus
    patience: int | None = Field(default=None, gt=0)  # evaluations without improvement before stopping; null = never
    min_improvement: float = Field(default=0.0, ge=0)  # nats per token that count as an improvement
    replay_fraction: float = Field(default=0.0, ge=0, le=1)  # of D_pre's tokens, mixed into every pass of the stage
    replay_from: Literal["seen", "unseen"] = "seen"  # D_pre windows that pretraining showed, or later ones
    method: Literal["full", "lora"] = "full"
    lora: LoraSpec = LoraSpec()

    @model_validator(mode="after")
    def _patience_needs_evaluations(self) -> "TrainingSpec":
        if self.patience is not None and self.eval_interval is None:
            raise ValueError(f"patience {self.patience} needs eval_interval, the steps between evaluations")
        return self


class PosttrainSpec(TrainingSpec):
    """Stage 2; `tokens` is |D_post|."""

    allocation: Literal["full", "matched"] = "full"  # all of D_post, or once only what pretraining did not show


class EvaluationSpec(Strict):
    """Held-out losses after every stage, always computed in fp32."""

    windows: int = Field(default=128, gt=0)  # held-out windows per corpus, fewer if the split is smaller
    stop_windows: int | None = Field(default=None, gt=0)  # windows of the early-stopping evaluations; null = windows


class DataSettings(Strict):
    """How text becomes windows, common to all corpora of a study."""

    split: SplitSpec = SplitSpec()
    leaks: LeakSpec = LeakSpec()
    loss_on: Literal["all", "completion"] = "all"  # for corpora with prompt and completion: which tokens are trained


class ArmSpec(Strict):
    """One arm: every setting of a chain of stages but its seed."""

    name: str  # of the study
    scale: str
    arm: str = ""  # name of a hand-picked arm
    pipeline: PipelineSpec
    corpora: dict[str, CorpusSpec]
    tokenizer: TokenizerSpec
    model: ModelSpec
    init: InitSpec | None = None
    seq_len: int = Field(gt=1)  # predicted tokens per window
    precision: Literal["auto", "fp32", "bf16"] = "auto"  # autocast of training; weights and evaluation stay fp32
    exposure: ExposureSpec = ExposureSpec()
    pretrain: TrainingSpec
    posttrain: PosttrainSpec
    finetune: TrainingSpec
    evaluation: EvaluationSpec = EvaluationSpec()
    data: DataSettings = DataSettings()

    @model_validator(mode="after")
    def _roles_are_corpora(self) -> "ArmSpec":
        for role in ("pre", "post", "ft"):
            corpus = getattr(self.pipeline, role)
            if corpus not in self.corpora:
                raise ValueError(
                    f"pipeline.{role} = {corpus!r} is not a corpus of this study; "
                    f"declare it under corpora: or use one of {', '.join(sorted(self.corpora))}"
                )
        if self.init is not None and self.exposure.fraction > 0:
            raise ValueError("exposure.fraction must be 0 with init: the checkpoint's pretraining is over")
        return self


class SlurmSpec(Strict):
    """How worker jobs are asked for; passed to Slurm as they are."""

    partition: str | None = None
    account: str | None = None
    time_minutes: int = Field(default=240, gt=0)
    nodes: int = Field(default=1, gt=0)  # per worker job; above 1 one stage run spans them by torchrun
    gpus_per_node: int = Field(default=0, ge=0)
    cpus_per_task: int = Field(default=1, gt=0)
    constraint: str | None = None
    extra: dict[str, str | int | bool] = Field(default_factory=dict)  # further sbatch options by name


class ExecutionSpec(Strict):
    """How runs are executed. Recorded, never hashed: it must not change what is computed."""

    workers: int | None = Field(default=None, gt=0)  # processes; null = sized to the machine
    threads: int | None = Field(default=None, gt=0)  # per worker; null = 1
    device: Literal["auto", "cpu", "cuda"] = "auto"
    devices_per_run: int = Field(default=1, gt=0)  # GPUs of one machine, or processes without GPUs, for one stage run
    micro_batch_size: int | None = Field(default=None, gt=0)  # sequences per forward per rank; null = as large as fits
    compile: Annotated[Literal["auto", "on", "off"], BeforeValidator(_switch)] = "auto"
    activation_checkpointing: bool = False
    parallel: Literal["ddp", "fsdp"] = "ddp"  # how one stage run uses several devices
    resume_seconds: float = Field(default=30.0, gt=0)  # least time between two resume states
    slurm: SlurmSpec = SlurmSpec()

    @model_validator(mode="after")
    def _a_run_fits_a_node(self) -> "ExecutionSpec":
        per_node = self.slurm.gpus_per_node
        if per_node and self.devices_per_run > per_node:
            raise ValueError(
                f"devices_per_run = {self.devices_per_run} is more than slurm.gpus_per_node = {per_node}; ask for more "
                "GPUs a node, or spread a stage run over several nodes by slurm.nodes"
            )
        return self
