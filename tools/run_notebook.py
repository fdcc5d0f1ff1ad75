"""Runs a notebook's code cells in a folder and writes what they print into it.

    python tools/run_notebook.py docs/tutorials/from-python.ipynb FOLDER

No kernel and no notebook library: cells print what they show. ``FOLDER`` has what the notebook opens
(`runs/quickstart`).
"""

import argparse
import contextlib
import io
import json
import os
from pathlib import Path
from typing import Any


def run_cells(notebook: dict[str, Any]) -> dict[str, Any]:
    """Runs the code cells in order, in the current folder; returns the notebook with their output."""
    scope: dict[str, Any] = {"__name__": "__main__"}
    count = 0
    for cell in notebook["cells"]:
        if cell["cell_type"] != "code":
            continue
        count += 1
        said = io.StringIO()
        with contextlib.redirect_stdout(said):
            exec(compile("".join(cell["source"]), f"cell {count}", "exec"), scope)
        text = said.getvalue()
        cell["execution_count"] = count
        cell["outputs"] = [{"output_type": "stream", "name": "stdout", "text": text.splitlines(True)}] if text else []
    return notebook


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("notebook", type=Path)
    parser.add_argument("folder", type=Path)
    options = parser.parse_args()
    path = options.notebook.resolve()
    os.chdir(options.folder)
    text = json.dumps(run_cells(json.loads(path.read_text(encoding="utf-8"))), indent=1, ensure_ascii=False)
    path.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
