"""What workers write: result.json, failure.json, the evaluations of a checkpoint, and how documents were packed."""

from typing import Any, ClassVar, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from indelible.records.base import Amount, Record, Signed, Tally
from indelible.study.corpus_spec import LossOn, Packing, TooLong
from indelible.study.training import WatchSpec


class PackedSide(BaseModel):
    """What became of the documents of one side of a corpus whose documents stay whole."""

    model_config = ConfigDict(frozen=True)

    corpus: str
    split: Literal["train", "heldout"]
    seq_len: Tally
    loss_on: LossOn
    packing: Packing
    too_long: TooLong
    documents: Tally
    documents_too_long: Tally  # cut, or in no row
    longest_tokens: Tally  # of the longest document
    rows: Tally
    tokens: Tally  # in the rows, without padding
    trained_tokens: Tally  # targets that count in the loss
    rows_without_trained: Tally  # rows that hold none of them


class PackedRows(Record):
    """packing.json: the rows of every corpus of a study whose documents stay whole."""

    sides: tuple[PackedSide, ...]


class UseCounts(BaseModel):
    """How much of one use of a corpus a stage trained on."""

    model_config = ConfigDict(frozen=True)

    rows: Tally
    tokens: Tally  # without padding
    trained_tokens: Tally  # targets that counted in the loss


class StageResult(Record):
    """result.json of a stage run. Losses are evaluations, apart from it."""

    FORMAT: ClassVar[int] = 2

    id: str
    stage: str
    status: Literal["done", "diverged"]
    stop_reason: str  # max_tokens, patience, empty or diverged
    steps: Tally
    total_steps: Tally
    warmup_steps: Tally  # as taken: at most a quarter of the stage
    best_step: Tally | None = None
    best_stop_loss: Amount | None = None  # on the windows that stop the stage, nats per token; of pairs, nats a pair
    train_tokens: Tally  # targets that counted
    pairs_too_long: Tally | None = None  # of a preference stage: training pairs left out: they do not fit into a row
    tokens_seen: dict[str, Tally]  # of whole rows, by corpus; by ``corpus:purpose`` where a stage uses a corpus twice
    sources: dict[str, UseCounts] = Field(default_factory=dict)  # by use, named as in ``tokens_seen``
    trained_seconds: Amount
    eval_seconds: Amount
    total_seconds: Amount
    tokens_per_second: Amount
    flops: Amount
    flops_estimated: bool = False  # the model is of a family whose FLOPs are not counted exactly
    mfu: Amount | None = None
    parent: str | None = None
    weights_sha256: str | None = None
    ledger_sha256: str
    precision: str
    resumed: Tally = 0
    watched: WatchSpec | None = None  # curves that stand in metrics.jsonl
    environment: dict[str, Any] = Field(default_factory=dict)


class Failure(Record):
    """failure.json: why the latest attempt at a stage run or an evaluation failed."""

    id: str
    kind: str  # infrastructure (may be tried again) or error (would come back the same)
    type: str
    message: str
    traceback: str = ""
    attempt: Tally
    failures: Tally  # in a row, this one included
    is_final: bool
    worker: str = ""
    host: str = ""
    time: str = ""


class Evaluation(Record):
    """evaluations/<checkpoint>/<id>.json: the loss of one checkpoint on held-out windows of one corpus.

    Or its accuracy on a task: then `corpus` is the name of the task, the figures of the loss are absent, `documents`
    counts examples, and <id>.documents.parquet has document (the number of an example) and correct (0 to 1).

    The losses by document are beside it, in <id>.documents.parquet: document (its number in the held-out split), tokens
    (targets that count) and nats (their sum). Of a corpus of pairs a document is a pair: tokens and nats are those of
    its better answer, and rejected_tokens, rejected_nats and prompt (the same number for equal prompts) stand beside.
    """

    id: str
    checkpoint: str
    corpus: str
    status: Literal["done", "diverged"]  # diverged: the loss is not finite or above `max_loss`
    nats_per_token: Amount | None  # None when it is not finite
    bits_per_byte: Amount | None
    standard_error: Amount | None  # of nats_per_token, clustered by document; None with fewer than two documents
    tokens: Tally  # targets that count
    documents: Tally
    windows: Tally
    loss_on: LossOn | None = None  # None of a task
    accuracy: Amount | None = None  # of pairs: the share of them whose better answer is the likelier one; of a task:
    # the share of its examples that are right
    accuracy_se: Amount | None = None  # standard errors are clustered by prompt; examples of a task are independent
    margin: Signed | None = None  # of pairs: log p(better) - log p(worse), nats a pair
    margin_se: Amount | None = None
    metric: str | None = None  # of a task: what lm-eval calls the measure whose mean is `accuracy`
    cut: Tally | None = None  # of a task: examples longer than the model's context, cut from the left
    seconds: Amount = 0.0
    environment: dict[str, Any] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _a_finished_one_has_a_loss(self) -> Self:
        if self.metric is not None:
            if self.accuracy is None or self.accuracy > 1:
                raise ValueError("accuracy has no number between 0 and 1")
        elif self.status == "done" and self.nats_per_token is None:
            raise ValueError("status is done, and nats_per_token has no number")
        elif self.loss_on is None:
            raise ValueError("loss_on is missing")
        return self
