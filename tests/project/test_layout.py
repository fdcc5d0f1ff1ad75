"""The rooms and their arrows: a room imports only rooms before it, and the light ones stay light."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import indelible
from indelible.cli.main import COMMANDS

PACKAGE = Path(indelible.__file__).parent
ROOMS = [
    *(
        "objectives",
        "study",
        "records",
        "theory",
        "corpora",
        "models",
        "data",
        "tasks",
        "train",
        "scheduling",
        "console",
    ),
    *("measure", "results", "statistics", "claims", "report", "tracking", "workflow", "durability", "cli"),
]
SHARED = {"strict", "errors", "files", "host", "__version__"}  # modules beside the rooms, open to all


def files_of(room: str) -> list[Path]:
    """The modules of a room."""
    return sorted((PACKAGE / room).rglob("*.py"))


def imported_rooms(file: Path) -> set[str]:
    """Second parts of the `indelible.*` names that a file imports, wherever in the file it does so.

    An objective names the types of the program that it works on, and imports nothing of it when it runs.
    """
    tree = ast.parse(file.read_text(encoding="utf-8"))
    if file.parent.name == "objectives":
        tree.body = [
            node for node in tree.body if not (isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test))
        ]
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "indelible":
            parts = node.module.split(".")
            found |= {parts[1]} if len(parts) > 1 else {alias.name for alias in node.names}
        elif isinstance(node, ast.Import):
            found |= {alias.name.split(".")[1] for alias in node.names if alias.name.startswith("indelible.")}
    return found


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_imports_only_the_rooms_before_it(room):
    allowed = set(ROOMS[: ROOMS.index(room) + 1]) | SHARED
    for file in files_of(room):
        assert imported_rooms(file) <= allowed, file


def test_every_module_is_of_a_room_or_shared():
    beside = {path.stem for path in PACKAGE.iterdir() if path.suffix == ".py" or (path / "__init__.py").is_file()}
    assert beside - {"__init__", "paper_values", "reference_values", "studies"} == {*ROOMS, *(SHARED - {"__version__"})}


def test_what_is_shared_imports_no_room():
    for name in SHARED - {"__version__"}:
        assert imported_rooms(PACKAGE / f"{name}.py") <= SHARED, name


@pytest.mark.parametrize("room", ROOMS)
def test_every_room_says_what_it_is_for(room):
    text = ast.get_docstring(ast.parse(files_of(room)[0].read_text(encoding="utf-8")))
    assert text
    assert 2 <= len(text.splitlines()) <= 8


def test_only_the_command_line_prints_and_exits():
    """The console makes what is shown; below the commands nothing prints, and nothing ends a process but a worker."""
    speaking = {}
    for file in PACKAGE.rglob("*.py"):
        room = file.relative_to(PACKAGE).parts[0]
        if room in ("cli", "console", "train", "scheduling", "measure"):  # workers' logs are what they print
            continue
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            name = ast.unparse(node.func) if isinstance(node, ast.Call) else ""
            if name in ("print", "sys.exit", "exit", "typer.Exit", "typer.echo", "SystemExit"):
                speaking[f"{file.relative_to(PACKAGE)}:{node.lineno}"] = name
    assert speaking == {}


SLOW = {"torch", "transformers", "datasets", "polars", "altair", "numpy", "pydantic", "yaml"}


@pytest.mark.parametrize(
    ("module", "forbidden"),
    [
        ("indelible.study.graph", {"torch", "transformers", "numpy", "polars"}),
        ("indelible.theory", {"torch", "transformers", "polars", "altair"}),
        ("indelible.claims.paper_claims", {"torch", "transformers", "datasets"}),
        ("indelible.scheduling.launcher", {"torch", "transformers", "datasets"}),
        ("indelible.workflow.planning", {"torch", "transformers", "datasets", "polars", "altair"}),
        ("indelible.workflow.estimate", {"torch", "transformers", "datasets", "altair"}),
        ("indelible.workflow.running", {"torch", "transformers", "datasets", "altair"}),
        ("indelible.workflow.reading", {"torch", "transformers", "datasets", "altair", "polars"}),
        ("indelible.train.stage", {"lm_eval", "datasets", "polars"}),
        ("indelible.train.evaluation", {"lm_eval", "datasets", "polars"}),
        (
            "indelible.tracking.follow",
            {"torch", "transformers", "datasets", "altair", "polars", "tensorboard", "wandb"},
        ),
        ("indelible.console.live", {"torch", "transformers", "datasets", "altair"}),
        *((f"indelible.cli.{module}", SLOW) for module in COMMANDS),
    ],
)
def test_light_rooms_stay_light(module, forbidden):
    code = f"import sys, {module}; print(*[m for m in {sorted(forbidden)!r} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


def test_help_answers_at_once():
    """Under half a second on a free core: what counts is the processor time of the process."""
    code = "import sys; from indelible.cli.main import main; sys.argv = ['indelible', '--help']; main()"
    done = subprocess.run(
        [sys.executable, "-c", f"import atexit, time; atexit.register(lambda: print(time.process_time())); {code}"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert "Commands" in done.stdout
    assert float(done.stdout.split()[-1]) < 0.5


def test_modules_are_of_a_size_that_can_be_read():
    sizes = {file: len(file.read_text(encoding="utf-8").splitlines()) for file in PACKAGE.rglob("*.py")}
    assert {str(file): size for file, size in sizes.items() if size > 300} == {}


def test_functions_are_of_a_size_that_can_be_read():
    long = {}
    for file in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef) and node.end_lineno - node.lineno >= 60:
                long[f"{file.name}:{node.name}"] = node.end_lineno - node.lineno
    assert long == {}


def test_nothing_is_left_open():
    words = ["TO" + "DO", "FIX" + "ME", "XX" + "X", "NotImplemented" + "Error"]
    for file in [*PACKAGE.rglob("*.py"), *Path(__file__).parents[1].rglob("*.py")]:
        text = file.read_text(encoding="utf-8")
        assert not [word for word in words if word in text], file
