"""The rooms and their arrows: a room imports only rooms before it, and the light ones stay light."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import indelible

PACKAGE = Path(indelible.__file__).parent
ROOMS = ["study", "theory", "corpora", "model", "data", "train", "lab", "analysis", "report", "cli"]
SHARED = {"errors", "files", "__version__"}  # modules beside the rooms, open to all


def imported_rooms(file: Path) -> set[str]:
    """Second parts of the `indelible.*` names that a file imports, wherever in the file it does so."""
    found = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "indelible":
            parts = node.module.split(".")
            found |= {parts[1]} if len(parts) > 1 else {alias.name for alias in node.names}
        elif isinstance(node, ast.Import):
            found |= {alias.name.split(".")[1] for alias in node.names if alias.name.startswith("indelible.")}
    return found


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_imports_only_the_rooms_before_it(room):
    files = list((PACKAGE / room).rglob("*.py"))
    assert files
    allowed = set(ROOMS[: ROOMS.index(room) + 1]) | SHARED
    for file in files:
        assert imported_rooms(file) <= allowed, file


@pytest.mark.parametrize("room", ROOMS)
def test_every_room_says_what_it_is_for(room):
    text = ast.get_docstring(ast.parse((PACKAGE / room / "__init__.py").read_text(encoding="utf-8")))
    assert text
    assert 2 <= len(text.splitlines()) <= 8


@pytest.mark.parametrize(
    ("module", "forbidden"),
    [
        ("indelible.study.graph", {"torch", "transformers", "numpy", "polars"}),
        ("indelible.theory", {"torch", "transformers", "polars", "altair"}),
        ("indelible.analysis.claims", {"torch", "transformers", "datasets"}),
        ("indelible.lab.runner", {"torch", "transformers", "datasets"}),
        ("indelible.cli.study_commands", {"torch", "transformers", "datasets"}),
        ("indelible.cli.plan_commands", {"torch", "transformers", "datasets"}),
    ],
)
def test_light_rooms_stay_light(module, forbidden):
    code = f"import sys, {module}; print(*[m for m in {sorted(forbidden)!r} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


def test_modules_are_of_a_size_that_can_be_read():
    sizes = {file: len(file.read_text(encoding="utf-8").splitlines()) for file in PACKAGE.rglob("*.py")}
    assert {str(file): size for file, size in sizes.items() if size > 400} == {}


def test_functions_are_of_a_size_that_can_be_read():
    long = {}
    for file in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef) and node.end_lineno - node.lineno >= 70:
                long[f"{file.name}:{node.name}"] = node.end_lineno - node.lineno
    assert long == {}


def test_nothing_is_left_open():
    words = ["TO" + "DO", "FIX" + "ME", "XX" + "X", "NotImplemented" + "Error"]
    for file in [*PACKAGE.rglob("*.py"), *Path(__file__).parents[1].rglob("*.py")]:
        text = file.read_text(encoding="utf-8")
        assert not [word for word in words if word in text], file
