"""What people call columns, values and counts."""

from collections.abc import Sequence
from functools import cache
from typing import Any

from indelible.study.labels import count_text
from indelible.study.training import StageSettings

_WORDS = {
    "exposure_fraction": "λ",
    "post_tokens": "|D_post|",
    "pretrain_tokens": "|D_pre|",
    "finetune_tokens": "|D_ft|",
    "replay_fraction": "replay",
}
_STAGES = {"pretrain": "stage-1", "posttrain": "stage-2", "finetune": "stage-3"}
_NO_STAGES = ("model", "data")  # groups of settings that belong to no stage
_FIELDS = {
    "lr": "LR",
    "min_lr": "min LR",
    "global_batch_size": "batch",
    "adapt": "method",
    "not_shown_in": "allocation",
    "replay_fraction": "replay",
}
# What the name of a derived setting has behind its stage: a field, or a part that has fields of its own.
_PARTS = (*StageSettings.model_fields, "method", "replay", "exposure", "seed", "seconds", "flops", "id")
# The value says it all.
BARE = {"arm", "scale", "pipeline", "stages", "allocation", "exposure_mode", "placement", "method"}


@cache
def word(name: str) -> str:
    """What people call a column, e.g. ``stage-3 LR``; the column's own name where there is no shorter one.

    ``finetune_global_batch_size`` is ``stage-3 batch``, ``second_lr`` is ``second LR``.
    """
    if name in _WORDS:
        return _WORDS[name]
    stage, field = split_stage(name)
    if stage is None:
        return name
    return f"{_STAGES.get(stage, stage)} {_FIELDS.get(field, field.replace('_', ' ').removesuffix(' fraction'))}"


@cache
def split_stage(name: str) -> tuple[str | None, str]:
    """The stage of a derived setting and what is said of it; (None, name) of any other column.

    ``second_tune_guard_weight`` is ``second_tune`` and ``guard_weight``: the stage ends where a known field begins.
    """
    places = [position for position, letter in enumerate(name) if letter == "_" and position]
    for place in places:
        field = name[place + 1 :]
        if name[:place] in _NO_STAGES:
            return None, name
        if any(field == part or field.startswith(f"{part}_") for part in _PARTS):
            return name[:place], field
    return None, name


def value_text(name: str, value: Any) -> str:
    """A setting's value for people: 30000000 tokens is ``30M``, 0.0003 is ``0.0003``, none at all is ``-``."""
    if value is None or value == "":
        return "-"
    if name.endswith("_tokens") and isinstance(value, int):
        return count_text(value)
    if name == "init" and isinstance(value, str) and "/" in value:
        return checkpoint_text(value)
    if isinstance(value, float):
        return f"{value:.6g}"
    return str(value)


def checkpoint_text(place: str) -> str:
    """A checkpoint's place in short: the end of a path that tells it apart, a hub id as it is."""
    parts = place.rstrip("/").split("/")
    if parts[-1] == "checkpoint" and len(parts) > 1:  # of a stage run: the folder above has its id
        return parts[-2]
    return parts[-1] if len(parts) != 2 or place.startswith("/") else place


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
        parts.append(text if name in BARE else f"{word(name)} {text}")
    return " · ".join(parts)
