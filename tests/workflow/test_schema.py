"""The JSON Schema of study files against the studies that there are, and against mistakes."""

from typing import Any

import jsonschema
import pytest

from indelible.study.load import load_study, read_study_file, shipped_studies
from indelible.workflow.schema import study_schema

GOOD: dict[str, Any] = {"name": "one", "pipeline": {"pre": "general", "post": "music", "ft": "chemistry"}}


@pytest.fixture(scope="module")
def schema() -> dict[str, Any]:
    """Made once: it is large."""
    found = study_schema()
    jsonschema.Draft202012Validator.check_schema(found)
    return found


@pytest.mark.parametrize("name", list(shipped_studies()))
def test_every_shipped_study_fits(name: str, schema: dict[str, Any]) -> None:
    jsonschema.validate(read_study_file(name), schema)


@pytest.mark.parametrize(
    ("over", "path"),
    [
        ({"pretrian": {"tokens": "1M"}}, ""),
        ({"finetune": {"lrr": 1e-3}}, "finetune"),
        ({"stages": {"relearn": {"corpus": "music", "tokns": 5}}}, "stages.relearn"),
        ({"execution": {"device": "tpu"}}, "execution.device"),
        ({"exposure": {"mode": "instead"}}, "exposure"),
        ({"posttrain": {"tokens": "a lot"}}, "posttrain.tokens"),
    ],
)
def test_mistakes_are_found_where_they_stand(over: dict[str, Any], path: str, schema: dict[str, Any]) -> None:
    with pytest.raises(jsonschema.ValidationError) as caught:
        jsonschema.validate(GOOD | over, schema)
    deepest = max(".".join(map(str, one.absolute_path)) for one in [caught.value, *(caught.value.context or [])])
    assert deepest.startswith(path)


def test_a_study_that_uses_many_fields_fits_and_loads(schema: dict[str, Any], tmp_path) -> None:
    raw = GOOD | {
        "scale": "pico",
        "exposure": {"fraction": [0, 0.5]},
        "finetune": {"lr": ["0.3x", 1e-3], "tokens": "20k"},
        "stages": {
            "finetune": {"guard": {"kind": "kl", "weight": [0.1, 1]}, "mix": [{"corpus": "music", "fraction": 0.01}]},
            "relearn": {"corpus": "music", "tokens": "5k", "watch": {"corpora": ["music"]}},
        },
        "views": {"L_back": {"after": "relearn", "corpus": "music"}},
        "seeds": {"pretrain": [0, 1], "finetune": [0, 1]},
    }
    jsonschema.validate(raw, schema)
    import yaml

    (tmp_path / "s.yaml").write_text(yaml.safe_dump(raw, sort_keys=False))
    assert len(load_study(str(tmp_path / "s.yaml")).arms) == 8
