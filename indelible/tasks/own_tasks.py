"""What lm-eval is here and which tasks it brings, told without importing it.

The import takes seconds, and neither a plan nor training needs it.
"""

import difflib
import re
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path

from indelible.errors import UserError

INSTALL = "pip install 'indelible[tasks]'"
_NAME = re.compile(rb"^[\"']?(task|group|tag)[\"']?:[ \t]*[\"']?([\w.:+-]+)[\"']?[ \t]*\r?$", re.MULTILINE)


def lm_eval_version(what: str) -> str:
    """The version of lm-eval here.

    Args:
        what: needs it, for the message.

    Raises:
        UserError: it is not installed, or is of a version that we do not know.
    """
    try:
        found = version("lm_eval")
    except PackageNotFoundError:
        raise UserError(f"{what}: tasks are evaluated by lm-eval, which is not installed here; {INSTALL}.") from None
    if not found.startswith("0.4."):
        raise UserError(f"{what}: lm-eval {found} is installed, and 0.4 is known here; {INSTALL}.")
    return found


def own_task_file(name: str) -> Path:
    """The file of one of lm-eval's own tasks.

    Raises:
        UserError: lm-eval has no such task, or a group of that name.
    """
    files = _index()
    if name in files.get("task", {}):
        return files["task"][name]
    where = f"evaluation.tasks: {name!r}"
    if any(name in files.get(kind, {}) for kind in ("group", "tag")):
        raise UserError(
            f"{where} is a group of lm-eval's tasks; each task has an accuracy of its own here, so name the tasks that "
            "you want (`lm-eval ls tasks` lists them)."
        )
    close = difflib.get_close_matches(name, list(files.get("task", {})), n=1, cutoff=0.5)
    hint = f" (did you mean {close[0]!r}?)" if close else ""
    raise UserError(
        f"{where} is no task of lm-eval {lm_eval_version(where)}{hint}; `lm-eval ls tasks` lists them. For one of your "
        "own write {file: my-task.yaml}."
    )


@cache
def _index() -> dict[str, dict[str, Path]]:
    """Names in lm-eval's task files by what they are of; the first file of a name counts, as it does there."""
    spec = find_spec("lm_eval")
    folders = list(spec.submodule_search_locations or ()) if spec is not None else []
    found: dict[str, dict[str, Path]] = {}
    for folder in folders:
        for path in sorted((Path(folder) / "tasks").rglob("*.yaml")):
            for kind, name in _NAME.findall(path.read_bytes()):
                found.setdefault(kind.decode(), {}).setdefault(name.decode(), path)
    return found
