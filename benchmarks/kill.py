"""A study under a random killer against an undisturbed run: bitwise equal, nothing done twice, nothing left over.

    python benchmarks/kill.py [--kills 200] [--seed 0] [--workers 2] [--study FILE] [--out DIR]

The killer sends SIGKILL at random moments, three times in four to a worker and else to the launcher with everything
it started, and the same command is given again. It goes on until the number of kills is reached: if the study ends
before, its next copy begins in a fresh folder.
"""

import argparse
import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

from indelible.records import Evaluation, StageResult
from indelible.scheduling.engine import ENGINE
from indelible.scheduling.launcher import launch
from indelible.scheduling.lease import latest_generation, read_beat, read_record
from indelible.scheduling.snapshot import snapshot_of
from indelible.study.load import load_study, resolve_study
from indelible.workflow.planning import plan_study
from indelible.workflow.preparing import write_plan

LAUNCH = (
    "import sys; from pathlib import Path; from indelible.scheduling.launcher import launch\n"
    "sys.exit(launch(Path(sys.argv[1]), int(sys.argv[2]), max_attempts=50, engine=sys.argv[3]).exit_code)"
)
MEAN_PAUSE_SECONDS = 1.5  # before a kill, counted from when somebody trains: a worker imports torch for seconds


def study() -> dict[str, Any]:
    """Three stages with early stopping, exposure, replay, dropout and a curve, each a few seconds long."""
    language = {"kind": "synthetic", "num_documents": 1500, "document_words": 200, "num_words": 400}
    return {
        "name": "kill",
        "scale": "pico",
        "corpora": {name: {**language, "language": index} for index, name in enumerate(("pre", "post", "ft"), 1)},
        "pipeline": {"pre": "pre", "post": "post", "ft": "ft"},
        "pretrain": {"tokens": 100_000},
        "posttrain": {"tokens": 20_000, "max_tokens": 60_000, "dropout": 0.05, "replay_fraction": 0.05},
        "finetune": {"tokens": 40_000, "lr": [1e-4, 1e-3]},
        "exposure": {"fraction": [0, 1.0]},
        "stages": {"finetune": {"watch": {"corpora": ["post"]}}},
        "data": {"leaks": {"near": False}},
        "execution": {"compile": "off", "resume_seconds": 0.5},
        "seeds": [0, 1],
    }


def prepare(out: Path, file: str | None) -> None:
    """Writes the plan and the tokens of the study, or of a study file."""
    write_plan(plan_study(load_study(file) if file else resolve_study(study())), out)


def outcome(out: Path) -> dict[str, Any]:
    """What must not depend on kills: weights, steps and data order of every run."""
    kept = {"status", "stop_reason", "steps", "best_step", "best_stop_loss", "tokens_seen"}
    kept |= {"weights_sha256", "ledger_sha256", "watched"}
    found = {}
    for path in sorted(out.glob("runs/*/result.json")):
        result = StageResult.read(path)
        if result is not None:
            found[path.parent.name] = result.model_dump(include=kept)
    return found


def losses(out: Path) -> dict[str, Any]:
    """What must not depend on kills: every evaluation, its losses by document included."""
    found = {}
    for path in sorted(out.glob("evaluations/*/*.json")):
        evaluation = Evaluation.read(path) if not path.name.startswith("failure") else None
        if evaluation is not None:
            documents = path.with_name(f"{evaluation.id}.documents.parquet").read_bytes()
            found[f"{path.parent.name}/{path.stem}"] = (
                evaluation.model_dump(exclude={"seconds", "environment"}),
                hashlib.sha256(documents).hexdigest(),
            )
    return found


def metrics(out: Path) -> dict[str, list[Any]]:
    """Training and evaluation lines of every run, without speeds."""
    found = {}
    for path in sorted(out.glob("runs/*/metrics.jsonl")):
        lines = [json.loads(line) for line in path.read_text().splitlines()]
        found[path.parent.name] = [
            {key: value for key, value in line.items() if not key.startswith("speed/")} for line in lines
        ]
    return found


def leftovers(out: Path) -> list[str]:
    """Temporary files and resume states."""
    return sorted(str(path.relative_to(out)) for pattern in ("*.tmp", "resume") for path in out.rglob(pattern))


def finishes(out: Path) -> Counter[int]:
    """How many attempts of each run ended as done; a worker killed after writing its result counts as none."""
    counts: Counter[int] = Counter()
    for run_dir in out.glob("runs/*"):
        ends = [read_beat(run_dir, n)[1].get("outcome") for n in range(1, latest_generation(run_dir) + 1)]
        counts[ends.count("done")] += 1
    return counts


