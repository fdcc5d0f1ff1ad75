"""metrics.jsonl: one JSON object a line as a stage trains; after a resume each step stands once."""

import json
import math
from pathlib import Path
from typing import Any

from indelible.files import atomic_write


def append_line(path: Path, line: dict[str, Any]) -> None:
    """Appends a line; numbers that are not finite become strings, which JSON has no other way to say."""
    safe = {key: str(v) if isinstance(v, float) and not math.isfinite(v) else v for key, v in line.items()}
    with open(path, "a", encoding="utf-8") as handle:
        handle.write(json.dumps(safe) + "\n")


def cut_metrics(path: Path, step: int) -> None:
    """Drops the lines of ``path`` that are later than ``step``, and a last one that was cut short by a crash.

    A line that cannot be read for another reason was edited: it stays, and whoever reads the curves is told of it.
    """
    if not path.exists():
        return
    lines = path.read_bytes().splitlines(keepends=True)
    kept = []
    for line in lines:
        if _is_later(line, step, is_last=line is lines[-1]):
            continue
        kept.append(line if line.endswith(b"\n") else line + b"\n")
    with atomic_write(path) as temporary:
        temporary.write_bytes(b"".join(kept))


def _is_later(line: bytes, step: int, *, is_last: bool) -> bool:
    try:
        entry = json.loads(line)
    except (ValueError, RecursionError):
        return is_last
    found = entry.get("step") if isinstance(entry, dict) else None
    return isinstance(found, int) and found > step
