"""The card as records: what `indelible.audit` returns and audit.json holds. The pages are made of nothing else."""

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from indelible.durability.request import Customer
from indelible.records import Record

Verdict = Literal["durable", "not_durable", "cannot_tell"]
Unit = Literal["share", "nats"]
EXIT_CODES: dict[str, int] = {"durable": 0, "not_durable": 3, "cannot_tell": 4}


class Part(BaseModel):
    """A part of the card."""

    model_config = ConfigDict(frozen=True, ser_json_inf_nan="null")


class Number(Part):
    """A number with its interval; the ends are null with one unit."""

    value: float
    low: float | None
    high: float | None
    n: int  # units: seeds of fine-tuning, or checkpoints (`scope.unit`)


class Kept(Number):
    """The number that the verdict is about. In nats it is the loss that was lost: less is better."""

    unit: Unit


class Later(Part):
    """One new corpus."""

    name: str
    best_gain: float | None  # nats per token, that the battery's best setting reaches in every unit; null: none gains
    best_setting: str | None
    edge: Literal["largest", "smallest"] | None  # its rate is at this edge of the rates that were tried


class CustomerRow(Part):
    """What one customer keeps at one part of the gain."""

    later: str  # a new corpus, or `all`: the mean over them
    gain: float  # part of the best gain
    customer: Customer
    lost: Number  # nats per token
    share: Number | None  # of the capability that is left; null without a base
    settings: int  # that get there in every unit


class SettingRow(Part):
    """One setting of the battery."""

    name: str
    later: str
    adapt: str
    lr: float
    replay: float
    is_padded: bool
    trials: int
    diverged: int
    reached: dict[str, int]  # part of the gain to the trials that get there
    lost: dict[str, Number | None]  # part of the gain to the loss lost there; null where not every trial gets there
    end_lost: Number | None  # at the end of the trial; null where every trial diverged
    end_gain: Number | None
    spread: float | None  # standard deviation of `end_lost` between seeds of fine-tuning: the noise of a re-run
    half_life_tokens: float | None  # median over trials; null without a base, or where more than half is left
    first_step_out_of_noise: int | None  # null: even at the end the loss is in the noise


class Relearned(Part):
    """What a few updates on the kept data restore after the trials."""

    updates: int
    restored: Number | None  # part of what was lost; null where nothing was lost for certain
    missing: Number | None  # part of what was lost that is still missing against the same updates without a trial
    settings: int


class WorstOf(Part):
    """The careless customer: the expected worst of k trials of different settings."""

    later: str
    lost: tuple[float, ...]  # for k = 1, 2, ...; nats per token
    share: tuple[float, ...] | None


class SurvivalPoint(Part):
    """What is left by fine-tuning tokens."""

    tokens: float
    gain: float  # mean on the new corpora, nats per token
    lost: Number  # typical
    careful: float
    careless: float


class AccuracyRow(Part):
    """What becomes of one checkpoint's accuracy on a task. Chance level is not subtracted."""

    task: str
    checkpoint: str  # as it was named
    later: str  # the new corpus of the trials
    examples: int
    before: Number  # of the checkpoint itself; n counts examples, and the interval is over them
    after: Number  # at the end of the trials without replay: mean over their settings; over seeds of fine-tuning and
    # examples
    settings: int  # that are done with every seed


class Compared(Part):
    """The model minus the one that it is compared with."""

    later: str
    gain: float
    customer: Customer
    is_main: bool  # the row that the audit is about
    difference: Number  # of the loss lost, nats per token: below 0 the model keeps more
    p: float | None
    p_adjusted: float | None  # of the main row its own; of the others Holm's, and never below that of the main row
    verdict: Literal["keeps more", "keeps less", "no difference found"]


class Scope(Part):
    """What the intervals are about."""

    unit: Literal["seed of fine-tuning", "checkpoint"]
    units: int
    covers: str
    level: float


class Audit(Record):
    """An audit. ``audit.json`` is this, and docs/audit.md says what its numbers mean."""

    verdict: Verdict
    exit_code: int
    sentence: str
    reason: str  # why it is this verdict
    kept: Kept | None  # null: no trial gains anything, or none is done
    require: float
    customer: Customer
    gain: float  # part of the best gain that the verdict is about
    model: tuple[str, ...]
    keep: str
    later: tuple[Later, ...]
    base: str | None
    against: tuple[str, ...]
    checkpoints: dict[str, str]  # as they were named to their ids in the study
    seeds: tuple[int, ...]
    battery: dict[str, Any]
    scope: Scope
    capability: float | None  # L_base - L_im, nats per token; null without a base
    before: float | None  # L_im: the model on the kept corpus, nats per token
    trials: int
    unfinished: int
    diverged: int
    customers: tuple[CustomerRow, ...]
    settings: tuple[SettingRow, ...]
    relearning: tuple[Relearned, ...]
    worst_of: tuple[WorstOf, ...]
    survival: tuple[SurvivalPoint, ...]
    half_life: Number | None  # fine-tuning tokens, typical
    half_life_at_least: float | None  # tokens: more than half is left at the end of most trials
    noise: float | None  # nats per token: standard deviation between re-runs with other seeds, pooled over settings
    comparison: tuple[Compared, ...]
    accuracies: tuple[AccuracyRow, ...] = ()  # where tasks are given
    warnings: tuple[str, ...]
    left_out: tuple[str, ...]  # of the battery, by the budget
    threat_model: tuple[str, ...]
    not_tested: tuple[str, ...]
    proxy: str  # what a loss says of the capability and what not
    cost: dict[str, float]  # trained_tokens, flops, worker_hours
    environment: dict[str, Any]
    study: str  # folder of the runs behind it


def schema() -> dict[str, Any]:
    """JSON Schema of audit.json."""
    found = Audit.model_json_schema()
    found["$schema"] = "https://json-schema.org/draft/2020-12/schema"
    return found
