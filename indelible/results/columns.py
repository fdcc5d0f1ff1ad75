"""The columns of the results table: name, type, unit and meaning. docs/analysis.md prints this list.

A table has these, and what its study adds: settings that it sweeps, losses that it names, stages beyond the paper's
three, tokens by corpus. Which columns those are is read off the table itself, from where they stand.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import polars as pl

from indelible.study.paper_form import SHORT_STAGES

MAIN_LOSSES = ("L_im", "L_ret", "L_ft", "L_pre")  # what the paper plots
LOSSES = (*MAIN_LOSSES, "L_pre_post")
FORGOTTEN = "forgotten"  # L_ret - L_im
# Measures of pairs that settings are compared by. Margins and distances from a reference are not among them: nothing
# bounds them, so that a chain that diverged could not be ranked.
COMPARED_MEASURES = ("accuracy", "reward_accuracy", "preference_loss")  # of pairs: `indelible.objectives.preference`
STATUSES = ("done", "diverged", "failed", "incomplete")
RESERVED = ("chain", "series", "exposure", "variant", "settings")  # columns that labels and the report add
_LAST_SETTING = "posttrain_global_batch_size"  # settings that only some studies have stand behind it


@dataclass(frozen=True)
class Column:
    """One column of the results table."""

    name: str
    dtype: type[pl.DataType]
    unit: str  # empty when the value has none
    meaning: str
    is_setting: bool = False  # True: an arm's setting, taken from the plan; False: identity or outcome
    is_new: bool = False  # absent from tables of version 0.1


def _setting(name: str, dtype: type[pl.DataType], unit: str, meaning: str) -> Column:
    return Column(name, dtype, unit, meaning, is_setting=True)


def _losses() -> Iterable[Column]:
    meanings = {
        "L_im": "immediate: theta_post on held-out D_post",
        "L_ret": "retained: theta_ft on held-out D_post",
        "L_ft": "theta_ft on held-out D_ft",
        "L_pre": "theta_ft on held-out D_pre",
        "L_pre_post": "theta_post on held-out D_pre",
    }
    for name in LOSSES:
        yield Column(name, pl.Float64, "nats per token", meanings[name])
    yield Column(FORGOTTEN, pl.Float64, "nats per token", "L_ret - L_im: above 0, the later stages erased", is_new=True)
    for name in LOSSES:
        yield Column(f"{name}_bpb", pl.Float64, "bits per byte", meanings[name])
    for name in LOSSES:
        meaning = f"standard error of {name} over held-out documents"
        yield Column(f"{name}_se", pl.Float64, "nats per token", meaning, is_new=True)


def _stage_outcomes() -> Iterable[Column]:
    for stage in SHORT_STAGES:
        yield Column(f"{stage}_seconds", pl.Float64, "seconds", f"training time of the {stage} run")
    for stage in SHORT_STAGES:
        yield Column(f"{stage}_flops", pl.Float64, "FLOPs", f"training FLOPs of the {stage} run")


COLUMNS: tuple[Column, ...] = (
    Column("study", pl.String, "", "name of the study"),
    _setting("scale", pl.String, "", "model and budgets in one word"),
    _setting("pipeline", pl.String, "", "corpora of the stages, as general>music>chemistry"),
    _setting("arm", pl.String, "", "name of a hand-picked arm, else empty"),
    Column("seed", pl.Int64, "", "same seed: same initialisation, same D_pre order"),
    _setting("exposure_fraction", pl.Float64, "", "lambda: the part of D_post shown in pretraining"),
    _setting("exposure_mode", pl.String, "", "add or replace"),
    _setting("placement", pl.String, "", "uniform, early, late or a-b (parts of pretraining)"),
    _setting("pretrain_tokens", pl.Int64, "tokens", "|D_pre| as asked"),
    _setting("post_tokens", pl.Int64, "tokens", "|D_post| as asked"),
    _setting("finetune_tokens", pl.Int64, "tokens", "|D_ft| as asked"),
    _setting("allocation", pl.String, "", "full: stage 2 sees all of D_post; matched: only what stage 1 did not"),
    _setting("method", pl.String, "", "full or lora, of stage 2"),
    _setting("replay_fraction", pl.Float64, "", "part of D_pre mixed into stage 2"),
    _setting("dropout", pl.Float64, "", "dropout probability of stage 2"),
    _setting("pretrain_lr", pl.Float64, "", "peak learning rate of stage 1"),
    _setting("posttrain_lr", pl.Float64, "", "peak learning rate of stage 2"),
    _setting("finetune_lr", pl.Float64, "", "peak learning rate of stage 3"),
    _setting(_LAST_SETTING, pl.Int64, "sequences", "per optimizer step of stage 2"),
    *_losses(),
    Column("pretrain_id", pl.String, "", "run id of stage 1; null when the chain starts from a given checkpoint"),
    Column("posttrain_id", pl.String, "", "run id of stage 2"),
    Column("finetune_id", pl.String, "", "run id of stage 3"),
    Column("start", pl.String, "", "id of the given checkpoint that the chain starts from, else null", is_new=True),
    Column("posttrain_stop_reason", pl.String, "", "what ended stage 2: max_tokens, patience, empty or diverged"),
    Column("status", pl.String, "", "done, diverged, failed or incomplete"),
    *_stage_outcomes(),
)
SCHEMA: dict[str, type[pl.DataType]] = {column.name: column.dtype for column in COLUMNS}
SETTINGS: tuple[str, ...] = tuple(column.name for column in COLUMNS if column.is_setting)


def column_order(
    settings: Iterable[str], views: Iterable[str], stages: Iterable[str], tokens: Iterable[str]
) -> list[str]:
    """The columns of a table in their order.

    Args:
        settings: that the schema does not know.
        views: losses that the study names beside the known ones.
        stages: beyond the paper's three.
        tokens: columns of realised token counts.
    """
    views, stages = list(views), list(stages)
    behind = {
        _LAST_SETTING: list(settings),
        FORGOTTEN: views,
        f"{LOSSES[-1]}_bpb": [f"{name}_bpb" for name in views],
        f"{LOSSES[-1]}_se": [f"{name}_se" for name in views],
        f"{SHORT_STAGES[-1]}_id": [f"{stage}_id" for stage in stages],
        f"{SHORT_STAGES[-1]}_seconds": [f"{stage}_seconds" for stage in stages],
        f"{SHORT_STAGES[-1]}_flops": [f"{stage}_flops" for stage in stages],
    }
    return [name for known in SCHEMA for name in (known, *behind.get(known, ()))] + list(tokens)


def column_type(name: str) -> type[pl.DataType] | None:
    """The type of a column that is no setting of some study alone; None of such a setting."""
    if name in SCHEMA:
        return SCHEMA[name]
    endings = {"_bpb": pl.Float64, "_se": pl.Float64, "_id": pl.String, "_seconds": pl.Float64, "_flops": pl.Float64}
    return next((dtype for ending, dtype in endings.items() if name.endswith(ending)), None)


def setting_columns(table: pl.DataFrame) -> list[str]:
    """The columns of ``table`` that describe an arm: the known settings and the extra ones of its plan.

    Extra settings are those between ``posttrain_global_batch_size`` and ``L_im``: whatever else the study sweeps, the
    seeds of single stages included.
    """
    extras = _between(table, _LAST_SETTING, "L_im")
    return [name for name in table.columns if name in SETTINGS or name in extras]


def derived_settings(table: pl.DataFrame) -> list[str]:
    """The settings of ``table`` that the schema does not know."""
    return [name for name in setting_columns(table) if name not in SETTINGS]


def stages_of(table: pl.DataFrame) -> list[str]:
    """The names of the stages of ``table``, in order: those with a column of run ids."""
    names = _between(table, f"{LOSSES[-1]}_bpb", "posttrain_stop_reason")
    return [name.removesuffix("_id") for name in names or table.columns if name.endswith("_id")]


def timed_stages(table: pl.DataFrame) -> list[str]:
    """The stages whose runs and training times the table has, in its order."""
    found = [name.removesuffix("_seconds") for name in table.columns if name.endswith("_seconds")]
    return [stage for stage in found if f"{stage}_id" in table.columns]


def id_columns(table: pl.DataFrame) -> list[str]:
    """The columns that say which runs made a chain, the given checkpoint that it starts from included."""
    ids = [f"{stage}_id" for stage in stages_of(table)]
    return [*ids, *(["start"] if "start" in table.columns else [])]


def view_columns(table: pl.DataFrame) -> list[str]:
    """The losses of ``table`` that its study names beside the known ones."""
    known = (*LOSSES, FORGOTTEN)
    return [name for name in _between(table, "L_im", "L_im_bpb") if name not in known]


def is_higher_better(loss: str) -> bool:
    """Whether a column of losses is an accuracy."""
    return loss.endswith("_accuracy")


def has_sign(loss: str) -> bool:
    """Whether a column of losses may be below zero: a margin or a distance from a reference, of pairs."""
    return loss.endswith(("_margin", "_kl"))


def loss_columns(table: pl.DataFrame) -> list[str]:
    """Every loss of ``table``: the known ones, then the study's own."""
    return [*(name for name in LOSSES if name in table.columns), *view_columns(table)]


def token_columns(table: pl.DataFrame, stage: str | None = None) -> list[str]:
    """The columns of ``table`` with realised token counts: they stand last.

    Args:
        table: results table.
        stage: only those of this stage.
    """
    outcomes = [position for position, name in enumerate(table.columns) if name in SCHEMA or name.endswith("_flops")]
    found = table.columns[max(outcomes) + 1 :]
    if stage is None:
        return found
    stages = stages_of(table)
    return [name for name in found if _longest_prefix(name, stages) == stage]


def varying(table: pl.DataFrame, names: Iterable[str]) -> list[str]:
    """Those of ``names`` that take more than one value in ``table`` (null counts as a value)."""
    return [name for name in names if table[name].n_unique() > 1]


def _between(table: pl.DataFrame, first: str, last: str) -> list[str]:
    """The columns behind ``first`` and before ``last``; none where either is missing."""
    names = table.columns
    return names[names.index(first) + 1 : names.index(last)] if first in names and last in names else []


def _longest_prefix(name: str, stages: Sequence[str]) -> str | None:
    """The stage whose name a column begins with; of `second` and `second_again` the longer one."""
    return max((stage for stage in stages if name.startswith(f"{stage}_")), key=len, default=None)
