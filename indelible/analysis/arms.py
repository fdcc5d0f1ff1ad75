"""Names for arms: what a legend, a tooltip and a verdict call a setting of the swept fields."""

from collections.abc import Sequence
from typing import Any

import polars as pl

from indelible.analysis.columns import setting_columns, varying

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
_WORDS = {
    "exposure_fraction": "λ",
    "post_tokens": "|D_post|",
    "pretrain_tokens": "|D_pre|",
    "finetune_tokens": "|D_ft|",
    "replay_fraction": "replay",
    "posttrain_lr": "stage-2 LR",
    "finetune_lr": "stage-3 LR",
    "pretrain_lr": "stage-1 LR",
    "posttrain_global_batch_size": "stage-2 batch",
}
_BARE = {"arm", "scale", "pipeline", "allocation", "exposure_mode", "placement", "method"}  # the value says it all


def word(name: str) -> str:
    """What people call a column, e.g. ``stage-3 LR``; the column's own name where there is no shorter one."""
    return _WORDS.get(name, name)


def value_text(name: str, value: Any) -> str:
    """A setting's value for people: 30000000 tokens is ``30M``, 0.0003 is ``0.0003``, null is ``-``."""
    if value is None:
        return "-"
    if name.endswith("_tokens") and isinstance(value, int):
        return count_text(value)
    if isinstance(value, float):
        return f"{value:.6g}"
    return str(value)


def count_text(count: int) -> str:
    """A count in k, M or B: 30000000 is ``30M``, 1500 is ``1.5k``."""
    for size, unit in ((10**9, "B"), (10**6, "M"), (10**3, "k")):
        if abs(count) >= size:
            return f"{count / size:.4g}{unit}"
    return str(count)


def plural(count: int, noun: str) -> str:
    """``1 seed``, ``3 seeds``."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def ids_text(ids: Sequence[str], num_shown: int = 6) -> str:
    """Run ids in one line, the first few by name: ``a, b and 3 more``."""
    names = ", ".join(ids[:num_shown])
    return names + (f" and {len(ids) - num_shown} more" if len(ids) > num_shown else "")


def settings_text(row: dict[str, Any], names: Sequence[str]) -> str:
    """Settings in one line: ``λ 0.5 · |D_post| 100k · dropout 0.05``; empty ones are left out."""
    parts = []
    for name in names:
        value = row[name]
        if value is None or value == "":
            continue
        text = value_text(name, value)
        parts.append(text if name in _BARE else f"{word(name)} {text}")
    return " · ".join(parts)


def with_labels(table: pl.DataFrame) -> pl.DataFrame:
    """Adds labels of what varies, all str.

    ``series``: the treatment; ``exposure``: lambda alone; ``variant``: the treatment without lambda (replay and dropout
    of 0 unsaid, ``plain`` when nothing is left); ``settings``: everything that varies.
    """
    settings = varying(table, setting_columns(table)) if table.height else []
    treatment = [name for name in treatment_columns(table) if name in settings or name == "exposure_fraction"]
    others = [name for name in treatment if name != "exposure_fraction"]
    rows = table.select(settings + [name for name in treatment if name not in settings]).to_dicts()
    return table.with_columns(
        pl.Series("series", [settings_text(row, treatment) or "all" for row in rows], pl.String),
        pl.Series("exposure", [settings_text(row, ["exposure_fraction"]) or "λ -" for row in rows], pl.String),
        pl.Series("variant", [settings_text(_said(row), others) or "plain" for row in rows], pl.String),
        pl.Series("settings", [settings_text(row, settings) for row in rows], pl.String),
    )


def _said(row: dict[str, Any]) -> dict[str, Any]:
    """The row without replay and dropout of zero: absence goes without saying."""
    return {
        name: None if name in ("replay_fraction", "dropout") and not value else value for name, value in row.items()
    }


def treatment_columns(table: pl.DataFrame) -> list[str]:
    """The treatment columns that a name needs: those that a named arm settles by itself go without saying."""
    if table.height == 0 or table["arm"].n_unique() < 2 or "" in table["arm"].fill_null(""):
        return list(TREATMENT)
    settled = table.group_by("arm").agg(pl.col(name).n_unique() for name in TREATMENT if name != "arm").drop("arm")
    return [name for name in TREATMENT if name in ("arm", "exposure_fraction") or (settled[name] > 1).any()]


def label_order(labelled: pl.DataFrame, label: str) -> list[str]:
    """The values of a label column in the order of their settings (lambda last, so that like stands by like)."""
    others = [] if label == "exposure" else [name for name in TREATMENT if name != "exposure_fraction"]
    names = [*others, "exposure_fraction"]
    return labelled.select(label, *names).sort(names, nulls_last=False)[label].unique(maintain_order=True).to_list()
