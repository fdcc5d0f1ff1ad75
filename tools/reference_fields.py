"""The page of the fields of a study: from the models that read a study file and the comments beside their fields."""

import inspect
import re
import typing
from collections.abc import Iterator
from typing import Any

import yaml
from field_notes import comments_of, readers_of
from page_text import cell, table
from pydantic import BaseModel

from indelible.objectives import Guard, Objective
from indelible.study import arm, corpus_spec, execution, inference, paper_form, task_spec, training
from indelible.study.adapt import LoraSpec
from indelible.study.grid import load_scale, scale_names
from indelible.workflow.schema import study_schema


def members(union: Any) -> list[type[BaseModel]]:
    """The models of an annotated union that have settings beside their kind."""
    models = typing.get_args(typing.get_args(union)[0])
    return [one for one in models if set(one.model_fields) - {"kind"}]


STAGE_ROOMS = ("train", "models", "objectives", "study", "data")
CORPUS_ROOMS = ("corpora", "data")
SECTIONS: list[tuple[str, str, type[BaseModel], tuple[str, ...]]] = [  # title, where it stands, model, who may read it
    ("The whole study", "", arm.ArmSpec, ("study", "workflow", "data", "train", "models")),
    ("Corpora by role", "pipeline", paper_form.PipelineSpec, ("study",)),
    ("Exposure", "exposure", paper_form.ExposureSpec, ("study",)),
    ("A given checkpoint", "init", paper_form.ShortInit, ("study", "models", "workflow")),
    ("A stage", "pretrain, posttrain, finetune, stages.NAME", training.StageSettings, STAGE_ROOMS),
    ("A stage, in the paper's words", "pretrain, posttrain, finetune", paper_form.StageWords, ("study",)),
    ("What else is shown in a stage", "a stage's mix", training.MixSpec, ("study", "data")),
    ("Curves", "a stage's watch", training.WatchSpec, ("study", "train", "workflow")),
    ("Adapters", "a stage's adapt", LoraSpec, ("models", "train")),
    *((f"Objective {one.model_fields['kind'].default}", "a stage's objective", one, STAGE_ROOMS)
      for one in members(Objective)),
    *((f"Guard {one.model_fields['kind'].default}", "a stage's guard", one, STAGE_ROOMS) for one in members(Guard)),
    ("Model", "model", arm.ModelSpec, ("models", "study")),
    ("Evaluation", "evaluation", arm.EvaluationSettings, ("study", "workflow", "train")),
    ("Tasks", "evaluation.tasks.NAME", task_spec.TaskSpec, ("study", "workflow", "tasks")),
    ("Views", "views.NAME", arm.ViewSpec, ("study",)),
    ("Data", "data", arm.DataSettings, ("study", "data")),
    ("Held-out split", "data.split", corpus_spec.SplitSpec, CORPUS_ROOMS),
    ("Leak check", "data.leaks", corpus_spec.LeakSpec, CORPUS_ROOMS),
    *((f"Corpus of kind {one.model_fields['kind'].default}", "corpora.NAME", one, CORPUS_ROOMS)
      for one in members(corpus_spec.CorpusSpec)),
    *((f"Tokenizer of kind {one.model_fields['kind'].default}", "tokenizer", one, CORPUS_ROOMS)
      for one in members(corpus_spec.TokenizerSpec)),
    ("Execution", "execution", execution.ExecutionSpec, ("scheduling", "train", "workflow", "measure", "models")),
    ("Slurm", "execution.slurm", execution.SlurmSpec, ("scheduling",)),
    ("Inference", "inference", inference.InferenceSpec, ("statistics", "claims", "workflow")),
]  # fmt: skip


