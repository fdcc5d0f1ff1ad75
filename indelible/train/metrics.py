"""metrics.jsonl: one JSON object a line as a stage trains; after a resume each step stands once."""

import json
import math
from pathlib import Path
from typing import Any

from indelible.files import write_text


def append_line(path: Path, line: dict[str, Any]) -> None:
    """Appends a line; numbers that are not finite become strings, which JSON has no other way to say."""
    safe = {key: str(v) if isinstance(v, float) and not math.isfinite(v) else v for key, v in line.items()}
    with open(path, "a", encoding="utf-8") as handle:
        handle.write(json.dumps(safe) + "\n")


def cut_metrics(path: Path, step: int) -> None:
    """Drops the lines of ``path`` that are later than ``step`` or were cut short by a crash."""
    if not path.exists():
        return
    kept = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            entry = json.loads(line)
        except json.JSONDecodeError:
            break
        if entry["step"] > step:
            break
        kept.append(line + "\n")
    write_text(path, "".join(kept))
