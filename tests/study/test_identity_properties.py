"""Equal settings have equal digests and other settings other ones, for every model that a study is read into."""

import types
import typing
from typing import Any

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

import indelible.study.paper_form  # noqa: F401  models that nothing else here imports
from indelible.strict import Strict
from indelible.study.arm import ArmSpec
from indelible.study.graph import Stores, build_graph
from indelible.study.identity import canonical, digest, without_tags
from indelible.study.load import resolve_study
from indelible.study.stage_spec import StageSpec

TEXTS = ["a", "pretrain", "music-1", "x.y"]
INTEGERS = [0, 1, 2, 4, 8, 512, 2**40]
FLOATS = [0.0, -0.0, 1e-12, 0.1, 0.25, 0.5, 0.9, 1.0, 2.0, 128.0, 1e9]


def models() -> list[type[Strict]]:
    """Every model of a study file and of a stage's spec; an arm as a whole is never hashed."""
    found: list[type[Strict]] = []
    open_ends: list[type] = [Strict]
    while open_ends:
        for one in open_ends.pop().__subclasses__():
            open_ends.append(one)
            if one.__module__.startswith(("indelible.study", "indelible.objectives")) and one.__name__[0] != "_":
                found.append(one)
    return sorted(set(found) - {ArmSpec}, key=lambda one: one.__name__)


def bounded(values: list[Any], metadata: typing.Iterable[Any]) -> list[Any]:
    """The values that a field's constraints allow; the constraints' own borders among them."""
    limits = {
        name: getattr(rule, name) for rule in metadata for name in ("ge", "gt", "le", "lt") if hasattr(rule, name)
    }
    borders = [limits[name] for name in ("ge", "le") if limits.get(name) is not None]
    tests = {
        "ge": lambda v, b: v >= b, "gt": lambda v, b: v > b, "le": lambda v, b: v <= b, "lt": lambda v, b: v < b
    }  # fmt: skip
    return [v for v in [*values, *borders] if all(b is None or tests[name](v, b) for name, b in limits.items())]


def raw_values(annotation: Any, metadata: tuple[Any, ...] = ()) -> st.SearchStrategy[Any]:
    """Raw values, as YAML has them, for a field."""
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Annotated:
        return raw_values(arguments[0], (*metadata, *arguments[1:]))
    if origin is typing.Literal:
        return st.sampled_from(arguments)
    if origin in (typing.Union, types.UnionType):
        if set(arguments) == {str, int, float, bool}:  # a value of a column: True and 1 are other values there
            return st.sampled_from(TEXTS)
        return st.one_of(*(raw_values(one, metadata) for one in arguments))
    if origin is tuple:
        if arguments[-1] is Ellipsis:
            return st.lists(raw_values(arguments[0]), max_size=2)
        return st.tuples(*(raw_values(one) for one in arguments)).map(list)
    if origin is dict:
        return st.dictionaries(raw_values(arguments[0]), raw_values(arguments[1]), max_size=2)
    if annotation is type(None):
        return st.none()
    if annotation is bool:
        return st.booleans()
    if annotation is int:
        return st.sampled_from(bounded(INTEGERS, metadata))
    if annotation is float:
        return st.sampled_from(bounded(FLOATS, metadata))
    if annotation is str:
        return st.sampled_from(TEXTS)
    if annotation is Any:
        return st.sampled_from([8, 0.5, "x"])
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return raw_model(annotation)
    raise TypeError(f"no strategy for {annotation}")


def raw_model(model: type[BaseModel]) -> st.SearchStrategy[dict[str, Any]]:
    """Raw settings of a model: some fields, the others at their default."""

    def name(field: str, info: FieldInfo) -> str:
        return info.alias or field

    fields = {
        name(f, info): raw_values(info.annotation, tuple(info.metadata)) for f, info in model.model_fields.items()
    }
    required = {name(f, info) for f, info in model.model_fields.items() if info.is_required() or f == "kind"}
    return st.fixed_dictionaries(
        {field: values for field, values in fields.items() if field in required},
        optional={field: values for field, values in fields.items() if field not in required},
    )


