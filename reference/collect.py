"""Writes what reference runs cost and with which versions they were made: cost.json and versions.json.

python reference/collect.py DIR [DIR ...]

Counts every finished stage run in the folders once, whichever study asked for it.
"""

import json
import sys
from collections import Counter
from pathlib import Path
from typing import Any


def measures(result: dict[str, Any]) -> dict[str, float]:
    """What one stage run took."""
    hours = result["total_seconds"] * result["environment"]["threads"] / 3600
    return {"runs": 1, "tokens": result["train_tokens"], "flops": result["flops"], "core_hours": hours}


def main(folders: list[Path]) -> None:
    """Reads the results in study folders; writes beside this file."""
    paths = {path.parent.name: path for folder in folders for path in sorted(folder.glob("runs/*/result.json"))}
    results = [json.loads(path.read_text(encoding="utf-8")) for path in paths.values()]
    stages: dict[str, Counter[str]] = {}
    for result in results:
        entry = stages.setdefault(result["stage"], Counter())
        entry.update({**measures(result), f"stopped by {result['stop_reason']}": 1})
    cost: dict[str, Any] = {
        "stage_runs": len(results),
        "core_hours": round(sum(entry["core_hours"] for entry in stages.values()), 3),
        "stages": {stage: {key: round(value, 3) for key, value in entry.items()} for stage, entry in stages.items()},
    }
    made_with = Counter(json.dumps({**r["environment"], "precision": r["precision"]}, sort_keys=True) for r in results)
    versions = [{"stage_runs": count, **json.loads(text)} for text, count in made_with.most_common()]
    here = Path(__file__).parent
    (here / "cost.json").write_text(json.dumps(cost, indent=1) + "\n", encoding="utf-8")
    (here / "versions.json").write_text(json.dumps(versions, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main([Path(name) for name in sys.argv[1:]])
