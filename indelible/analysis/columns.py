"""The columns of the results table: name, type, unit and meaning. docs/analysis.md prints this list."""

from collections.abc import Iterable
from dataclasses import dataclass

import polars as pl

STAGES = ("pretrain", "posttrain", "finetune")
MAIN_LOSSES = ("L_im", "L_ret", "L_ft", "L_pre")  # what the paper plots
LOSSES = (*MAIN_LOSSES, "L_pre_post")
STATUSES = ("done", "diverged", "failed", "incomplete")


@dataclass(frozen=True)
class Column:
    """One column of the results table."""

    name: str
    dtype: type[pl.DataType]
    unit: str  # empty when the value has none
    meaning: str
    is_setting: bool = False  # True: an arm's setting, taken from the plan; False: identity or outcome


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
    for name in LOSSES:
        yield Column(f"{name}_bpb", pl.Float64, "bits per byte", meanings[name])


def _stage_outcomes() -> Iterable[Column]:
    for stage in STAGES:
        yield Column(f"{stage}_seconds", pl.Float64, "seconds", f"training time of the {stage} run")
    for stage in STAGES:
        yield Column(f"{stage}_flops", pl.Float64, "FLOPs", f"training FLOPs of the {stage} run")


COLUMNS: tuple[Column, ...] = (
    Column("study", pl.String, "", "name of the study"),
    _setting("scale", pl.String, "", "model and budgets in one word"),
    _setting("pipeline", pl.String, "", "corpora of the three stages, as general>music>chemistry"),
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
    _setting("posttrain_global_batch_size", pl.Int64, "sequences", "per optimizer step of stage 2"),
    *_losses(),
    Column("pretrain_id", pl.String, "", "run id of stage 1; null when the chain starts from a given checkpoint"),
    Column("posttrain_id", pl.String, "", "run id of stage 2"),
    Column("finetune_id", pl.String, "", "run id of stage 3"),
    Column("posttrain_stop_reason", pl.String, "", "what ended stage 2: max_tokens, patience, empty or diverged"),
    Column("status", pl.String, "", "done, diverged, failed or incomplete"),
    *_stage_outcomes(),
)
SCHEMA: dict[str, type[pl.DataType]] = {column.name: column.dtype for column in COLUMNS}
SETTINGS: tuple[str, ...] = tuple(column.name for column in COLUMNS if column.is_setting)


def setting_columns(table: pl.DataFrame) -> list[str]:
    """The columns of ``table`` that describe an arm: the known settings and the extra ones of its plan.

    Extra settings are those that `results_table` put between ``posttrain_global_batch_size`` and ``L_im``.
    """
    names = table.columns
    extras = names[names.index("posttrain_global_batch_size") + 1 : names.index("L_im")]
    return [name for name in names if name in SETTINGS or name in extras]


def token_columns(table: pl.DataFrame) -> list[str]:
    """The columns of ``table`` with realised token counts: `results_table` puts them last, after the schema's."""
    last = max(position for position, name in enumerate(table.columns) if name in SCHEMA)
    return table.columns[last + 1 :]


def varying(table: pl.DataFrame, names: Iterable[str]) -> list[str]:
    """Those of ``names`` that take more than one value in ``table`` (null counts as a value)."""
    return [name for name in names if table[name].n_unique() > 1]
