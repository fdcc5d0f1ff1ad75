"""What scheduling costs: a sweep of many short runs against its pure training time.

    python benchmarks/sweep.py [--runs 100] [--workers 2] [--out DIR]

The work is a real pico study of three stages on generated text. The overhead is
workers x wall time / (seconds in which runs trained and evaluated); 1.00 would be no overhead at all. The time in
which workers start and import torch is included in `overhead_ratio` and left out of `overhead_ratio_after_start`, which
begins with the first lease. Compiling happens in the first step of a worker and counts as training.
"""

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any

from indelible.host import physical_cores
from indelible.records import StageResult
from indelible.scheduling.launcher import launch
from indelible.study.load import resolve_study
from indelible.workflow.planning import plan_study
from indelible.workflow.preparing import write_plan


def study(num_finetunes: int) -> dict[str, Any]:
    """A study at pico with ``num_finetunes`` short stage-3 runs below one checkpoint of each arm."""
    language = {"kind": "synthetic", "num_documents": 1500, "document_words": 200, "num_words": 400}
    rates = [round(1e-4 * 1.05**index, 10) for index in range(num_finetunes // 2)]
    return {
        "name": "sweep",
        "scale": "pico",
        "corpora": {name: {**language, "language": index} for index, name in enumerate(("pre", "post", "ft"), 1)},
        "pipeline": {"pre": "pre", "post": "post", "ft": "ft"},
        "pretrain": {"tokens": 200_000},
        "posttrain": {"tokens": 40_000, "max_tokens": 120_000},
        "finetune": {"tokens": 60_000, "lr": rates},
        "exposure": {"fraction": [0, 1.0]},
        "data": {"leaks": {"near": False}},
        "seeds": [0],
    }


def measure(out: Path, num_runs: int, workers: int) -> dict[str, Any]:
    """Runs the sweep in an empty folder; seconds, counts and the ratio."""
    write_plan(plan_study(resolve_study(study(num_runs - 4))), out)
    begun, begun_at = time.monotonic(), time.time()
    code = launch(out, workers).exit_code
    wall = time.monotonic() - begun
    read = (StageResult.read(path) for path in out.glob("runs/*/result.json"))
    results = [result for result in read if result is not None]
    trained = sum(result.trained_seconds for result in results)
    evaluated = sum(result.eval_seconds for result in results)
    start = min(path.stat().st_mtime for path in out.glob("runs/*/lease/1.json")) - begun_at  # engine imported by then
    return {
        "exit_code": code,
        "runs": len(results),
        "workers": workers,
        "wall_seconds": round(wall, 1),
        "trained_seconds": round(trained, 1),
        "eval_seconds": round(evaluated, 1),
        "inside_runs_seconds": round(sum(result.total_seconds for result in results), 1),
        "start_seconds": round(start, 1),
        "overhead_ratio": round(workers * wall / (trained + evaluated), 3),
        "overhead_ratio_after_start": round(workers * (wall - start) / (trained + evaluated), 3),
    }


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=100)
    parser.add_argument("--workers", type=int, default=physical_cores())
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    if options.out is not None:
        print(json.dumps(measure(options.out, options.runs, options.workers), indent=1))
        return
    with tempfile.TemporaryDirectory() as folder:
        print(json.dumps(measure(Path(folder), options.runs, options.workers), indent=1))


if __name__ == "__main__":
    main()
