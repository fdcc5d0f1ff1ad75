"""Writes what a sitting of the reference runs cost and with which versions it was made: cost.json and versions.json.

python reference/collect.py SITTING DIR [DIR ...]

Counts every finished stage run in the folders once, whichever study asked for it, and enters it under the sitting's
name beside the sittings that are there. A run that a later sitting trained again was paid for again, and counts.
"""

import json
import sys
from collections import Counter
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent


def measures(result: dict[str, Any]) -> dict[str, float]:
    """What one stage run took."""
    hours = result["total_seconds"] * result["environment"]["threads"] / 3600
    return {"runs": 1, "tokens": result["train_tokens"], "flops": result["flops"], "core_hours": hours}


def cost_of(results: list[dict[str, Any]]) -> dict[str, Any]:
    """Stage runs and core-hours, in all and by stage."""
    stages: dict[str, Counter[str]] = {}
    for result in results:
        entry = stages.setdefault(result["stage"], Counter())
        entry.update({**measures(result), f"stopped by {result['stop_reason']}": 1})
    return {
        "stage_runs": len(results),
        "core_hours": round(sum(entry["core_hours"] for entry in stages.values()), 3),
        "stages": {stage: {key: round(value, 3) for key, value in entry.items()} for stage, entry in stages.items()},
    }


def versions_of(results: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The environments that the runs were made in, the most frequent first."""
    made_with = Counter(json.dumps({**r["environment"], "precision": r["precision"]}, sort_keys=True) for r in results)
    return [{"stage_runs": count, **json.loads(text)} for text, count in made_with.most_common()]


def enter(name: str, sitting: str, value: Any) -> dict[str, Any]:
    """All sittings of a file of this folder, with this one's value."""
    path = HERE / name
    return {**(json.loads(path.read_text(encoding="utf-8"))["sittings"] if path.exists() else {}), sitting: value}


def write(name: str, value: dict[str, Any]) -> None:
    """Writes a file of this folder."""
    (HERE / name).write_text(json.dumps(value, indent=1) + "\n", encoding="utf-8")


def main(sitting: str, folders: list[Path]) -> None:
    """Reads the results in study folders; writes beside this file."""
    paths = {path.parent.name: path for folder in folders for path in sorted(folder.glob("runs/*/result.json"))}
    results = [json.loads(path.read_text(encoding="utf-8")) for path in paths.values()]
    sittings = enter("cost.json", sitting, cost_of(results))
    totals = {key: round(sum(one[key] for one in sittings.values()), 3) for key in ("stage_runs", "core_hours")}
    write("cost.json", {**totals, "sittings": sittings})
    write("versions.json", {"sittings": enter("versions.json", sitting, versions_of(results))})


if __name__ == "__main__":
    main(sys.argv[1], [Path(name) for name in sys.argv[2:]])
