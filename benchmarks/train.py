"""Speed of the stage loop against other loops, and against the matrix products alone, in one call and in turns.

    python benchmarks/train.py [--size pico] [--precision bf16] [--threads 1] [--rounds 5] [--litgpt PYTHON]

Same Llama model, batch, sequence length, optimizer and random tokens for all: this project's loop; transformers'
`Trainer` with default settings, and compiled; litgpt's pretraining; a minimal compiled loop. Each runs in a process of
its own and has its turn in every round; the median over the rounds counts. With one thread the rate is tokens per
second of processor time, which other work on the machine disturbs least; with more it is by the clock.
The last line is the limit: the model's own matrix products, alone, each in its faster dtype.
litgpt is left out, with a message, where it is not installed; PYTHON may be the interpreter of another environment.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))
from train_rivals import MARK, shapes

SIZES = {
    "pico": {"vocab_size": 2048, "hidden_size": 64, "intermediate_size": 192, "num_layers": 2, "num_heads": 2,
             "num_kv_heads": 1, "seq_len": 128, "batch_size": 16},
    "nano": {"vocab_size": 4096, "hidden_size": 128, "intermediate_size": 384, "num_layers": 4, "num_heads": 4,
             "num_kv_heads": 2, "seq_len": 256, "batch_size": 16},
    "135m": {"vocab_size": 49152, "hidden_size": 576, "intermediate_size": 1536, "num_layers": 30, "num_heads": 9,
             "num_kv_heads": 3, "seq_len": 512, "batch_size": 2},
}  # fmt: skip
STEPS = {"pico": 20, "nano": 5, "135m": 1}  # of a turn
NAMES = {
    "ours": "indelible",
    "ours-eager": "indelible, not compiled",
    "trainer": "Trainer, default settings",
    "trainer-compiled": "Trainer, torch_compile",
    "litgpt": "litgpt pretrain",
    "minimal": "minimal compiled loop",
    "products": "matrix products alone",
}


@dataclass
class Rival:
    """One loop in its process."""

    key: str
    process: subprocess.Popen[str]
    first_seconds: float = 0.0  # by the clock: first two steps, with compilation
    peak_bytes: int = 0
    cpu: list[float] = field(default_factory=list)  # seconds a step, by round
    wall: list[float] = field(default_factory=list)

    def turn(self, steps: int) -> dict[str, float] | None:
        """Lets it run some steps; None if it died."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        try:
            print(steps, file=self.process.stdin, flush=True)
        except BrokenPipeError:
            return None
        for line in self.process.stdout:
            if line.startswith(MARK):
                report: dict[str, float] = json.loads(line.removeprefix(MARK))
                self.peak_bytes = int(report["peak_bytes"])
                return report
        return None


def start(key: str, settings: dict[str, Any], python: str, errors: int | None) -> Rival:
    """Starts a loop, which then waits for its first turn."""
    loop, _, form = key.partition("-")
    chosen = json.dumps(settings | {"compile": form == "compiled", "ours_compile": "off" if form == "eager" else "on"})
    command = [python, str(Path(__file__).with_name("train_rivals.py")), loop, chosen]
    here = str(Path(__file__).parents[1])
    threads = str(settings["threads"])
    environment = os.environ | {"OMP_NUM_THREADS": threads, "PYTHONPATH": here, "TOKENIZERS_PARALLELISM": "false"}
    pipe = subprocess.PIPE
    return Rival(key, subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=errors, text=True, env=environment))


def has_litgpt(python: str) -> bool:
    """Whether an interpreter can import litgpt."""
    return subprocess.run([python, "-c", "import litgpt"], capture_output=True, check=False).returncode == 0


