"""The JSON Schema of study files, made of the very models that read them: editors complete and check with it."""

import copy
from typing import Any

from pydantic import BaseModel

from indelible.study.arm import ArmSpec
from indelible.study.execution import ExecutionSpec
from indelible.study.grid import scale_names
from indelible.study.inference import InferenceSpec
from indelible.study.paper_form import ExposureSpec, PipelineSpec, ShortInit, StageWords
from indelible.study.training import StageSettings

_SCALE = {"enum": scale_names(), "description": "Model size: the defaults of everything that is not said."}
_AXIS = {"type": "array", "minItems": 1, "description": "A list of values is an axis of the study."}
_NOT_AXES = {"name", "description", "arms", "execution", "inference", "seeds", "scale"}


def study_schema() -> dict[str, Any]:
    """The schema (draft 2020-12) of a study file, short form and general form.

    Every field may be a list of its values (an axis). What only the whole study can tell (names of corpora, sums,
    combinations) is checked by `indelible plan`.
    """
    definitions: dict[str, Any] = {}
    arm = _properties(ArmSpec, definitions)
    stage = _model(StageSettings, definitions)
    short = copy.deepcopy(stage)
    short["properties"] |= _properties(StageWords, definitions)
    properties = {
        "name": {"type": "string", "description": "Of the study; letters, digits, . _ -"},
        "description": {"type": "string"},
        **{key: value for key, value in arm.items() if key not in ("name", "arm")},
        "scale": _SCALE,
        "seeds": {"description": "A list, or lists by stage.", "type": ["array", "object", "integer"]},
        "arms": {"type": "object", "description": "Hand-picked arms: names to what differs in them."},
        "pipeline": _model(PipelineSpec, definitions),
        "exposure": _model(ExposureSpec, definitions),
        "init": {"anyOf": [{"type": "string"}, {"type": "array"}, _model(ShortInit, definitions)]},
        "pretrain": short,
        "posttrain": short,
        "finetune": short,
        "stages": {"type": "object", "additionalProperties": stage, "maxProperties": 8},
        "execution": _model(ExecutionSpec, definitions),
        "inference": _model(InferenceSpec, definitions),
    }
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "indelible study file",
        "type": "object",
        "additionalProperties": False,
        "properties": {key: value if key in _NOT_AXES else _with_axes(value) for key, value in properties.items()},
        "$defs": {name: _with_inner_axes(one) for name, one in definitions.items()},
    }


def _properties(model: type[BaseModel], definitions: dict[str, Any]) -> dict[str, Any]:
    properties: dict[str, Any] = _model(model, definitions)["properties"]
    return properties


def _model(model: type[BaseModel], definitions: dict[str, Any]) -> dict[str, Any]:
    """The schema of a model, every field optional: a scale fills in what a study does not say."""
    schema = model.model_json_schema(by_alias=True, ref_template="#/$defs/{model}")
    definitions.update(schema.pop("$defs", {}))
    return _with_inner_axes(schema)


def _with_inner_axes(schema: dict[str, Any]) -> dict[str, Any]:
    if "properties" not in schema:
        return schema
    fields = {
        name: field if name == "kind" else _with_axes(_numbers_as_text(field))
        for name, field in schema["properties"].items()
    }
    return {**{key: value for key, value in schema.items() if key != "required"}, "properties": fields}


def _with_axes(field: dict[str, Any]) -> dict[str, Any]:
    """A field, or a list of its values."""
    if _AXIS in field.get("anyOf", ()):
        return field
    said: dict[str, Any] = {key: field[key] for key in ("title", "description") if key in field}
    return {**said, "anyOf": [{key: value for key, value in field.items() if key not in said}, _AXIS]}


def _numbers_as_text(field: dict[str, Any]) -> dict[str, Any]:
    """Counts may be written 10k, 2M, 1.5B, and multiples of the scale's value 0.3x, so a number may be text."""
    if field.get("type") in ("integer", "number"):
        return {"anyOf": [field, {"type": "string", "pattern": r"^[-+]?[0-9][0-9_.eE+-]*[kMBTx]?$"}]}
    for key in ("anyOf", "oneOf"):  # of a union one member fits, or several where a scale says the kind
        if key in field:
            rest = {name: value for name, value in field.items() if name not in (key, "discriminator")}
            return {**rest, "anyOf": [_numbers_as_text(one) for one in field[key]]}
    if "additionalProperties" in field and isinstance(field["additionalProperties"], dict):
        return {**field, "additionalProperties": _numbers_as_text(field["additionalProperties"])}
    return field
