"""What a raw study may hold and must not mean: empty sections, and one setting under two spellings."""

import typing
from collections.abc import Iterable, Mapping
from typing import Any

from pydantic import BaseModel

from indelible.study.arm import ArmSpec
from indelible.study.execution import ExecutionSpec
from indelible.study.grid import sweep_axes
from indelible.study.inference import InferenceSpec
from indelible.study.paper_form import SHORT_STAGES, PaperForm, StageWords
from indelible.study.training import StageSettings
from indelible.study.validation import models_in
from indelible.study.yaml_reader import canonical_setting

_STUDY_SECTIONS: dict[str, type[BaseModel] | None] = {
    "execution": ExecutionSpec,
    "inference": InferenceSpec,
    "arms": None,
}


def empty_sections_left_out(raw: Mapping[str, Any]) -> dict[str, Any]:
    """``raw`` without the sections in which no line is left, as when all are commented out: they set nothing.

    A section that may itself be null (``init``, ``exposure``, ``watch``) stays: in an arm it takes away what all have.
    """
    kept = {key: value for key, value in _filled_arm(raw).items() if value is not None or key not in _STUDY_SECTIONS}
    if isinstance(arms := kept.get("arms"), Mapping):
        settings = {name: {} if arm is None else arm for name, arm in arms.items()}
        kept["arms"] = {name: _filled_arm(arm) if isinstance(arm, Mapping) else arm for name, arm in settings.items()}
    for key, model in _STUDY_SECTIONS.items():
        if model is not None and isinstance(section := kept.get(key), Mapping):
            kept[key] = _filled(section, model)
    return kept


def _filled_arm(tree: Mapping[str, Any]) -> dict[str, Any]:
    kept = _filled(tree, ArmSpec, PaperForm)
    if isinstance(corpora := kept.get("corpora"), Mapping):
        kept["corpora"] = {name: corpus for name, corpus in corpora.items() if corpus is not None}
    if isinstance(stages := kept.get("stages"), Mapping):
        kept["stages"] = {name: _filled_stage(stage) for name, stage in stages.items()}
    return kept | {name: _filled_stage(kept[name]) for name in SHORT_STAGES if name in kept}


def _filled_stage(stage: Any) -> Any:
    return _filled(stage, StageSettings, StageWords) if isinstance(stage, Mapping) else stage


def _filled(tree: Mapping[str, Any], *readers: type[BaseModel]) -> dict[str, Any]:
    """``tree`` without its empty sections, those inside its sections included."""
    fields = {name: field for reader in readers for name, field in reader.model_fields.items()}
    kept = {}
    for key, value in tree.items():
        field = fields.get(str(key))
        models = models_in(field.annotation) if field is not None else []
        if value is None and field is not None and _is_section(field.annotation):
            continue
        kept[key] = _filled(value, models[0]) if len(models) == 1 and isinstance(value, Mapping) else value
    return kept


def _is_section(annotation: Any) -> bool:
    """Whether a field takes a mapping and nothing else: null is none of its values."""
    is_mapping = bool(models_in(annotation)) or typing.get_origin(annotation) is dict
    return is_mapping and type(None) not in typing.get_args(annotation)


def same_value_problems(raw: Mapping[str, Any]) -> list[str]:
    """One sentence for each axis on which a value stands twice: its runs would be counted as two settings."""
    arms = raw.get("arms")
    trees = [raw, *(arm for arm in arms.values() if isinstance(arm, Mapping))] if isinstance(arms, Mapping) else [raw]
    problems = []
    for tree in trees:
        for path, values in sweep_axes(tree).items():
            if (pair := _first_twins(values)) is not None:
                problems.append(
                    f"{'.'.join(path)} = {values!r}: {pair[0]!r} and {pair[1]!r} are the same value, which stands on "
                    "the axis twice; keep one of them"
                )
    return problems


def _first_twins(values: list[Any]) -> tuple[Any, Any] | None:
    seen: dict[Any, Any] = {}
    for value in values:
        key = canonical_setting(value)
        if key in seen:
            return seen[key], value
        seen[key] = value
    return None


def same_arm_problems(points: Iterable[Mapping[str, Any]], arms: Iterable[ArmSpec]) -> list[str]:
    """One sentence for each pair of grid points that resolve to one setting, such as lr 3e-4 and 1x of 3e-4.

    Args:
        points: of the grid, before the scale's defaults are laid below them.
        arms: what each of them resolved to.
    """
    seen: dict[str, Mapping[str, Any]] = {}
    problems = []
    for point, arm in zip(points, arms, strict=True):
        before = seen.setdefault(arm.model_dump_json(), point)
        if before is not point:
            paths = [path for path in _leaves(point) if _at(point, path) != _at(before, path)]
            what = " and ".join(f"{'.'.join(p)} {_at(before, p)!r} and {_at(point, p)!r}" for p in paths)
            problems.append(f"{what} are the same setting at this scale, asked for twice; keep one of them")
    return list(dict.fromkeys(problems))


def _leaves(tree: Mapping[str, Any], prefix: tuple[str, ...] = ()) -> Iterable[tuple[str, ...]]:
    for key, value in tree.items():
        if isinstance(value, Mapping):
            yield from _leaves(value, (*prefix, str(key)))
        else:
            yield (*prefix, str(key))


def _at(tree: Any, path: tuple[str, ...]) -> Any:
    for key in path:
        tree = tree.get(key) if isinstance(tree, Mapping) else None
    return tree