def measure(keys: list[str], settings: dict[str, Any], options: argparse.Namespace) -> list[Rival]:
    """All loops in turns; those that fail are left out, with a message."""
    rivals = []
    for key in keys:
        python = options.litgpt if key == "litgpt" else sys.executable
        rival = start(key, settings, python, None if options.verbose else subprocess.DEVNULL)
        report = rival.turn(2)
        if report is None:
            print(f"{NAMES[key]}: ended with an error; --verbose shows it", flush=True)
            continue
        rival.first_seconds = report["wall_seconds"]
        rivals.append(rival)
    for _ in range(options.rounds):
        for rival in rivals:
            report = rival.turn(options.steps)
            if report is not None:
                rival.cpu.append(report["cpu_seconds"] / report["steps"])
                rival.wall.append(report["wall_seconds"] / report["steps"])
    for rival in rivals:
        rival.process.kill()
    return [rival for rival in rivals if rival.cpu]


def table(rivals: list[Rival], settings: dict[str, Any]) -> list[dict[str, Any]]:
    """One row a loop: rates in tokens per second, and how many times as fast the first one is."""
    tokens = settings["batch_size"] * settings["seq_len"]
    flops = 3 * sum(2 * batch * m * k * n for batch, m, k, n in shapes(settings, tokens))
    rows = []
    for rival in rivals:
        seconds = statistics.median(rival.cpu if settings["threads"] == 1 else rival.wall)
        rows.append(
            {
                "loop": NAMES[rival.key],
                "tokens_per_second": tokens / seconds,
                "ms_per_step": 1e3 * seconds,
                "wall_tokens_per_second": tokens / statistics.median(rival.wall),
                "gflops": flops / seconds / 1e9,
                "first_steps_seconds": rival.first_seconds,
                "peak_gib": rival.peak_bytes / 2**30,
            }
        )
    for row in rows:
        row["ours_is_times"] = rows[0]["tokens_per_second"] / row["tokens_per_second"]
    return rows


def main() -> None:
    """Parses the command line, measures, prints Markdown and, if asked, writes JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=SIZES, default="pico")
    parser.add_argument("--precision", choices=["bf16", "fp32"], default="bf16")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, help="optimizer steps of a turn")
    parser.add_argument("--batch-size", type=int, help="sequences a step")
    parser.add_argument("--seq-len", type=int)
    parser.add_argument("--only", nargs="+", choices=NAMES, default=[key for key in NAMES if key != "ours-eager"])
    parser.add_argument("--litgpt", metavar="PYTHON", default=sys.executable, help="interpreter that has litgpt")
    parser.add_argument("--json", type=Path, help="file for the figures")
    parser.add_argument("--verbose", action="store_true", help="show what the loops print to stderr")
    options = parser.parse_args()
    options.steps = options.steps or STEPS[options.size]
    settings = SIZES[options.size] | {"precision": options.precision, "threads": options.threads}
    settings |= {key: value for key in ("batch_size", "seq_len") if (value := getattr(options, key)) is not None}
    keys = [key for key in NAMES if key in options.only]
    if "litgpt" in keys and not has_litgpt(options.litgpt):
        print("litgpt is not installed and is left out; --litgpt PYTHON names an interpreter that has it")
        keys.remove("litgpt")
    rows = table(measure(keys, settings, options), settings)
    shape = f"{settings['batch_size']} x {settings['seq_len']} tokens a step"
    print(f"{options.size}, {options.precision}, {options.threads} thread(s), {shape}", end="")
    print(f", {options.rounds} rounds of {options.steps} steps\n")
    print("| loop | tokens/s | ms a step | indelible is x times | GFLOP/s of products | first 2 steps, s | peak GiB |")
    print("|---|---|---|---|---|---|---|")
    for row in rows:
        rates = f"{row['tokens_per_second']:,.0f} | {row['ms_per_step']:.1f} | {row['ours_is_times']:.2f}"
        rest = f"{row['gflops']:.0f} | {row['first_steps_seconds']:.1f} | {row['peak_gib']:.2f}"
        print(f"| {row['loop']} | {rates} | {rest} |")
    if options.json:
        options.json.write_text(json.dumps({"settings": settings, "loops": rows}, indent=1))


if __name__ == "__main__":
    main()
