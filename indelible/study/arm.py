"""The resolved settings of one arm: a chain of stages, its text and its model, once every axis has taken one value.

Field names are the words of the project (docs/concepts.md). A comment states unit and scope of each field.
"""

import re
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, model_validator

from indelible.strict import Positive, Strict
from indelible.study.corpus_spec import (
    BpeTokenizer,
    CorpusSpec,
    LeakSpec,
    LossOn,
    SplitSpec,
    TokenizerSpec,
    check_names,
    has_pairs,
)
from indelible.study.task_spec import Task, check_task_names
from indelible.study.training import StageSettings, as_tuple

MAX_STAGES = 8
MAX_MIXES = 250  # of a stage: a ledger numbers its uses in one byte
LOSS = "L_"  # begins the names of losses, so that none is the name of another column
_NAME_OF_A_LOSS = re.compile(LOSS + r"[A-Za-z0-9_]+(?<!_bpb)(?<!_se)")
PAPER_LOSSES = ("L_im", "L_ret", "L_ft", "L_pre", "L_pre_post")


class ModelSpec(Strict):
    """A Llama-architecture model to be built from scratch (paper, Table 2 and SmolLM2)."""

    hidden_size: int = Field(gt=0, le=1_000_000)  # width; a multiple of num_heads
    num_layers: int = Field(gt=0, le=10_000)  # blocks
    num_heads: int = Field(gt=0)  # of attention
    num_kv_heads: int = Field(gt=0)  # fewer than num_heads = grouped-query attention
    intermediate_size: int = Field(gt=0, le=10_000_000)  # width of the gated MLP
    rope_theta: float = Field(default=100_000.0, gt=0, le=1e12)  # base of the rotary positions
    rms_norm_eps: float = Field(default=1e-5, gt=0, le=1)  # under the root of the norm
    tie_embeddings: bool = True  # the head shares the embedding matrix
    init: Literal["normal", "litgpt"] = "normal"  # normal: std init_std everywhere; litgpt: scaled by width and depth
    init_std: float = Field(default=1 / 24, gt=0, le=1)  # SmolLM2's 1/24; unused by `litgpt`

    @model_validator(mode="after")
    def _heads_divide(self) -> "ModelSpec":
        if self.hidden_size % self.num_heads:
            raise ValueError(f"hidden_size {self.hidden_size} is not a multiple of num_heads {self.num_heads}")
        if self.hidden_size // self.num_heads % 2:
            width = self.hidden_size // self.num_heads
            raise ValueError(
                f"hidden_size {self.hidden_size} over num_heads {self.num_heads} is {width}, and positions are rotated "
                "in pairs; make the width of a head even"
            )
        if self.num_heads % self.num_kv_heads:
            raise ValueError(f"num_heads {self.num_heads} is not a multiple of num_kv_heads {self.num_kv_heads}")
        return self


class EvaluationSettings(Strict):
    """Held-out losses of every checkpoint, always computed in fp32. Of these, training knows `stop_windows` alone."""

    windows: Positive = 128  # held-out windows of a corpus that are reported, fewer if there are fewer
    stop_windows: Positive = 128  # in front of them, for early stopping; at most half of the split
    corpora: Annotated[tuple[str, ...], BeforeValidator(as_tuple)] = ()  # evaluated too, trained on by no stage
    tasks: dict[str, Task] = Field(default_factory=dict)  # accuracies of every checkpoint, by lm-eval


class DataSettings(Strict):
    """How text becomes windows, common to all corpora of a study."""

    split: SplitSpec = SplitSpec()  # what is held out
    leaks: LeakSpec = LeakSpec()  # what is a duplicate
    loss_on: LossOn = "all"  # for corpora with prompt and completion, or messages: which tokens are trained


class ViewSpec(Strict):
    """A named loss of the results table: the checkpoint after a stage, on a corpus."""

    after: str  # stage
    corpus: str  # or a stage: that stage's own corpus; or a task: its accuracy


