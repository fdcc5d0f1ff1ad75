"""From the raw study file to its arms: overrides, sweep axes, scale defaults, validation.

A list where a scalar is expected is a sweep axis; the grid is the product of the axes. All problems are collected and
reported at once, each with its path.
"""

import copy
import difflib
import functools
import itertools
import types
import typing
from collections.abc import Iterator, Mapping
from importlib import resources
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError

from indelible.errors import UserError
from indelible.study.base import parse_count
from indelible.study.spec import ArmSpec, ExecutionSpec

STUDY_KEYS = {"name", "description", "scale", "seeds", "arms", "execution"}  # not fields of an arm
_PAIRS = {"betas", "placement"}  # fields whose value may itself be a list of two numbers
_OPAQUE = {"corpora"}  # subtrees that are never swept: sweep `pipeline` over several declared corpora instead
_LISTS = {"targets", "heldout_sources", "sources"}  # fields whose value is a list
Path = tuple[str, ...]


def scale_names() -> list[str]:
    """Names of the shipped scales."""
    return list(_scale_names())


def load_scale(name: str) -> dict[str, Any]:
    """Default settings of a scale as a raw dictionary.

    Raises:
        UserError: there is no such scale.
    """
    return copy.deepcopy(_checked_scale(name))


def _checked_scale(name: str) -> dict[str, Any]:
    """The scale as it is kept: not to be changed."""
    if name not in scale_names():
        hint = _nearest(name, scale_names())
        raise UserError(f"scale = {name!r} is not a scale{hint}; the scales are {', '.join(scale_names())}.")
    return _read_scale(name)


@functools.cache
def _read_scale(name: str) -> dict[str, Any]:
    text = (resources.files("indelible.study") / "scales" / f"{name}.yaml").read_text(encoding="utf-8")
    return yaml.safe_load(text)


@functools.cache
def _scale_names() -> tuple[str, ...]:
    folder = resources.files("indelible.study") / "scales"
    return tuple(sorted(entry.name.removesuffix(".yaml") for entry in folder.iterdir() if entry.name.endswith(".yaml")))


