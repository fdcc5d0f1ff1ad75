"""docs/reference says what the code says."""

from pathlib import Path

import field_notes
import page_text
import pytest
import reference_fields
import reference_pages

import indelible
from indelible.cli.main import COMMANDS
from indelible.results.columns import COLUMNS
from indelible.study.training import MixSpec, Optimization, StageSettings
from indelible.workflow.schema import study_schema

PAGES = Path(__file__).parents[2] / "docs" / "reference"


@pytest.mark.parametrize("name", reference_pages.PAGES)
def test_the_pages_are_those_that_the_code_makes(name):
    assert (PAGES / name).read_text(encoding="utf-8") == reference_pages.written(name), "stale: make reference"


def test_no_page_is_beside_them():
    assert {page.name for page in PAGES.iterdir()} == set(reference_pages.PAGES)


def test_every_model_of_a_study_file_has_a_section():
    """Whatever a study file may hold is in the page: each model that its schema reaches."""
    documented = {model.__name__ for _, _, model, _ in reference_fields.SECTIONS}
    with_fields = {name for name, one in study_schema()["$defs"].items() if set(one.get("properties", {})) - {"kind"}}
    assert with_fields - documented == {"InitSpec"}, "InitSpec is ShortInit without `at`"


def test_commands_columns_and_names_are_all_there():
    commands = reference_pages.commands_page()
    for names in COMMANDS.values():
        for name in names:
            assert f"\n## {name}" in commands
    assert "`--set`" in commands
    assert "| `-o`, `--output` | path |" in commands
    columns = reference_pages.columns_page()
    assert all(f"| `{column.name}` |" in columns for column in COLUMNS)
    python = reference_pages.python_page()
    for name in indelible.__all__:
        assert name == "__version__" or f"\n## {name}\n" in python
    assert 'budget: str | float | None = "40m",' in python


def test_comments_are_read_beside_over_and_under_a_field():
    source = (
        "class A(B):\n    a: int  # one\n    b: list[\n        int\n    ] = []  # two\n    # over three\n    c: int\n"
        "    d: int = 4  # four,\n    # and on\n    e: int = 5  # five\n    f: int\n"
    )
    assert field_notes.comments_in(source) == {
        "a": "one", "b": "two", "c": "over three", "d": "four, and on", "e": "five", "f": ""
    }  # fmt: skip
    assert field_notes.comments_of(Optimization)["eps"] == "AdamW's denominator term"
    assert field_notes.comments_of(StageSettings)["eps"] == "AdamW's denominator term", "an inherited field"


def test_readers_are_the_modules_that_read_a_field():
    assert field_notes.readers_of("eps", Optimization, ("train",)) == ["train/optim.py"]
    assert field_notes.readers_of("tokens", MixSpec, ("train", "study", "data")) == [], "a common word"


def test_a_signature_keeps_what_must_be_named():
    def call(a: int, *, b: str = "x") -> None:
        """Does nothing."""

    assert page_text.signature("call", call) == '```python\ncall(a: int, *, b: str = "x")\n```\n'
