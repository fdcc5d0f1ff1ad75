"""A GPU in one command: is it right, how fast is it, and how many workers fill it. Under ten minutes, no network.

    PYTHONPATH=. python benchmarks/gpu.py [--out FOLDER] [--minutes 9] [--only SECTION ...]
    PYTHONPATH=. python benchmarks/gpu.py --tiny        the same on the CPU with tiny models, in a minute or two

It needs torch, transformers and what training needs, nothing of what reads corpora or draws reports. Sections:

    checks    the loss on the GPU against the CPU's in fp32; a stopped and resumed stage against an undisturbed one, bit
              for bit, with deterministic algorithms; the micro batch that is chosen for a large batch, and its memory
    speed     tokens per second, share of the peak rate (MFU) and memory of a 135M and a 1B stage, eager and compiled,
              against transformers' Trainer and a minimal compiled loop
    workers   pico and nano by 1, 2, 4, ... worker processes on one GPU
    ranks     where there are two GPUs: FSDP2 on both against one of them

Every section ends with what it found, also when another one fails; what the time did not allow is named. Loops that
fit the memory together take turns; otherwise each runs alone. FOLDER gets gpu.json and gpu.md.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))
import train

HERE = Path(__file__).parent
MODELS: dict[str, dict[str, Any]] = {
    "135m": {**train.SIZES["135m"], "seq_len": 1024, "batch_size": 16},
    "1b": {"vocab_size": 49152, "hidden_size": 1728, "intermediate_size": 4608, "num_layers": 24, "num_heads": 27,
           "num_kv_heads": 27, "seq_len": 1024, "batch_size": 4, "tie_embeddings": False},
}  # fmt: skip
TINY = {**train.SIZES["pico"], "vocab_size": 256, "seq_len": 32, "batch_size": 4}
RIVALS = {
    "135m": ("ours", "ours-eager", "trainer", "trainer-compiled", "minimal"),
    "1b": ("ours", "ours-eager", "trainer", "minimal"),
    "tiny": ("ours-eager", "trainer"),
}
TOGETHER_BYTES = 60 * 2**30  # of GPU memory, from which the loops of a 135M stage take turns
LEAST_SECONDS = {"checks": 30, "speed": 90, "workers": 45, "ranks": 60}  # left, for a section to be begun
Row = dict[str, Any]


class Clock:
    """The time that the whole call has."""

    def __init__(self, minutes: float) -> None:
        self._end = time.monotonic() + 60 * minutes
        self.left_out: list[str] = []

    @property
    def left(self) -> float:
        """Seconds until the end."""
        return self._end - time.monotonic()

    def allows(self, what: str, seconds: float) -> bool:
        """Whether so many seconds are left; notes what is left out otherwise."""
        if self.left >= seconds:
            return True
        self.left_out.append(what)
        return False


def machine() -> Row:
    """What the figures belong to."""
    import torch
    import transformers

    gpus = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    memory = torch.cuda.get_device_properties(0).total_memory if gpus else 0
    versions = {"torch": torch.__version__, "transformers": transformers.__version__, "cuda": torch.version.cuda}
    return {"gpus": gpus, "gpu_bytes": memory, "python": sys.version.split()[0], "cpus": os.cpu_count(), **versions}


def check(name: str, settings: Row, clock: Clock) -> Row:
    """One check of gpu_checks.py in a process of its own; its finding, or how it failed."""
    command = [sys.executable, str(HERE / "gpu_checks.py"), name, json.dumps(settings)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=max(10.0, clock.left), env=environment())
    except subprocess.TimeoutExpired:
        return {"check": name, "failed": "the time was over"}
    lines = [line for line in done.stdout.splitlines() if line.startswith(train.MARK)]
    if done.returncode or not lines:
        return {"check": name, "failed": (done.stderr.strip().splitlines() or ["no output"])[-1][:300]}
    return {"check": name, **json.loads(lines[-1].removeprefix(train.MARK))}


def environment() -> dict[str, str]:
    """Of the processes that are started."""
    paths = [str(HERE.parent), *filter(None, [os.environ.get("PYTHONPATH")])]
    return os.environ | {"PYTHONPATH": os.pathsep.join(paths), "TOKENIZERS_PARALLELISM": "false"}


def checks(options: argparse.Namespace, found: Row, clock: Clock) -> None:
    """Whether it computes what it should."""
    model = TINY if options.tiny else train.SIZES["nano"]
    large = TINY if options.tiny else MODELS["135m"] | {"batch_size": 512}
    wanted = [("loss", model), ("resume", model), ("resume_compiled", model), ("micro_batch", large)]
    rows = found.setdefault("checks", [])
    for name, settings in wanted:
        if clock.allows(f"check {name}", LEAST_SECONDS["checks"]):
            rows.append(check(name, settings | {"precision": "bf16" if name == "micro_batch" else "fp32"}, clock))


def stopped(rival: "train.Rival") -> None:
    """Ends a loop's process and waits for its memory to be free."""
    rival.process.kill()
    rival.process.wait()


