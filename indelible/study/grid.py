"""From the raw study file to its grid points: overrides, sweep axes, scale defaults.

A list where a scalar is expected is a sweep axis; the grid is the product of the axes.
"""

import copy
import functools
import itertools
import math
from collections.abc import Iterator, Mapping
from importlib import resources
from typing import Any

import yaml

from indelible.errors import UserError
from indelible.strict import LARGEST, parse_count
from indelible.study.validation import ENTRIES, STUDY_KEYS, Path, nearest
from indelible.study.yaml_reader import read_value, split_path

_PAIRS = {"betas", "placement"}  # fields whose value may itself be a list of two numbers
_OPAQUE = {"corpora", "views"}  # subtrees that are never swept: sweep `pipeline` over several declared corpora instead
_LISTS = {"targets", "heldout_sources", "sources", "corpora", "steps", "not_shown_in"}  # fields whose value is a list


def scale_names() -> list[str]:
    """Names of the shipped scales."""
    return list(_scale_names())


def load_scale(name: str) -> Mapping[str, Any]:
    """Default settings of a scale, raw; kept and not copied, for it is asked for at every point of a grid.

    Raises:
        UserError: there is no such scale.
    """
    if name not in scale_names():
        hint = nearest(name, scale_names())
        raise UserError(f"scale = {name!r} is not a scale{hint}; the scales are {', '.join(scale_names())}.")
    return _read_scale(name)


@functools.cache
def _read_scale(name: str) -> Mapping[str, Any]:
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
        if isinstance(value, Mapping) and isinstance(below, Mapping):
            is_same_kind = value.get("kind", below.get("kind")) == below.get("kind")
            result[key] = merged(below, value) if is_same_kind else value
        else:
            result[key] = value
    return result


def set_path(tree: Any, path: Path, value: Any) -> None:
    """Sets ``tree[path[0]][path[1]]... = value``, making mappings on the way; a number leads into a list."""
    for key in path[:-1]:
        if isinstance(tree, list):
            tree = tree[int(key)]
            continue
        if not isinstance(tree.get(key), dict | list):
            tree[key] = {}
        tree = tree[key]
    tree[int(path[-1]) if isinstance(tree, list) else path[-1]] = value


def apply_overrides(raw: dict[str, Any], overrides: list[str]) -> dict[str, Any]:
    """Applies ``--set path.to.field=value`` strings; the value is read as YAML.

    Raises:
        UserError: an override has no ``=``, a part of its path is empty, or its value is not YAML.
    """
    tree = merged({}, raw)
    for override in overrides:
        path, equals, text = override.partition("=")
        if not equals or not path.strip():
            raise UserError(f"--set {override!r}: expected field=value, e.g. --set finetune.lr=1e-4.")
        tree = apply_values(tree, {path: read_value(text, f"--set {override!r}")})
    return tree


def apply_values(raw: Mapping[str, Any], values: Mapping[str, Any]) -> dict[str, Any]:
    """Lays values over a raw study, each by its dotted path.

    Raises:
        UserError: a part of a path is empty.
    """
    tree = merged({}, raw)
    for path, value in values.items():
        layer: dict[str, Any] = {}
        set_path(layer, split_path(tree, path), value)
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
        elif key == ENTRIES and isinstance(value, list) and all(isinstance(entry, Mapping) for entry in value):
            for number, entry in enumerate(value):
                axes.update(sweep_axes(entry, (*path, str(number))))
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
        yield from _points(layered)


def _points(layered: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The grid of one arm. A value of an axis may be a mapping with axes of its own."""
    axes = sweep_axes(layered)
    for path, values in axes.items():
        if not values:
            raise UserError(f"{'.'.join(path)} = []: a sweep axis needs at least one value.")
    for path in axes:
        set_path(layered, path, None)  # copying a long axis for each of its points would take its square
    for point in itertools.product(*axes.values()):
        tree = copy.deepcopy(layered)
        for path, value in zip(axes, point, strict=True):
            set_path(tree, path, copy.deepcopy(value))
        if any(isinstance(value, Mapping | list) for value in point):
            yield from _points(tree)
        else:
            yield tree


def with_scale(tree: Mapping[str, Any]) -> dict[str, Any]:
    """Lays a grid point over its scale's defaults and resolves multiples such as ``0.5x`` of the scale's value.

    Raises:
        UserError: a multiple stands where the scale has no number.
    """
    if not isinstance(tree.get("scale"), str):
        found = f" = {tree['scale']!r}" if "scale" in tree else ""
        raise UserError(f"scale{found}: expected one of {', '.join(scale_names())}; a study has one scale.")
    defaults = load_scale(str(tree["scale"]))
    stages = tree.get("stages")
    named = (
        {str(name): defaults.get(str(name)) or defaults["finetune"] for name in stages or {}}
        if isinstance(stages, Mapping)
        else {}
    )
    return _resolve_multiples(merged(defaults, tree), {**defaults, "stages": named}, ())


def _resolve_multiples(value: Any, default: Any, path: Path) -> Any:
    if isinstance(value, Mapping) and (not path or path[0] not in _OPAQUE):
        below = default if isinstance(default, Mapping) else {}
        return {key: _resolve_multiples(item, below.get(key), (*path, str(key))) for key, item in value.items()}
    if isinstance(value, str) and value.endswith("x") and _is_number(value[:-1]):
        base = parse_count(default) if not isinstance(default, bool) else None
        if isinstance(base, str) and _is_number(base):
            base = float(base)
        if not isinstance(base, int | float):
            raise UserError(f"{'.'.join(path)} = {value!r}: this scale has no value of its own to multiply.")
        product = float(value[:-1]) * base
        if not abs(product) < LARGEST:
            raise UserError(f"{'.'.join(path)} = {value!r}: {product:g} is more than any setting takes.")
        return round(product) if isinstance(base, int) else float(f"{product:.12g}")  # no 0.30000000000000004
    return value


def _is_number(text: str) -> bool:
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False
