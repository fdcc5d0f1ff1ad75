"""Names for arms: what a legend, a tooltip and a verdict call a setting of the swept fields."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import polars as pl

from indelible.results.columns import derived_settings, setting_columns, stages_of, varying
from indelible.results.words import (
    checkpoint_text,
    ids_text,
    plural,
    settings_text,
    split_stage,
    value_text,
    word,
)
from indelible.study.labels import count_text
from indelible.study.training import MixSpec

__all__ = [
    "EXPOSURE",
    "TREATMENT",
    "checkpoint_text",
    "count_text",
    "differing_columns",
    "exposure_columns",
    "ids_text",
    "is_treatment",
    "label_order",
    "own_treatments",
    "paper_columns",
    "plural",
    "settings_text",
    "texts",
    "treatment_columns",
    "treatments",
    "value_text",
    "variant_text",
    "with_labels",
    "word",
]

# What makes an arm another treatment; the other settings (learning rates, budgets, batch) are swept within it.
TREATMENT = (
    "arm",
    "scale",
    "pipeline",
    "allocation",
    "exposure_fraction",
    "exposure_mode",
    "placement",
    "method",
    "replay_fraction",
    "dropout",
)
EXPOSURE = ("exposure_fraction", "exposure_mode", "placement")  # settings that mean nothing at lambda 0
# The same of settings that only some studies have: what is done to the model, beside how it is optimised.
_OF_A_CHAIN = ("init", "stages")
_OF_A_STAGE = ("guard", "adapt", "method", "objective", "mix", "replay", "exposure", "not_shown_in", "init")
# What the paper's treatments of stage 2 have beside their own columns (the rank of an adapter): null without them.
_OF_THE_PAPERS = (
    "posttrain_adapt_",
    "posttrain_method_",
    *(f"posttrain_replay_{field}" for field in MixSpec.model_fields),
)
_ABSENT = {"replay_fraction": 0, "dropout": 0}  # values that are not named in a variant
_ABSENT_IN_A_STAGE = {"guard": "none", "adapt": "full", "method": "full", "objective": "next_token"}


def is_treatment(name: str, stages: Iterable[str]) -> bool:
    """Whether a setting makes an arm another treatment: what a stage minimises, guards, adapts, mixes or starts from.

    Args:
        name: a setting's column.
        stages: of the table; a derived setting begins with the name of its stage.
    """
    if name in TREATMENT or name in _OF_A_CHAIN:
        return True
    stage = max((stage for stage in stages if name.startswith(f"{stage}_")), key=len, default=None)
    if stage is None:
        return False
    field = name.removeprefix(f"{stage}_")
    return any(field == part or field.startswith(f"{part}_") for part in _OF_A_STAGE)


def treatments(table: pl.DataFrame) -> list[str]:
    """All settings of ``table`` that make an arm another treatment: the paper's, then the study's own.

    The other settings are swept within a treatment.
    """
    stages = stages_of(table)
    own = [name for name in derived_settings(table) if is_treatment(name, stages)]
    return [*(name for name in TREATMENT if name in table.columns), *own]


def exposure_columns(table: pl.DataFrame) -> list[str]:
    """The settings of ``table`` that say how D_post is shown in pretraining: at lambda 0 they mean nothing."""
    own = [name for name in derived_settings(table) if name.startswith("pretrain_exposure_")]
    return [*(name for name in EXPOSURE if name in table.columns), *own]


def own_treatments(table: pl.DataFrame) -> list[str]:
    """The treatments that this study alone has: another guard, mix, adapter, objective or start.

    How D_post is shown in pretraining, and what the paper's own treatments have beside their columns, are not among
    them. Values of one are never averaged: each is judged by itself.
    """
    known = (*TREATMENT, *exposure_columns(table))
    return [name for name in treatments(table) if name not in known and not name.startswith(_OF_THE_PAPERS)]


def differing_columns(table: pl.DataFrame) -> list[str]:
    """The settings that may differ between lambda 0 and more, all else being equal: the arm's name and exposure."""
    return ["arm", *exposure_columns(table)]