def warm(keys: tuple[str, ...], settings: Row) -> list["train.Rival"]:
    """Starts loops, all at once, and lets each compile and make two steps; those that fail are left out."""
    rivals = [train.start(key, settings, sys.executable, subprocess.DEVNULL) for key in keys]

    def first(rival: "train.Rival") -> bool:
        report = rival.turn(2)
        rival.first_seconds = report["wall_seconds"] if report else 0.0
        return report is not None

    with ThreadPoolExecutor(len(rivals)) as pool:
        alive = list(pool.map(first, rivals))
    for rival, is_alive in zip(rivals, alive, strict=True):
        if not is_alive:
            stopped(rival)
    return [rival for rival, is_alive in zip(rivals, alive, strict=True) if is_alive]


def timed(rival: "train.Rival", steps: int) -> None:
    """One turn of a loop, noted."""
    report = rival.turn(steps)
    if report is not None:
        rival.wall.append(report["wall_seconds"] / report["steps"])


def speed(options: argparse.Namespace, found: Row, clock: Clock) -> None:
    """Stages of a model against other loops."""
    for size in ("tiny",) if options.tiny else ("135m", "1b"):
        if not clock.allows(f"speed of {size}", LEAST_SECONDS["speed"]):
            continue
        settings = (TINY if options.tiny else MODELS[size]) | {
            "precision": "fp32" if options.tiny else "bf16",
            "threads": 1 if options.tiny else 4,
        }
        together = options.tiny or (size == "135m" and found["machine"]["gpu_bytes"] >= TOGETHER_BYTES)
        keys = RIVALS[size]
        rows: list[Row] = []
        for group in [keys] if together else [(key,) for key in keys]:
            if not clock.allows(f"speed of {size}: {', '.join(group)}", LEAST_SECONDS["speed"] / 2):
                continue
            rivals = warm(group, settings)
            for _ in range(options.rounds):
                for rival in rivals:
                    timed(rival, options.steps)
            rows += [speed_row(size, rival, settings, found["machine"], together) for rival in rivals if rival.wall]
            for rival in rivals:
                stopped(rival)
            failed = set(group) - {rival.key for rival in rivals}
            rows += [{"size": size, "loop": train.NAMES[key], "failed": True} for key in sorted(failed)]
        ours = next((row["tokens_per_second"] for row in rows if row["loop"].startswith("indelible")), None)
        for row in rows:
            if ours and "tokens_per_second" in row:
                row["ours_is_times"] = ours / row["tokens_per_second"]
        found.setdefault("speed", []).extend(rows)


def speed_row(size: str, rival: "train.Rival", settings: Row, host: Row, together: bool) -> Row:
    """The figures of a loop: medians over its turns, by the clock."""
    from indelible.train.device import PEAK_BF16_FLOPS

    seconds = statistics.median(rival.wall)
    tokens = settings["batch_size"] * settings["seq_len"]
    flops = 3 * sum(2 * batch * m * k * n for batch, m, k, n in train.shapes(settings, tokens))
    peak = PEAK_BF16_FLOPS.get(host["gpus"][0]) if host["gpus"] else None
    return {
        "size": size,
        "loop": train.NAMES[rival.key],
        "batch": f"{settings['batch_size']} x {settings['seq_len']}",
        "precision": settings["precision"],
        "in_turns": together,
        "tokens_per_second": tokens / seconds,
        "mfu": flops / seconds / peak if peak else None,
        "peak_gib": rival.peak_bytes / 2**30,
        "first_steps_seconds": rival.first_seconds,
    }