def attempts(out: Path) -> int:
    """Attempts of all runs and evaluations."""
    return sum(latest_generation(folder) for pattern in ("runs/*", "evaluations/*") for folder in out.glob(pattern))


def _children(pid: int) -> list[int]:
    text = subprocess.run(("ps", "-o", "pid=", "--ppid", str(pid)), capture_output=True, text=True).stdout
    return [int(word) for word in text.split()]


def _kill(pids: list[int]) -> None:
    for pid in pids:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue


def wait_for_work(out: Path, launcher: "subprocess.Popen[bytes]") -> None:
    """Returns once some worker trains, or the launcher has ended."""
    while launcher.poll() is None:
        beats = [state.lease.beat for state in snapshot_of(out).running if state.lease is not None]
        if any(beat.get("phase") in ("training", "evaluating", "saving") for beat in beats):
            return
        time.sleep(0.2)


def disturb(
    out: Path, kills: int, workers: int, rng: random.Random, engine: str = ENGINE, pause: float = MEAN_PAUSE_SECONDS
) -> Counter[str]:
    """Runs the study to its end, killing at most ``kills`` times; how often whom."""
    done: Counter[str] = Counter()
    while True:
        launcher = subprocess.Popen(
            [sys.executable, "-c", LAUNCH, str(out), str(workers), engine],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.STDOUT,
        )
        while launcher.poll() is None:
            wait_for_work(out, launcher)
            try:
                launcher.wait(rng.uniform(0, 2 * pause) if done.total() < kills else None)
            except subprocess.TimeoutExpired:
                victims = _children(launcher.pid)
                if rng.random() < 0.75 and victims:
                    _kill([rng.choice(victims)])
                    done["worker"] += 1
                else:
                    _kill([launcher.pid, *(victims if rng.random() < 0.5 else [])])
                    done["launcher"] += 1
                    launcher.wait()
        if launcher.returncode >= 0:
            done[f"exit {launcher.returncode}"] += 1
            if launcher.returncode == 0 or done["exit 1"] > 5:
                return done


def cut_short(out: Path) -> int:
    """Attempts that were cut short by a kill."""
    cut = 0
    for run_dir in out.glob("runs/*"):
        for generation in range(1, latest_generation(run_dir) + 1):
            ended = read_beat(run_dir, generation)[1].get("outcome")
            cut += ended is None and read_record(run_dir, generation) is not None
    return cut


def measure(folder: Path, kills: int, workers: int, seed: int, file: str | None) -> dict[str, Any]:
    """The whole comparison."""
    calm, rng, begun = folder / "calm", random.Random(seed), time.monotonic()
    prepare(calm, file)
    assert launch(calm, workers).exit_code == 0
    expected, expected_metrics, expected_losses = outcome(calm), metrics(calm), losses(calm)
    total: Counter[str] = Counter()
    counts = {"runs": len(expected), "evaluations": len(expected_losses)}
    counts |= {"rounds": 0, "attempts": 0, "attempts_cut_short": 0}
    differing, twice, left = 0, 0, []
    while total["worker"] + total["launcher"] < kills:
        out = folder / f"round{counts['rounds']}"
        shutil.copytree(calm, out, ignore=shutil.ignore_patterns("runs", "evaluations", "workers"))
        total += disturb(out, kills - total["worker"] - total["launcher"], workers, rng)
        found = outcome(out)
        differing += sum(found.get(run) != value for run, value in expected.items()) + len(
            found.keys() - expected.keys()
        )
        differing += (metrics(out) != expected_metrics) + (losses(out) != expected_losses)
        twice += sum(count for ends, count in finishes(out).items() if ends > 1)
        left += leftovers(out)
        counts["rounds"] += 1
        counts["attempts"] += attempts(out)
        counts["attempts_cut_short"] += cut_short(out)
        print(json.dumps({**counts, **total, "differing": differing, "twice": twice}), flush=True)
    return {
        **counts,
        "kills": dict(total),
        "runs_that_differ": differing,
        "runs_done_twice": twice,
        "leftovers": left,
        "seconds": round(time.monotonic() - begun),
    }


def main() -> int:
    """Command line; exit code 1 if anything differs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--study", help="a study file, or the name of a shipped study; one of its own by default")
    parser.add_argument("--out", type=Path, help="folder to keep; a temporary one by default")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        found = measure(options.out or Path(folder), options.kills, options.workers, options.seed, options.study)
    print(json.dumps(found, indent=1))
    return 1 if found["runs_that_differ"] or found["runs_done_twice"] or found["leftovers"] else 0


if __name__ == "__main__":
    sys.exit(main())
