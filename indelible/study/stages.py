"""The canonical spec of one stage run: everything that determines its result, and nothing else.

These models are what is hashed (identity.py) and what the engine reads back from spec.json.
"""

from typing import Literal

from pydantic import Field

from indelible.study.base import Strict
from indelible.study.spec import LoraSpec, ModelSpec

StageName = Literal["pretrain", "posttrain", "finetune"]
STAGES: tuple[StageName, ...] = ("pretrain", "posttrain", "finetune")


class ExposureData(Strict):
    """D_post windows shown in pretraining: a prefix of its permutation, in passes."""

    store: str  # folder name of the token store
    unique_windows: int = Field(gt=0)  # length of the prefix
    windows: int = Field(gt=0)  # windows shown in all; more than unique_windows = repeated passes
    mode: Literal["add", "replace"]
    placement: Literal["uniform", "early", "late"] | tuple[float, float]


class ReplayData(Strict):
    """D_pre windows mixed into every pass of a later stage."""

    store: str
    first_window: int = Field(ge=0)  # in D_pre's permutation
    windows: int = Field(gt=0)  # per pass


class StageData(Strict):
    """Which windows a stage trains on."""

    store: str  # D_pre, D_post or D_ft, by stage
    first_window: int = Field(ge=0)  # in the store's permutation
    windows: int = Field(ge=0)  # distinct windows of one pass
    total_windows: int = Field(ge=0)  # budget of the stage without exposure; more than one pass repeats
    exposure: ExposureData | None = None  # pretrain only
    replay: ReplayData | None = None  # posttrain and finetune

    @property
    def asked_windows(self) -> dict[str, int]:
        """Training windows that each store must hold, by store folder name."""
        asked = {self.store: self.first_window + self.windows}
        if self.exposure is not None:
            asked[self.exposure.store] = self.exposure.unique_windows
        if self.replay is not None:
            asked[self.replay.store] = self.replay.first_window + self.replay.windows
        return asked


class StageTraining(Strict):
    """Optimizer, schedule and stopping of a stage, all resolved."""

    lr: float
    min_lr: float
    warmup_steps: int
    global_batch_size: int
    weight_decay: float
    betas: tuple[float, float]
    eps: float
    max_grad_norm: float
    dropout: float
    max_loss: float
    eval_interval: int | None
    patience: int | None
    min_improvement: float
    lora: LoraSpec | None  # null = full fine-tuning


class StageEvaluation(Strict):
    """Held-out losses after the stage."""

    stores: dict[str, str]  # corpus name to store folder name
    windows: int
    stop_store: str  # whose loss stops the stage early and chooses the best weights
    stop_windows: int

    def __hash__(self) -> int:
        return hash((tuple(self.stores.items()), self.windows, self.stop_store, self.stop_windows))


class StageInit(Strict):
    """A given checkpoint as the start of a stage."""

    sha256: str  # of the weights, or hub id and commit


class StageSpec(Strict):
    """One stage run."""

    stage: StageName
    code_version: int  # of the stage kind; raised when the same spec would give another result
    seed: int
    seq_len: int
    precision: Literal["auto", "fp32", "bf16"]
    tokenizer: str  # folder name
    model: ModelSpec | None  # pretrain only; later stages take the parent's
    init: StageInit | None
    parent: str | None  # run id
    loss_on: Literal["all", "completion"]
    data: StageData
    training: StageTraining
    evaluation: StageEvaluation
