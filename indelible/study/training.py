"""The settings of one stage: what the one loop is told, and which text the stage sees.

`Optimization` is hashed as it stands, with its nulls resolved. A field added there, with a reader in `indelible.train`,
is in the study file, in the identity and, where a study sweeps it, in the results table.
"""

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

from indelible.objectives import Guard, NoGuard, Objective
from indelible.objectives.next_token import NextToken
from indelible.strict import LARGEST, Count, Positive, Strict, added_later
from indelible.study.adapt import Adapt, FullAdapt

Fraction = Annotated[float, Field(ge=0, le=1)]
Step = Annotated[int, Field(ge=0, le=LARGEST)]


def as_tuple(value: object) -> object:
    """YAML has lists; a model that can be hashed has tuples."""
    return tuple(value) if isinstance(value, list) else value


Placement = Annotated[
    Literal["uniform", "early", "late"] | tuple[Fraction, Fraction], BeforeValidator(as_tuple)
]  # where in the stage the windows sit; [a, b] are fractions of the stage


class InitSpec(Strict):
    """Start from a checkpoint that exists; the stages before are not run."""

    checkpoint: str = Field(alias="from")  # a Hugging Face folder, or a hub id with `revision`
    revision: str | None = None  # commit of the hub repository


class MixSpec(Strict):
    """One more corpus in a stage: early exposure, replay, or any other."""

    corpus: str  # what is shown beside the stage's own
    fraction: float = Field(default=1.0, ge=0, le=1_000_000)  # above 1 = repeated passes, with `repeats`
    share_of: str | None = None  # the stage whose `tokens` the fraction is of; null = this stage
    per: Literal["pass", "stage"] = "pass"  # in every pass of the stage's own corpus, or once over the whole stage;
    # a study file that does not say it means `stage` where share_of names a later stage (early exposure)
    mode: Literal["add", "replace"] = "add"  # on top of the stage's own tokens, or in their place
    placement: Placement = "uniform"  # early = first third, late = last third, [a, b] = parts of the stage
    repeats: bool = False  # must be true for a fraction above 1
    not_shown_in: Annotated[tuple[str, ...], BeforeValidator(as_tuple)] = ()  # skip what these stages showed

    @model_validator(mode="after")
    def _consistent(self) -> "MixSpec":
        if self.fraction > 1 and not self.repeats:
            raise ValueError(
                f"fraction {self.fraction:g} shows {self.corpus} more than once; "
                "set repeats: true to allow that, or a fraction of at most 1"
            )
        if isinstance(self.placement, tuple) and not self.placement[0] < self.placement[1]:
            raise ValueError(f"placement {list(self.placement)} must be [a, b] with 0 <= a < b <= 1")
        if self.per == "pass" and (self.placement != "uniform" or self.mode != "add" or self.fraction > 1):
            raise ValueError("placement, mode: replace and a fraction above 1 are for per: stage; say so, or drop them")
        return self


class WatchSpec(Strict):
    """Curves: held-out losses inside a stage. It changes no weight and is in no identity."""

    corpora: Annotated[tuple[str, ...], BeforeValidator(as_tuple)] | None = None  # null = all corpora of the study
    steps: Annotated[tuple[Step, ...], BeforeValidator(as_tuple)] | None = None  # optimizer steps; null = log-spaced
    windows: Positive | None = None  # held-out windows of a corpus; null = evaluation.windows


class Optimization(Strict):
    """Optimizer, schedule, regularisation and stopping."""

    lr: float = Field(gt=0)  # peak learning rate
    min_lr: float | None = Field(default=None, ge=0)  # end of the cosine; null = a tenth of lr
    warmup_steps: int = Field(ge=0, le=LARGEST)  # optimizer steps, linear from 0
    global_batch_size: int = Field(gt=0, le=1_000_000)  # sequences per optimizer step
    weight_decay: float = Field(default=0.1, ge=0)  # on matrices only; norms and biases get none
    betas: Annotated[
        tuple[Annotated[float, Field(ge=0, lt=1)], Annotated[float, Field(ge=0, lt=1)]], BeforeValidator(as_tuple)
    ] = (0.9, 0.95)  # AdamW's decay of the two moments
    eps: float = Field(default=1e-8, gt=0, le=1)  # AdamW's denominator term
    max_grad_norm: float = Field(default=1.0, gt=0)  # global L2 norm
    dropout: float = Field(default=0.0, ge=0, lt=1)  # at embedding, attention, attention output and MLP output
    max_loss: float = Field(default=30.0, gt=0)  # nats per token; above it the run counts as diverged
    eval_interval: Positive | None = None  # optimizer steps between evaluations on the stage's corpus
    patience: Positive | None = None  # evaluations without improvement before stopping; null = never
    min_improvement: float = Field(default=0.0, ge=0)  # nats per token that count as an improvement
    schedule: Literal["cosine", "linear", "constant"] = added_later("cosine")  # from the peak to min_lr, after warmup

    @model_validator(mode="after")
    def _patience_needs_evaluations(self) -> "Optimization":
        if self.patience is not None and self.eval_interval is None:
            raise ValueError(f"patience {self.patience} needs eval_interval, the steps between evaluations")
        return self


class StageSettings(Optimization):
    """One stage of a chain, as the study file says it once every axis has taken one value."""

    corpus: str  # the stage's own corpus
    tokens: Count = Field(gt=0)  # size of the stage's own data set, tokens
    max_tokens: Count | None = Field(default=None, gt=0)  # budget of the stage and cosine horizon; null = one pass
    not_shown_in: Annotated[tuple[str, ...], BeforeValidator(as_tuple)] = ()  # only what these stages did not show
    order: Literal["shuffled", "permutation"] = "shuffled"  # first pass; permutation = the corpus's own, unshuffled
    mix: Annotated[tuple[MixSpec, ...], BeforeValidator(as_tuple)] = ()  # what else is shown
    objective: Objective = NextToken()  # what is minimised
    guard: Guard = NoGuard()  # a term against forgetting
    adapt: Adapt = FullAdapt()  # which weights are trained
    watch: WatchSpec | None = None  # curves inside the stage
    init: InitSpec | None = None  # a given checkpoint as the start of this stage

    def optimization(self) -> Optimization:
        """The part that the optimizer is told, with nulls resolved."""
        values: dict[str, Any] = {name: getattr(self, name) for name in Optimization.model_fields}
        values["min_lr"] = self.lr / 10 if self.min_lr is None else self.min_lr
        if self.not_shown_in:  # one pass over exactly the rest
            values |= {"patience": None, "eval_interval": None}
        return Optimization(**values)
