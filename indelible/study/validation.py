"""Checks raw settings against the models that read them: every problem with its path, and the nearest valid name."""

import difflib
import types
import typing
from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ValidationError

from indelible.study.arm import ArmSpec
from indelible.study.training import MixSpec

Section = typing.TypeVar("Section", bound=BaseModel)
STUDY_KEYS = {"name", "description", "scale", "seeds", "arms", "execution", "inference"}  # not fields of an arm
ENTRIES = "mix"  # a list of mappings, each of which may hold axes
Path = tuple[str, ...]


def nearest(name: str, known: typing.Iterable[str]) -> str:
    """A hint at the known name that is most like ``name``; empty if none is."""
    close = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    return f" (did you mean {close[0]!r}?)" if close else ""


def models_in(annotation: Any) -> list[type[BaseModel]]:
    """The models of a type: itself, or the members of a union."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    if typing.get_origin(annotation) in (typing.Union, types.UnionType, typing.Annotated):
        return [model for part in typing.get_args(annotation) for model in models_in(part)]
    return []


def unknown_keys(
    tree: Mapping[str, Any], model: type[BaseModel], prefix: Path = (), also: typing.Iterable[str] = ()
) -> list[str]:
    """One sentence for each key that no field of ``model`` reads, with the nearest valid name.

    Args:
        tree: raw settings.
        model: what reads them.
        prefix: where they stand in the study file.
        also: further keys that are known here.
    """
    problems = []
    fields = {info.alias or name: info for name, info in model.model_fields.items()}
    known = set(fields) | (STUDY_KEYS if not prefix else set()) | set(also)
    for key, value in tree.items():
        path = (*prefix, str(key))
        if key not in known:
            hint = nearest(str(key), known) or f"; known here: {', '.join(sorted(known))}"
            problems.append(f"{'.'.join(path)}: unknown key{hint}")
        elif key in fields and isinstance(value, Mapping):
            annotation = fields[key].annotation
            if typing.get_origin(annotation) is dict:  # of names to models
                inside = typing.get_args(annotation)[1]
                entries = {name: item for name, item in value.items() if isinstance(item, Mapping)}
                problems += [p for name, item in entries.items() for p in _unknown_in(inside, item, (*path, str(name)))]
            else:
                problems += _unknown_in(annotation, value, path)
        elif key == ENTRIES and isinstance(value, list | tuple):
            for number, entry in enumerate(value):
                if isinstance(entry, Mapping):
                    problems += unknown_keys(entry, MixSpec, (*path, str(number)))
    return problems


def _unknown_in(annotation: Any, value: Mapping[str, Any], path: Path) -> list[str]:
    """Unknown keys of a field whose type is a model, or a union of models told apart by their kind."""
    models = models_in(annotation)
    chosen = models[0] if len(models) == 1 else _by_kind(models, value)
    return unknown_keys(value, chosen, path) if chosen is not None else []


def _by_kind(models: list[type[BaseModel]], value: Mapping[str, Any]) -> type[BaseModel] | None:
    """The model of a union that the value's `kind` names."""
    for model in models:
        if "kind" in model.model_fields and model.model_fields["kind"].default == value.get("kind"):
            return model
    return None


def validate_arm(tree: Mapping[str, Any]) -> tuple[ArmSpec | None, list[str]]:
    """The arm of one grid point, or the list of what is wrong with it, each problem with its path."""
    problems = unknown_keys(tree, ArmSpec)
    if problems:
        return None, problems
    try:
        return ArmSpec.model_validate(tree), []
    except ValidationError as error:
        return None, problems_of(error, tree)


def validate_section(raw: Mapping[str, Any], name: str, model: type[Section]) -> tuple[Section | None, list[str]]:
    """A section of a study file that belongs to no arm (`execution`, `inference`), or what is wrong with it."""
    tree = raw.get(name) or {}
    problems = unknown_keys(tree, model, (name,)) if isinstance(tree, Mapping) else []
    if problems:
        return None, problems
    try:
        return model.model_validate(tree), []
    except ValidationError as error:
        return None, [f"{name}.{problem}" for problem in problems_of(error, tree)]


def problems_of(error: ValidationError, tree: Any = None) -> list[str]:
    """Pydantic's findings as `path = found: message` sentences.

    Args:
        error: what pydantic found.
        tree: what it read, so that paths are those of the file.
    """
    problems = []
    for item in error.errors():
        path, message = _path_in(item["loc"], tree), item["msg"].removeprefix("Value error, ")
        found = "" if item["type"] in ("missing", "value_error") else f" = {item['input']!r}"
        if item["type"] == "union_tag_invalid":
            kinds = item["ctx"]["expected_tags"].replace("'", "").split(", ")
            tag = str(item["ctx"]["tag"])
            path, found = f"{path}.kind", f" = {tag!r}"
            message = f"no such kind{nearest(tag, kinds)}; the kinds are {', '.join(kinds)}"
        elif item["type"] == "union_tag_not_found":
            message = "say its kind, e.g. {kind: ...}"
        elif item["type"] == "string_type" and isinstance(item["input"], int | float):
            message += "; put it in quotes if text is meant"
        problems.append(f"{path}{found}: {message}" if path else message)
    return problems


def _path_in(location: tuple[int | str, ...], tree: Any) -> str:
    """A path of pydantic's as the file has it: the kinds by which it found a model in a union are left out."""
    parts, node = [], tree
    for part in location:
        if str(part).startswith(("function-", "literal[")):
            continue
        kind = node.get("kind") if isinstance(node, Mapping) and part not in node else node
        if isinstance(part, str) and part == kind:
            continue
        parts.append(str(part))
        if isinstance(node, Mapping):
            node = node.get(part)
        elif isinstance(node, list | tuple) and isinstance(part, int) and part < len(node):
            node = node[part]
        else:
            node = None
    return ".".join(parts)
