"""Writes the pages under docs/reference from the code: fields of a study, commands, columns, Python.

    python tools/reference_pages.py            writes them
    python tools/reference_pages.py --check    exit code 1 if one is not what the code says

Fields come from the models that read a study file, with the comments beside them; commands from the functions behind
them; columns from the registry of the table; Python from the docstrings. Only the titles stand here.
"""

import argparse
import inspect
import sys
from collections.abc import Callable
from pathlib import Path

from page_text import cell, markdown, paragraphs, signature, table
from reference_commands import commands_page
from reference_fields import fields_page

import indelible
from indelible.results import curves, losses
from indelible.results.columns import COLUMNS

ROOT = Path(__file__).resolve().parents[1]
OUT = ROOT / "docs" / "reference"
MADE = "<!-- Written by tools/reference_pages.py: `make reference`. -->\n\n"


def columns_page() -> str:
    """Every column of the three tables."""
    rows = [(f"`{one.name}`", one.dtype.__name__, one.unit, cell(one.meaning)) for one in COLUMNS]
    text = [
        "# Columns of tables\n",
        "Three tables: `indelible results DIR`, with `--losses`, with `--curves`; in Python `results()`, `losses()`, "
        "`curves()` of [`open`](python.md). All losses are on held-out text.\n",
        "## results: a row a chain\n",
        "A study adds what it sweeps (`<stage>_<field>`), its own losses (`views`), and the outcomes of its own "
        "stages. How rows are joined and what is refused: [analysis](../analysis.md).\n",
        table(("column", "type", "unit", "meaning"), rows),
        "## losses: a row for each chain, checkpoint and corpus\n",
        paragraphs(losses.losses),
        "## curves: a row for each step that was logged\n",
        paragraphs(curves.curves),
    ]
    return "\n".join(text)


def python_page() -> str:
    """What `import indelible` offers."""
    text = [
        "# Python\n",
        "`import indelible` offers these names and no other. They are loaded when they are first used. Nothing here "
        "prints or exits. A walk through them: [from Python](../tutorials/from-python.ipynb).\n",
    ]
    for name in sorted(indelible.__all__, key=str.lower):
        thing = getattr(indelible, name)
        if name == "__version__":
            continue
        if not inspect.isclass(thing):
            text += [f"## {name}\n", signature(f"indelible.{name}", thing), paragraphs(thing)]
            continue
        text += [f"## {name}\n", markdown(inspect.getdoc(thing) or "")]
        for key, member in vars(thing).items():
            if key.startswith("_") or not (isinstance(member, property) or inspect.isfunction(member)):
                continue
            call = signature(key, member) if inspect.isfunction(member) else ""
            text += [f"### {name}.{key}\n", call, markdown(inspect.getdoc(member) or "")]
    return "\n".join(text)


def index_page() -> str:
    """What is where."""
    return (
        "# Reference\n\n"
        "Exact and complete; written from the code, so that it cannot lag behind it.\n\n"
        "* [Fields of a study](fields.md): what a study file may say, with defaults, units and the scales' values.\n"
        "* [Commands](commands.md): every command with its options.\n"
        "* [Columns of tables](columns.md): what `results`, `losses` and `curves` hold.\n"
        "* [Python](python.md): what `import indelible` offers.\n\n"
        "By hand, and tested against the code: [run folder](../run-folder.md), [training](../training.md),\n"
        "[token store](../token-store.md), [analysis and report](../analysis.md), [inputs](../inputs.md).\n"
    )


PAGES: dict[str, Callable[[], str]] = {
    "index.md": index_page,
    "fields.md": fields_page,
    "commands.md": commands_page,
    "columns.md": columns_page,
    "python.md": python_page,
}


def written(name: str) -> str:
    """A page as it is to be."""
    lines = (MADE + PAGES[name]()).splitlines()
    kept = [line.rstrip() for at, line in enumerate(lines) if line.strip() or (at and lines[at - 1].strip())]
    return "\n".join(kept).strip() + "\n"


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="Write nothing; exit code 1 if a page is stale.")
    is_check = parser.parse_args().check
    stale = [name for name in PAGES if not (OUT / name).is_file() or (OUT / name).read_text("utf-8") != written(name)]
    for name in [] if is_check else stale:
        OUT.mkdir(parents=True, exist_ok=True)
        (OUT / name).write_text(written(name), encoding="utf-8")
    print(f"{'stale' if is_check else 'written'}: {', '.join(stale) or 'none'}")
    return 1 if is_check and stale else 0


if __name__ == "__main__":
    sys.exit(main())