def kind_of(schema: dict[str, Any], kinds: dict[str, Any]) -> str:
    """What a value must be, in words, from its JSON Schema and the definitions that it refers to."""
    if "const" in schema:
        return f"`{schema['const']}`"
    if "enum" in schema:
        return ", ".join(f"`{value}`" for value in schema["enum"])
    for key in ("anyOf", "oneOf"):
        if key in schema:
            return " or ".join(dict.fromkeys(kind_of(one, kinds) for one in schema[key]))
    if "$ref" in schema:
        model = kinds.get(schema["$ref"].rpartition("/")[2], {})
        kind = model.get("properties", {}).get("kind", {}).get("const")
        return f"`{kind}`" if kind else "section"
    names = {"integer": "whole number", "number": "number", "string": "text", "boolean": "true or false",
             "null": "null", "array": "list", "object": "section"}  # fmt: skip
    signs = {"exclusiveMinimum": ">", "minimum": "≥", "exclusiveMaximum": "<", "maximum": "≤"}
    bounds = [f"{sign} {schema[key]:,g}" for key, sign in signs.items() if abs(schema.get(key, 1e18)) < 1e15]
    return " ".join([names[schema["type"]], *bounds]) if "type" in schema else "section"


def default_of(name: str, field: Any, path: str) -> str:
    """The default as YAML has it."""
    if field.is_required():
        of_scale = dict(leaves(load_scale(scale_names()[0])))
        return "of the scale" if f"{path.split(',')[0]}.{name}" in of_scale else "none: must be given"
    value = field.get_default(call_default_factory=True)
    if isinstance(value, BaseModel):
        return f"`{value.kind}`" if hasattr(value, "kind") else "its own"
    value = list(value) if isinstance(value, tuple) else value
    text = yaml.safe_dump(value, default_flow_style=True, width=1000).replace("...", "").strip()
    return f"`{text}`"


def fields_page() -> str:
    """Every field of a study file."""
    text = [
        "# Fields of a study\n",
        "Every field of a study file. A list where one value is expected is swept. Counts may be written `10k`, `2M`, "
        "`1.5B`, and a multiple of the scale's own value `0.3x`. What the sections mean together: "
        "[studies](../studies.md).\n",
        "*Read in* names the modules whose code reads a field of this name; where it is empty the name is one that the "
        "code reads in many places, or passes on as a whole.\n",
        "## Top level\n",
    ]
    properties = study_schema()["properties"]
    notes = comments_of(arm.ArmSpec)
    rows = []
    for name, schema in properties.items():
        below = [title for title, path, *_ in SECTIONS if name in re.split(r"\W+", path)[:3]]
        meaning = notes.get(name) or schema.get("description", "") or ("" if below else kind_of(schema, {}))
        rows.append((f"`{name}`", cell(meaning), ", ".join(f"[{one}](#{anchor(one)})" for one in below)))
    text += [table(("key", "meaning", "its fields"), rows), "## The scales\n"]
    text.append("What a study gets that says nothing else, and what `1x` is.\n")
    text.append(scales_table())
    for title, path, model, rooms in SECTIONS[1:]:
        text += [f"## {title}\n", f"`{path}`. {inspect.getdoc(model).splitlines()[0]}\n" if path else ""]
        text.append(fields_table(model, path, rooms))
    return "\n".join(text)


def anchor(title: str) -> str:
    """The place of a heading in its page."""
    return re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-")


def fields_table(model: type[BaseModel], path: str, rooms: tuple[str, ...]) -> str:
    """The fields of one model."""
    notes, schema = comments_of(model), model.model_json_schema(by_alias=False)
    rows = []
    for name, field in model.model_fields.items():
        rows.append(
            (
                f"`{field.alias or name}`",
                cell(kind_of(schema["properties"][name], schema.get("$defs", {}))),
                cell(default_of(name, field, path)),
                cell(notes.get(name, "")),
                ", ".join(f"`{one}`" for one in readers_of(name, model, rooms)),
            )
        )
    return table(("field", "value", "default", "meaning and unit", "read in"), rows)


def leaves(values: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """The single values of a nested mapping, by path."""
    for key, value in values.items():
        if isinstance(value, dict):
            yield from leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def scales_table() -> str:
    """What each scale sets."""
    scales = {name: dict(leaves(load_scale(name))) for name in scale_names()}
    scales = dict(sorted(scales.items(), key=lambda one: one[1]["model.hidden_size"]))
    names = list(dict.fromkeys(key for values in scales.values() for key in values))
    rows = [(f"`{key}`", *(str(values.get(key, "")) for values in scales.values())) for key in names]
    return table(("field", *(f"`{name}`" for name in scales)), rows)