def workers(options: argparse.Namespace, found: Row, clock: Clock) -> None:
    """Small models by several processes on one device, all at work at the same time."""
    for size in ("tiny",) if options.tiny else ("pico", "nano"):
        settings = (TINY if options.tiny else train.SIZES[size]) | {
            "precision": "fp32" if options.tiny else "bf16",
            "threads": 1,
        }
        for count in (2,) if options.tiny else (1, 2, 4, 8, 16):
            if not clock.allows(f"{count} workers of {size}", LEAST_SECONDS["workers"]):
                continue
            rivals = warm(("ours-eager" if options.tiny else "ours",) * count, settings)
            begun = time.perf_counter()
            with ThreadPoolExecutor(max(1, len(rivals))) as pool:
                reports = list(pool.map(lambda rival: rival.turn(options.worker_steps), rivals))
            seconds = time.perf_counter() - begun
            for rival in rivals:
                stopped(rival)
            done = sum(int(report["steps"]) for report in reports if report)
            rate = done * settings["batch_size"] * settings["seq_len"] / seconds
            row = {"size": size, "workers": count, "that_ran": len(rivals), "tokens_per_second": rate}
            found.setdefault("workers", []).append(row)


def ranks(options: argparse.Namespace, found: Row, clock: Clock) -> None:
    """FSDP2 over two devices: the same losses as on one, and how fast."""
    if len(found["machine"]["gpus"]) < 2 and not options.tiny:
        clock.left_out.append("FSDP2: there are no two GPUs")
        return
    if clock.allows("FSDP2", LEAST_SECONDS["ranks"]):
        settings = TINY if options.tiny else MODELS["135m"]
        found["ranks"] = [check("fsdp", settings | {"precision": "fp32"}, clock)]


def markdown(found: Row) -> str:
    """The findings as tables."""
    host = found["machine"]
    place = ", ".join(host["gpus"]) or f"no GPU, {host['cpus']} CPU(s)"
    lines = [f"{place}; torch {host['torch']}, transformers {host['transformers']}, Python {host['python']}", ""]
    for section in ("checks", "speed", "workers", "ranks"):
        rows = found.get(section, [])
        if not rows:
            continue
        columns = list(dict.fromkeys(key for row in rows for key in row))
        lines += [f"### {section}", "", "| " + " | ".join(columns) + " |", "|---" * len(columns) + "|"]
        lines += ["| " + " | ".join(_cell(row.get(key)) for key in columns) + " |" for row in rows]
        lines.append("")
    if found["left_out"]:
        lines.append("Left out: " + "; ".join(found["left_out"]) + ".")
    return "\n".join(lines) + "\n"


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"
    return str(value).replace("|", "/").replace("\n", " ")


SECTIONS: dict[str, Callable[[argparse.Namespace, Row, Clock], None]] = {
    "checks": checks,
    "speed": speed,
    "workers": workers,
    "ranks": ranks,
}


def main() -> int:
    """Parses the command line, measures, writes gpu.json and gpu.md; 1 if a check failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("gpu-benchmark"))
    parser.add_argument("--minutes", type=float, default=9.0, help="for the whole call")
    parser.add_argument("--only", nargs="+", choices=SECTIONS, default=list(SECTIONS))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=10, help="optimizer steps of a turn")
    parser.add_argument("--worker-steps", type=int, default=200)
    parser.add_argument("--tiny", action="store_true", help="on the CPU with tiny models: tries the benchmark itself")
    options = parser.parse_args()
    if options.tiny:
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
        options.rounds, options.steps, options.worker_steps = 1, 2, 5
    clock = Clock(options.minutes)
    found: Row = {"machine": machine()}
    if not found["machine"]["gpus"] and not options.tiny:
        print("torch sees no CUDA GPU here; --tiny tries this benchmark on the CPU.", file=sys.stderr)
        return 2
    options.out.mkdir(parents=True, exist_ok=True)
    for name in options.only:
        print(f"{name} ...", flush=True)
        try:
            SECTIONS[name](options, found, clock)
        except Exception as error:
            found.setdefault("failed", {})[name] = f"{type(error).__name__}: {error}"[:300]
        found["left_out"] = clock.left_out
        (options.out / "gpu.json").write_text(json.dumps(found, indent=1))  # after each: a later one may be killed
        (options.out / "gpu.md").write_text(markdown(found))
    print(markdown(found))
    for name, reason in found.get("failed", {}).items():
        print(f"{name} failed: {reason}")
    rows = found.get("checks", []) + found.get("ranks", [])
    return int(bool(found.get("failed")) or any("failed" in row or row.get("ok") is False for row in rows))


if __name__ == "__main__":
    sys.exit(main())