def merged(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """``base`` with ``over`` laid on top, neither changed; only mappings merge, everything else replaces.

    A mapping with another ``kind`` replaces as a whole: the fields of one kind mean nothing to another.
    """
    result = dict(base)
    for key, value in over.items():
        below = result.get(key)
        same_kind = (
            isinstance(value, Mapping) and isinstance(below, Mapping)
            and value.get("kind", below.get("kind")) == below.get("kind")
        )  # fmt: skip
        result[key] = merged(below, value) if same_kind else value
    return result


def set_path(tree: dict[str, Any], path: Path, value: Any) -> None:
    """Sets ``tree[path[0]][path[1]]... = value``, making mappings on the way."""
    for key in path[:-1]:
        if not isinstance(tree.get(key), dict):
            tree[key] = {}
        tree = tree[key]
    tree[path[-1]] = value


def apply_overrides(raw: dict[str, Any], overrides: list[str]) -> dict[str, Any]:
    """Applies ``--set path.to.field=value`` strings; the value is read as YAML.

    Raises:
        UserError: an override has no ``=`` or its value is not YAML.
    """
    tree = merged({}, raw)
    for override in overrides:
        path, equals, text = override.partition("=")
        if not equals or not path.strip():
            raise UserError(f"--set {override!r}: expected field=value, e.g. --set finetune.lr=1e-4.")
        try:
            value = yaml.safe_load(text)
        except yaml.YAMLError as error:
            raise UserError(f"--set {override!r}: the value is not YAML ({error}).") from None
        layer: dict[str, Any] = {}
        set_path(layer, tuple(path.strip().split(".")), value)
        tree = merged(tree, layer)
    return tree


def is_axis(path: Path, value: Any) -> bool:
    """Whether a list at ``path`` is a sweep axis rather than a value that happens to be a list."""
    if not isinstance(value, list) or path[0] in _OPAQUE or path[-1] in _LISTS:
        return bool(isinstance(value, list) and value and isinstance(value[0], list) and path[0] not in _OPAQUE)
    if path[-1] in _PAIRS:
        is_pair = len(value) == 2 and all(isinstance(v, int | float) and not isinstance(v, bool) for v in value)
        return not is_pair
    return True


def sweep_axes(tree: Mapping[str, Any], prefix: Path = ()) -> dict[Path, list[Any]]:
    """All axes of a raw study by path, in the order of the file."""
    axes: dict[Path, list[Any]] = {}
    for key, value in tree.items():
        path = (*prefix, str(key))
        if not prefix and key in STUDY_KEYS:
            continue
        if isinstance(value, Mapping):
            if path[0] not in _OPAQUE:
                axes.update(sweep_axes(value, path))
        elif is_axis(path, value):
            axes[path] = value
    return axes


def expand(raw: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Every point of the grid as a raw dictionary without lists on axes; arms outermost, then the axes in file order.

    Raises:
        UserError: an axis is empty, or `arms` is not a mapping of names to settings.
    """
    arms = raw.get("arms")
    if arms is not None and not (isinstance(arms, Mapping) and all(isinstance(a, Mapping) for a in arms.values())):
        raise UserError("arms: expected a mapping of arm names to settings, e.g. arms: {mixed: {exposure: {...}}}.")
    body = {key: value for key, value in raw.items() if key not in STUDY_KEYS - {"name", "scale"}}
    for arm_name, settings in (arms or {"": {}}).items():
        layered = copy.deepcopy(merged(body, settings))
        layered["arm"] = arm_name
        axes = sweep_axes(layered)
        for path, values in axes.items():
            if not values:
                raise UserError(f"{'.'.join(path)} = []: a sweep axis needs at least one value.")
        for path in axes:
            set_path(layered, path, None)  # copying a long axis for each of its points would take its square
        for point in itertools.product(*axes.values()):
            tree = copy.deepcopy(layered)
            for path, value in zip(axes, point, strict=True):
                set_path(tree, path, value)
            yield tree


def with_scale(tree: Mapping[str, Any]) -> dict[str, Any]:
    """Lays a grid point over its scale's defaults and resolves multiples such as ``0.5x`` of the scale's value.

    Raises:
        UserError: a multiple stands where the scale has no number.
    """
    if not isinstance(tree.get("scale"), str):
        found = f" = {tree['scale']!r}" if "scale" in tree else ""
        raise UserError(f"scale{found}: expected one of {', '.join(scale_names())}; a study has one scale.")
    defaults = _checked_scale(str(tree["scale"]))
    return _resolve_multiples(merged(defaults, tree), defaults, ())


def _resolve_multiples(value: Any, default: Any, path: Path) -> Any:
    if isinstance(value, Mapping) and (not path or path[0] not in _OPAQUE):
        below = default if isinstance(default, Mapping) else {}
        return {key: _resolve_multiples(item, below.get(key), (*path, str(key))) for key, item in value.items()}
    if isinstance(value, str) and value.endswith("x") and _is_number(value[:-1]):
        base = parse_count(default)
        if isinstance(base, str) and _is_number(base):
            base = float(base)
        if not isinstance(base, int | float):
            raise UserError(f"{'.'.join(path)} = {value!r}: this scale has no value of its own to multiply.")
        product = float(value[:-1]) * base
        return round(product) if isinstance(base, int) else float(f"{product:.12g}")  # no 0.30000000000000004
    return value


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _nearest(name: str, known: typing.Iterable[str]) -> str:
    close = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    return f" (did you mean {close[0]!r}?)" if close else ""


def _models_in(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    if typing.get_origin(annotation) in (typing.Union, types.UnionType, typing.Annotated):
        return [model for part in typing.get_args(annotation) for model in _models_in(part)]
    return []


def unknown_keys(tree: Mapping[str, Any], model: type[BaseModel], prefix: Path = ()) -> list[str]:
    """One sentence for each key that no field of ``model`` reads, with the nearest valid name."""
    problems = []
    fields = {info.alias or name: info for name, info in model.model_fields.items()}
    known = set(fields) | (STUDY_KEYS if not prefix else set())
    for key, value in tree.items():
        path = (*prefix, str(key))
        if key not in known:
            hint = _nearest(str(key), known) or f"; known here: {', '.join(sorted(known))}"
            problems.append(f"{'.'.join(path)}: unknown key{hint}")
        elif key in fields and isinstance(value, Mapping):
            models = _models_in(fields[key].annotation)
            if len(models) == 1:
                problems += unknown_keys(value, models[0], path)
    return problems


def validate_arm(tree: Mapping[str, Any]) -> tuple[ArmSpec | None, list[str]]:
    """The arm of one grid point, or the list of what is wrong with it, each problem with its path."""
    problems = unknown_keys(tree, ArmSpec)
    if problems:
        return None, problems
    try:
        return ArmSpec.model_validate(tree), []
    except ValidationError as error:
        return None, problems_of(error)


def validate_execution(raw: Mapping[str, Any]) -> tuple[ExecutionSpec | None, list[str]]:
    """The execution settings of a study, or what is wrong with them."""
    tree = raw.get("execution") or {}
    problems = unknown_keys(tree, ExecutionSpec, ("execution",)) if isinstance(tree, Mapping) else []
    if problems:
        return None, problems
    try:
        return ExecutionSpec.model_validate(tree), []
    except ValidationError as error:
        return None, [f"execution.{problem}" for problem in problems_of(error)]


def problems_of(error: ValidationError) -> list[str]:
    """Pydantic's findings as `path = found: message` sentences."""
    problems = []
    for item in error.errors():
        path = ".".join(str(part) for part in item["loc"] if not str(part).startswith(("function-", "literal[")))
        found = "" if item["type"] in ("missing", "value_error") else f" = {item['input']!r}"
        message = item["msg"].removeprefix("Value error, ")
        problems.append(f"{path}{found}: {message}" if path else message)
    return problems
