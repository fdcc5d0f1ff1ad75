"""The canonical spec of one stage run: everything that determines its weights, and nothing else.

These models are what is hashed (identity.py) and what the engine reads back from spec.json. Evaluations, curves and
execution are not in it: they change no weight.
"""

from typing import Annotated, Literal

from pydantic import Field

from indelible.objectives import Guard, Objective
from indelible.strict import LARGEST, Positive, Strict, added_later
from indelible.study.adapt import Adapt
from indelible.study.arm import ModelSpec
from indelible.study.corpus_spec import LossOn, Packing, TooLong
from indelible.study.row_rules import RowRules
from indelible.study.training import Fraction, Optimization

Number = Annotated[int, Field(ge=0, le=LARGEST)]


class CorpusUse(Strict):
    """A stretch of a corpus's one permutation, for one purpose."""

    purpose: str  # names the random streams of this use; distinct within a stage
    store: str  # folder name of the token store
    first_window: Number  # in the store's permutation
    windows: Number  # distinct windows
    rows: RowRules | None = added_later(None)  # how its documents become windows; null = a stream, with the stage's
    # `loss_on`
    sequences: int = added_later(
        1, ge=1, le=2
    )  # of seq_len tokens that one of them is: 2 where they are pairs of answers


class MixUse(CorpusUse):
    """Windows that are shown beside the stage's own."""

    per: Literal["pass", "stage"]
    total_windows: Positive  # shown in all (per stage) or in each pass; more than `windows` repeats them
    mode: Literal["add", "replace"]
    placement: Literal["uniform", "early", "late"] | tuple[Fraction, Fraction]


class StageData(Strict):
    """Which windows a stage trains on."""

    main: CorpusUse  # the stage's own corpus; `windows` are those of one pass
    total_windows: Number  # budget of the stage without what is added per stage; beyond one pass it repeats
    order: Literal["shuffled", "permutation"]  # of the first pass over `main`
    mix: tuple[MixUse, ...] = ()  # in the order of their purposes

    @property
    def uses(self) -> tuple[CorpusUse, ...]:
        """Every use of a corpus, the main one first."""
        return (self.main, *self.mix)

    @property
    def asked_windows(self) -> dict[str, int]:
        """Training windows that each store must hold, by store folder name."""
        asked: dict[str, int] = {}
        for use in self.uses:
            asked[use.store] = max(asked.get(use.store, 0), use.first_window + use.windows)
        return asked

    @property
    def pass_windows(self) -> int:
        """Windows of one pass, with what is shown in each pass."""
        per_pass = sum(use.total_windows for use in self.mix if use.per == "pass")
        return self.main.windows + (per_pass if self.main.windows else 0)

    @property
    def pass_sequences(self) -> int:
        """Sequences of seq_len tokens of one pass: a pair is two."""
        return self.pass_windows + self.main.windows * (self.main.sequences - 1)

    @property
    def added_windows(self) -> int:
        """Windows that come on top of `total_windows`."""
        return sum(use.total_windows for use in self.mix if use.per == "stage" and use.mode == "add")

    @property
    def replaced_windows(self) -> int:
        """Windows of `total_windows` that are of other corpora than the stage's own."""
        return sum(use.total_windows for use in self.mix if use.per == "stage" and use.mode == "replace")


class StopWindows(Strict):
    """Held-out windows whose loss stops the stage and chooses its best weights; never those that are reported."""

    store: str
    windows: Number  # kept apart at the start of the held-out split, at most half of it
    rows: RowRules | None = added_later(None)  # as of the corpus's use


class StageInit(Strict):
    """A given checkpoint as the start of a stage."""

    sha256: str  # of the weights, or hub id and commit


class StageSpec(Strict):
    """One stage run."""

    stage: str  # its name in the chain; dropout masks and the order of data are drawn from streams of this name
    code_version: Positive  # raised when the same spec would give another result
    seed: Number
    permutation_seed: Number | None = added_later(
        None
    )  # of the corpora's permutations: the first stage's; null = `seed`
    seq_len: Positive
    precision: Literal["fp32", "bf16"]  # resolved when the study was planned
    tokenizer: str  # folder name
    model: ModelSpec | None  # of a stage that draws its weights; the others take those they start from
    init: StageInit | None
    parent: str | None  # run id
    loss_on: LossOn  # of every corpus that has no rules of its own
    data: StageData
    training: Optimization
    objective: Objective
    guard: Guard
    adapt: Adapt
    stop: StopWindows | None  # of a stage with eval_interval

    @property
    def order_seed(self) -> int:
        """The seed of the corpora's permutations, one for the whole chain: a mix is a prefix of what others show."""
        return self.seed if self.permutation_seed is None else self.permutation_seed

    def rules(self, use: CorpusUse | StopWindows) -> RowRules:
        """How the documents of a use become windows, and which of their tokens count."""
        return use.rows or RowRules(loss_on=self.loss_on)

    @property
    def store_rules(self) -> dict[str, RowRules]:
        """The rules of each store that the stage trains on, by folder name: a corpus has one in a chain."""
        return {use.store: self.rules(use) for use in self.data.uses}


class EvaluationSpec(Strict):
    """One evaluation: a checkpoint on held-out windows of a corpus. Its id is a hash of this."""

    checkpoint: str  # run id, or `given-<12 hex>` of a given checkpoint
    store: str
    stop_windows: Number  # at the start of the split, kept apart for early stopping; at most half of it
    windows: Positive  # that follow them, as asked; fewer if the split is smaller
    seq_len: Positive
    loss_on: LossOn
    packing: Packing = added_later("stream")
    too_long: TooLong = added_later("error")
    pairs: bool = added_later(False)  # the windows are pairs of answers

    @property
    def rules(self) -> RowRules:
        """How the documents become windows, and which of their tokens count."""
        return RowRules(loss_on=self.loss_on, packing=self.packing, too_long=self.too_long)

    @property
    def tokens(self) -> int:
        """That a forward pass over its windows computes, padding included."""
        return self.windows * self.seq_len * (2 if self.pairs else 1)


class TaskEvaluation(Strict):
    """One evaluation of a checkpoint on a task, by lm-eval. Its id is a hash of this, without `tokens`."""

    checkpoint: str  # as of an `EvaluationSpec`
    task: str  # its name in the study
    content: str  # sha256 of a task file's settings and of its data; of lm-eval's own task, of its name and settings
    own_name: str | None  # lm-eval's name of its own task; null = a task file of the user's
    lm_eval: str  # version: the prompts of its tasks, and what it counts as right
    tokenizer: str  # folder name: what the examples are cut with
    few_shot: Number | None  # solved examples in front of each; null = as lm-eval's own task says
    limit: Positive | None  # examples, the first ones; null = all
    metric: str | None  # whose mean is the accuracy; null = acc or exact_match, whichever the task has
    tokens: Number = 0  # that forward passes compute, at most; 0 = not known before lm-eval has loaded the task

    @property
    def stored_name(self) -> str:
        """Name of the file below tasks/ that has the examples of a user's own task."""
        return f"{self.task}-{self.content[:12]}"