class ArmSpec(Strict):
    """One arm: every setting of a chain of stages but its seeds."""

    name: str  # of the study
    scale: str
    arm: str = ""  # name of a hand-picked arm
    corpora: dict[str, CorpusSpec]
    tokenizer: TokenizerSpec
    model: ModelSpec
    seq_len: int = Field(gt=1, le=10_000_000)  # predicted tokens per window
    precision: Literal["auto", "fp32", "bf16"] = "auto"  # autocast of training; weights and evaluation stay fp32
    stages: dict[str, StageSettings]  # in order, those before a given checkpoint included
    views: dict[str, ViewSpec] = Field(default_factory=dict)  # losses of one's own, beside L_im, L_ret, L_ft, L_pre
    evaluation: EvaluationSettings = EvaluationSettings()
    data: DataSettings = DataSettings()

    @property
    def first(self) -> str:
        """The first stage that is run: the last one with a given checkpoint, or the first of all."""
        given = [name for name, stage in self.stages.items() if stage.init is not None]
        return given[-1] if given else next(iter(self.stages))

    @property
    def chain(self) -> dict[str, StageSettings]:
        """The stages that are run, in order."""
        names = list(self.stages)
        return {name: self.stages[name] for name in names[names.index(self.first) :]}

    @property
    def roles(self) -> dict[str, str]:
        """pre, post and ft of the paper to corpora, as far as the chain has stages of these names."""
        stages = {"pre": "pretrain", "post": "posttrain", "ft": "finetune"}
        return {role: self.stages[stage].corpus for role, stage in stages.items() if stage in self.stages}

    @property
    def trained_corpora(self) -> tuple[str, ...]:
        """Every corpus that a stage names, whether its stage is run or not, sorted."""
        mixed = {mix.corpus for stage in self.stages.values() for mix in stage.mix}
        return tuple(sorted({stage.corpus for stage in self.stages.values()} | mixed))

    @model_validator(mode="after")
    def _stages_fit_together(self) -> "ArmSpec":
        if not 1 <= len(self.stages) <= MAX_STAGES:
            raise ValueError(f"stages: found {len(self.stages)}; a chain has from one to {MAX_STAGES} stages")
        check_names(self.corpora)
        check_task_names(self.evaluation.tasks, [*self.corpora, *self.stages])
        names = list(self.stages)
        for position, (name, stage) in enumerate(self.stages.items()):
            if not name.isascii() or not name.isidentifier():
                raise ValueError(f"stages: {name!r} is no stage name; use letters, digits and _, not a digit first")
            if name in ("evaluate", "start", "L") or name.startswith(LOSS):
                raise ValueError(f"stages: {name!r} is what tables and status call something else; choose another name")
            self._check_corpora(name, stage)
            self._check_pairs(name, stage)
            mixed = [mix.corpus for mix in stage.mix]
            if len(mixed) > MAX_MIXES:
                raise ValueError(
                    f"stages.{name}.mix: found {len(mixed)} entries; at most {MAX_MIXES} fit into a ledger"
                )
            if twice := sorted({corpus for corpus in mixed if mixed.count(corpus) > 1}):
                raise ValueError(f"stages.{name}.mix names {', '.join(twice)} twice; say it once, with one fraction")
            for mix in stage.mix:
                if mix.share_of is not None and mix.share_of not in names:
                    known = ", ".join(names)
                    raise ValueError(f"stages.{name}.mix.share_of = {mix.share_of!r}: the stages are {known}")
            for other in {*stage.not_shown_in, *(one for mix in stage.mix for one in mix.not_shown_in)}:
                if other not in names[:position]:
                    raise ValueError(f"stages.{name}.not_shown_in = {other!r} is no earlier stage of this chain")
        if isinstance(self.tokenizer, BpeTokenizer):
            for name, spec in self.corpora.items():
                if spec.has_messages:
                    raise ValueError(
                        f"corpora.{name} is of messages, which a tokenizer's chat template writes, and one that is "
                        "trained here (kind: bpe) has none; name that of a chat model (tokenizer: {kind: hf, path: "
                        "...}), or use prompt_column and completion_column with a template of your own"
                    )
        self._check_views()
        self._check_columns()
        return self

    def _check_corpora(self, name: str, stage: StageSettings) -> None:
        used = {"corpus": (stage.corpus,), "mix": tuple(mix.corpus for mix in stage.mix)}
        if stage.watch is not None:
            used["watch.corpora"] = stage.watch.corpora or ()
        for field, corpora in (*used.items(), ("evaluation.corpora", self.evaluation.corpora)):
            for corpus in corpora:
                if corpus not in self.corpora:
                    where = field if field.startswith("evaluation") else f"stages.{name}.{field}"
                    raise ValueError(
                        f"{where} = {corpus!r} is not a corpus of this study; "
                        f"declare it under corpora: or use one of {', '.join(sorted(self.corpora))}"
                    )

    def _check_pairs(self, name: str, stage: StageSettings) -> None:
        """Pairs are for preference stages, and preference stages are for pairs."""
        kind = stage.objective.kind
        if stage.objective.needs_pairs and not has_pairs(self.corpora[stage.corpus]):
            raise ValueError(
                f"stages.{name}.objective = {kind!r}: it needs pairs of answers, and corpus {stage.corpus!r} has none; "
                "name its prompt_column, chosen_column and rejected_column, or take the corpus preferences"
            )
        if not stage.objective.needs_pairs and has_pairs(self.corpora[stage.corpus]):
            raise ValueError(
                f"stages.{name}.corpus = {stage.corpus!r} is made of pairs of answers, which are no text for objective "
                f"{kind!r}; set stages.{name}.objective: dpo, or name another corpus"
            )
        for mix in stage.mix:
            if has_pairs(self.corpora[mix.corpus]):
                raise ValueError(
                    f"stages.{name}.mix: {mix.corpus!r} is made of pairs of answers, and only windows of text can be "
                    "mixed into a stage; give the pairs a stage of their own with objective: dpo"
                )
            if stage.objective.needs_pairs and mix.mode == "replace":
                raise ValueError(
                    f"stages.{name}.mix: mode: replace puts windows of {mix.corpus!r} in the place of pairs, and a "
                    "pair is two of them; use mode: add, and fewer tokens for the stage"
                )

    def _check_views(self) -> None:
        for name, view in self.views.items():
            if not _NAME_OF_A_LOSS.fullmatch(name):
                raise ValueError(
                    f"views.{name}: no name of a loss; begin it with {LOSS}, then letters, digits and _, and end it "
                    "neither in _bpb nor in _se, which are columns of every loss"
                )
            if name in PAPER_LOSSES:
                raise ValueError(f"views.{name}: the table has this loss already; name yours otherwise")
            if view.after not in self.stages:
                raise ValueError(f"views.{name}.after = {view.after!r}: the stages are {', '.join(self.stages)}")
            if view.corpus not in (*self.stages, *self.corpora, *self.evaluation.tasks):
                raise ValueError(
                    f"views.{name}.corpus = {view.corpus!r} is neither a stage nor a corpus nor a task of this study"
                )

    def _check_columns(self) -> None:
        """The tokens of every corpus in every stage are a column of the table, and two must not share one."""
        seen = {f"{stage}_max_tokens": f"stages.{stage}.max_tokens" for stage in self.stages}
        for stage, settings in self.stages.items():
            for corpus in dict.fromkeys((settings.corpus, *(mix.corpus for mix in settings.mix))):
                column, where = f"{stage}_{corpus}_tokens", f"corpus {corpus!r} in stage {stage!r}"
                if column in seen:
                    raise ValueError(
                        f"stages: {seen[column]} and {where} would both be the column {column} of the table; "
                        "name a stage or a corpus otherwise"
                    )
                seen[column] = where