def respelled(value: Any, draw: st.DrawFn) -> Any:
    """The same value, numbers written as integers or as floats, lists as tuples, mappings in another order."""
    if isinstance(value, dict):
        items = draw(st.permutations(list(value.items())))
        return {key: respelled(item, draw) for key, item in items}
    if isinstance(value, list):
        kind = draw(st.sampled_from([list, tuple]))
        return kind(respelled(item, draw) for item in value)
    if isinstance(value, bool) or not isinstance(value, int | float):
        return value
    if float(value).is_integer() and draw(st.booleans()):
        return int(value) if isinstance(value, float) else float(value)
    return value


def made(model: type[Strict], raw: Any) -> Strict:
    try:
        return model.model_validate(raw)
    except ValidationError:
        assume(False)
        raise


@st.composite
def twins(draw: st.DrawFn, model: type[Strict]) -> tuple[Strict, Strict]:
    """The same settings of a model, written in two ways."""
    raw = draw(raw_model(model))
    return made(model, raw), made(model, respelled(raw, draw))


@pytest.mark.parametrize("model", models(), ids=lambda model: model.__name__)
def test_equal_settings_have_equal_digests(model):
    @settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
    @given(twins(model))
    def check(pair):
        assert pair[0] == pair[1]
        assert digest(pair[0]) == digest(pair[1])

    check()


@pytest.mark.parametrize("model", models(), ids=lambda model: model.__name__)
def test_other_settings_have_other_digests(model):
    @settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
    @given(raw_model(model), raw_model(model))
    def check(raw, other_raw):
        one, other = made(model, raw), made(model, other_raw)
        # to Python, False and 0 are equal; to JSON, 0.0 and -0.0 differ, and settings mean the same by both
        alike = repr(one).replace("-0.0", "0.0") == repr(other).replace("-0.0", "0.0")
        assert (digest(one) == digest(other)) == (one == other and alike)

    check()


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(raw_model(StageSpec))
def test_every_spec_reads_back(raw):
    spec = made(StageSpec, raw)
    assert StageSpec.model_validate(without_tags(canonical(spec))) == spec


BASE = {
    "name": "t",
    "scale": "pico",
    "pipeline": {"pre": "general", "post": "music", "ft": "chemistry"},
    "seeds": [0, 1],
}
STORES = Stores({"general": "general-a", "music": "music-b", "chemistry": "chemistry-c"}, "tokenizer-d")
MIXED = ({"corpus": "music", "fraction": 0.1}, {"corpus": "general", "fraction": 0.1})
LORA = {"posttrain": {"method": "lora"}}
ARMS = {
    "default": LORA,
    "integer": {"posttrain": {"method": "lora", "lora": {"alpha": 128}}},
    "float": {"posttrain": {"method": "lora", "lora": {"alpha": 128.0}}},
    "other": {"posttrain": {"method": "lora", "lora": {"alpha": 64}}},
    "exposed": {"exposure": {"fraction": 1}},
    "exposed too": {"exposure": {"fraction": 1.0, "placement": "uniform"}},
    "mixed": {"stages": {"finetune": {"mix": [MIXED[0], MIXED[1]]}}},
    "mixed too": {"stages": {"finetune": {"mix": [MIXED[1], MIXED[0]]}}},
    "all": {"posttrain": {"max_tokens": None, "patience": None, "eval_interval": None}},
    "all too": {"posttrain": {"allocation": "matched", "max_tokens": None}},
}


@settings(max_examples=30, deadline=None)
@given(st.permutations(list(ARMS)))
def test_ids_do_not_depend_on_the_order_of_the_arms(order):
    def runs(names):
        study = resolve_study({**BASE, "arms": {name: ARMS[name] for name in names}})
        return {chain.columns["arm"]: chain.runs for chain in build_graph(study, STORES).chains}

    found = runs(order)
    assert found == runs(ARMS)
    assert found["default"] == found["integer"] == found["float"] != found["other"]
    for name in ("exposed", "mixed", "all"):
        assert found[name] == found[f"{name} too"]
