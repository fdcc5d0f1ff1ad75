"""The documents: their links lead somewhere, their commands exist, their studies plan."""

import ast
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import typer.main

from indelible.cli import main as cli

ROOT = Path(__file__).parents[2]
PAGES = [*(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "reference/README.md"))]
PAGES += sorted((ROOT / "docs").rglob("*.md"))
IDS = [page.relative_to(ROOT).as_posix() for page in PAGES]


def commands() -> dict[str, Any]:
    """All commands of the application by their full name, e.g. `corpora list`."""
    found = {}

    def walk(group, prefix: str) -> None:
        for name, command in group.commands.items():
            full = f"{prefix} {name}".strip()
            found[full] = command
            if hasattr(command, "commands"):
                walk(command, full)

    walk(typer.main.get_command(cli.build_app()), "")
    return found


@pytest.mark.parametrize("page", PAGES, ids=IDS)
def test_links_to_files_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8")):
        if not target.startswith(("http://", "https://", "mailto:")):
            assert (page.parent / target).exists(), f"{page.name}: {target}"


@pytest.mark.parametrize("page", PAGES, ids=IDS)
def test_commands_in_the_documents_exist_with_their_options(page):
    known = commands()
    for line in re.findall(r"^(?:\$ )?indelible ([^\n`]*)$", page.read_text(encoding="utf-8"), flags=re.M):
        words = line.split("#")[0].split()
        name = " ".join(words[:2]) if " ".join(words[:2]) in known else words[0]
        assert name in known, f"{page.name}: indelible {line}"
        options = {option for parameter in known[name].params for option in parameter.opts}
        for word in words:
            if word.startswith("--"):
                assert word.split("=")[0] in options, f"{page.name}: {name} has no {word}"


@pytest.mark.parametrize("page", [page for page in PAGES if page.name != "add-a-guard.md"], ids=lambda page: page.stem)
def test_yaml_studies_in_the_documents_resolve(page):
    """But for the study of a guard that a reader adds first: test_tutorials adds it and runs that study."""
    import yaml

    from indelible.study.load import resolve_study

    for block in re.findall(r"```yaml\n(.*?)```", page.read_text(encoding="utf-8"), flags=re.S):
        for raw in yaml.safe_load_all(block):
            if isinstance(raw, dict) and {"name", "scale"} <= raw.keys() and raw.keys() & {"pipeline", "stages"}:
                assert resolve_study(raw).arms


@pytest.mark.parametrize("page", PAGES, ids=IDS)
def test_python_in_the_documents_is_python_and_names_what_there_is(page):
    import indelible

    blocks = re.findall(r"```python\n(.*?)```", page.read_text(encoding="utf-8"), flags=re.S)
    for block in blocks:
        if "import indelible" not in block:  # a part of the code, which test_seams compares with its file
            continue
        for node in ast.walk(ast.parse(block)):
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "indelible":
                assert hasattr(indelible, node.attr), f"{page.name}: indelible.{node.attr}"


def test_the_python_of_the_page_on_studies_runs():
    text = (ROOT / "docs" / "studies.md").read_text(encoding="utf-8")
    (block,) = re.findall(r"```python\n(.*?)```", text, flags=re.S)
    done = subprocess.run([sys.executable, "-c", block], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("12 [")


def test_every_command_is_registered_by_the_module_that_is_named_for_it():
    for names in cli.COMMANDS.values():
        for name in names:
            group = typer.main.get_command(cli.build_app(name))
            assert set(group.commands) == set(names)


def test_make_knows_what_the_readme_says():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    targets = set(re.findall(r"^make ([a-z]+)$", text, flags=re.M)) | set(re.findall(r"`make ([a-z]+)`", text))
    assert {"demo", "test"} <= targets
    for target in targets:
        done = subprocess.run(["make", "-n", target], cwd=ROOT, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr


def test_the_module_can_be_run():
    done = subprocess.run([sys.executable, "-m", "indelible.cli.main", "--help"], capture_output=True, check=False)
    assert done.returncode == 0
