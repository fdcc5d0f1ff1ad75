"""Writes what a reference run cost and with which versions it was made: cost.json and versions.json.

python reference/collect.py DIR
"""

import json
import sys
from collections import Counter
from pathlib import Path
from typing import Any


def main(folder: Path) -> None:
    """Reads the plan and the results of a study folder; writes beside this file."""
    plan = json.loads((folder / "plan.json").read_text(encoding="utf-8"))
    paths = [folder / "runs" / run["id"] / "result.json" for run in plan["stage_runs"]]
    results = [json.loads(path.read_text(encoding="utf-8")) for path in paths if path.exists()]
    stages: dict[str, Counter[str]] = {}
    for result in results:
        entry = stages.setdefault(result["stage"], Counter())
        entry.update(
            {
                "runs": 1,
                "tokens": result["train_tokens"],
                "flops": result["flops"],
                "core_hours": result["total_seconds"] * result["environment"]["threads"] / 3600,
                f"stopped by {result['stop_reason']}": 1,
            }
        )
    cost: dict[str, Any] = {
        "planned_stage_runs": len(plan["stage_runs"]),
        "stages": {stage: {key: round(value, 3) for key, value in entry.items()} for stage, entry in stages.items()},
        "core_hours": round(sum(entry["core_hours"] for entry in stages.values()), 3),
        "saving_by_sharing": round(plan["summary"]["saving"], 2),
    }
    made_with = Counter(json.dumps({**r["environment"], "precision": r["precision"]}, sort_keys=True) for r in results)
    versions = [{"stage_runs": count, **json.loads(text)} for text, count in made_with.most_common()]
    here = Path(__file__).parent
    (here / "cost.json").write_text(json.dumps(cost, indent=1) + "\n", encoding="utf-8")
    (here / "versions.json").write_text(json.dumps(versions, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