def paper_columns(table: pl.DataFrame) -> list[str]:
    """The settings of ``table`` that dropout, replay and LoRA of stage 2 have: what its named arms differ in."""
    own = [name for name in derived_settings(table) if name.startswith(_OF_THE_PAPERS)]
    return ["dropout", "replay_fraction", "method", *own]


def variant_text(table: pl.DataFrame, row: dict[str, Any], names: Sequence[str]) -> str:
    """A treatment for people: what is absent (a guard of kind none) and what goes without saying is left out."""
    return settings_text(_named(row), [name for name in names if not _is_detail(table, name)])


def treatment_columns(table: pl.DataFrame) -> list[str]:
    """The treatment columns that a name needs: those that a named arm settles by itself go without saying.

    So do details of a guard, a mix or an adapter that are the same wherever there is one.
    """
    names = [name for name in treatments(table) if not _is_detail(table, name)]
    if table.height == 0 or table["arm"].n_unique() < 2 or "" in table["arm"].fill_null(""):
        return names
    settled = table.group_by("arm").agg(pl.col(name).n_unique() for name in names if name != "arm").drop("arm")
    return [name for name in names if name in ("arm", "exposure_fraction") or (settled[name] > 1).any()]


def _is_detail(table: pl.DataFrame, name: str) -> bool:
    """A field of a part that only some chains have, with one value in all that have it."""
    if name in TREATMENT or name in _OF_A_CHAIN:
        return False
    _, field = split_stage(name)
    is_main = field in _ABSENT_IN_A_STAGE or field.endswith("_fraction") or field in ("not_shown_in", "init")
    return not is_main and table[name].drop_nulls().n_unique() <= 1


def with_labels(table: pl.DataFrame) -> pl.DataFrame:
    """Adds labels of what varies, all str.

    ``series``: the treatment; ``exposure``: lambda alone; ``variant``: the treatment without lambda (replay and dropout
    of 0, and a guard of kind none, unsaid; ``plain`` when nothing is left); ``settings``: everything that varies.
    """
    settings = varying(table, setting_columns(table)) if table.height else []
    treatment = [name for name in treatment_columns(table) if name in settings or name == "exposure_fraction"]
    others = [name for name in treatment if name != "exposure_fraction"]
    no_exposure = "λ -" if table.height and table["exposure_fraction"].null_count() < table.height else "all"
    return table.with_columns(
        texts(table, "series", treatment, lambda row: settings_text(row, treatment) or "all"),
        texts(
            table,
            "exposure",
            ["exposure_fraction"],
            lambda row: settings_text(row, ["exposure_fraction"]) or no_exposure,
        ),
        texts(table, "variant", others, lambda row: settings_text(_named(row), others) or "plain"),
        texts(table, "settings", settings, lambda row: settings_text(row, settings)),
    )


def texts(table: pl.DataFrame, name: str, columns: Sequence[str], text: Callable[[dict[str, Any]], str]) -> pl.Series:
    """A column of texts about ``columns``, made once for each distinct row of them: a table may have thousands."""
    if not columns:
        return pl.Series(name, [text({})] * table.height, pl.String)
    made: dict[tuple[Any, ...], str] = {}
    for row in (rows := table.select(columns).rows()):
        if row not in made:
            made[row] = text(dict(zip(columns, row, strict=True)))
    return pl.Series(name, [made[row] for row in rows], pl.String)


def _named(row: dict[str, Any]) -> dict[str, Any]:
    """The row without what is absent: replay and dropout of zero, a guard of kind none."""
    return {name: None if _is_absent(name, value) else value for name, value in row.items()}


def _is_absent(name: str, value: Any) -> bool:
    if name in _ABSENT:
        return not value
    stage, field = split_stage(name)
    if stage is None or value is None:
        return value is None
    return _ABSENT_IN_A_STAGE.get(field) == value or (field.endswith("_fraction") and not value)


def label_order(labelled: pl.DataFrame, label: str) -> list[str]:
    """The values of a label column in the order of their settings (lambda last, so that like stands by like)."""
    others = [] if label == "exposure" else [name for name in treatments(labelled) if name != "exposure_fraction"]
    names = [*others, "exposure_fraction"]
    return labelled.select(label, *names).sort(names, nulls_last=False)[label].unique(maintain_order=True).to_list()
