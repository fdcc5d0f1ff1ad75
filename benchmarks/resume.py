"""What saving resume states costs: the stage loop at the default interval, timed, and one save of a large model.

    python benchmarks/resume.py [--scale pico] [--seconds 75] [--large 135m]

First a real training loop of a scale's model runs on random tokens for a while and saves whenever it is due; the share
of the time that went into saving is printed. Then one state of a larger model is written, with what it would cost a
stage: the loop waits after a save until the next one is at most 1 % of the time.
"""

import argparse
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "support"))

import torch
from tiny_engine import TINY, layered, loop_of
from token_folder import plan_on_arrays

from indelible.train.loop import RESUME_SHARE, SAVE_BYTES_PER_SECOND, Loop

DEFAULT_SECONDS = 30.0  # execution.resume_seconds


class OutOfTime(Exception):
    """Ends the loop; the loop saves once more then, which is not counted."""


def planned(folder: Path, scale: str, vocabulary: int, steps: int) -> Path:
    """A study of a scale whose pretraining has some steps of 16 windows of 128 tokens."""
    raw = layered({key: TINY[key] for key in ("name", "corpora", "pipeline", "seeds")}, {"scale": scale})
    stage = {"tokens": steps * 16 * 128, "global_batch_size": 16}
    raw |= {"seq_len": 128, "pretrain": stage, "evaluation": {"windows": 2, "stop_windows": 2}}
    raw |= {"execution": {"device": "cpu", "compile": "off", "threads": 1}}
    tokens = max(steps * 16 * 128 + 1024, 350_000)
    return plan_on_arrays(folder, raw, vocabulary, tokens=tokens)


def timed_saves(loop: Loop, spent: list[float]) -> None:
    """Makes a loop note the seconds of each save."""
    save = loop.save

    def timed() -> None:
        begun = time.monotonic()
        save()
        spent.append(time.monotonic() - begun)

    loop.save = timed


def measured_share(scale: str, seconds: float, folder: Path) -> None:
    """Runs the loop for some seconds at the default interval and prints the share of saving."""
    loop = loop_of(planned(folder, scale, 2048, 4000), execution={"resume_seconds": DEFAULT_SECONDS})
    spent: list[float] = []
    timed_saves(loop, spent)
    begun = time.monotonic()

    def stop_in_time(now: object) -> None:
        if time.monotonic() - begun > seconds:
            raise OutOfTime

    loop.context = replace(loop.context, progress=stop_in_time)
    reason = "the time was over"
    try:
        reason = loop.run()
    except OutOfTime:
        spent.pop()
    total = time.monotonic() - begun
    print(
        f"{scale}: {loop.state.step} steps in {total:.1f} s ({reason}), {len(spent)} saves of "
        f"{', '.join(f'{s:.3f}' for s in spent)} s: {100 * sum(spent) / total:.3f} % of the time"
    )


def one_save(scale: str, folder: Path) -> None:
    """Writes one state of a scale's model, with the moments of a first update, and prints what follows from it."""
    loop = loop_of(planned(folder, scale, 49_152, 100))
    for weight in loop.program.trainable().values():
        weight.grad = torch.zeros_like(weight)
    loop.optimizer.step()
    assumed = loop._save_seconds
    spent: list[float] = []
    timed_saves(loop, spent)
    loop.save()
    size = sum(file.stat().st_size for file in (loop.context.run_dir / "resume").rglob("*.safetensors"))
    first = max(DEFAULT_SECONDS, assumed / RESUME_SHARE)
    later = max(DEFAULT_SECONDS, spent[0] / RESUME_SHARE)
    print(
        f"{scale}: a state of {size / 2**20:.0f} MiB in {spent[0]:.2f} s; the first save is due after {first:.0f} s "
        f"(assuming {SAVE_BYTES_PER_SECOND / 1e6:.0f} MB/s), the next after {later:.0f} s: "
        f"{100 * spent[0] / (spent[0] + first):.2f} % and {100 * spent[0] / (spent[0] + later):.2f} % of the time"
    )


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scale", default="pico")
    parser.add_argument("--seconds", type=float, default=75.0)
    parser.add_argument("--large", default="135m")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        measured_share(options.scale, options.seconds, Path(folder) / "timed")
        one_save(options.large, Path(folder) / "large")


if __name__ == "__main__":
    main()
