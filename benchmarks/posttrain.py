"""Post-training beside TRL: losses on the same batches, and the tokens a second of both, in turns.

    python benchmarks/posttrain.py [--threads 2] [--turns 3] [--compile off]

TRL is in the extra `bench`. Both train the same random Llama, in fp32 on the CPU: on the last answers of made-up
conversations, and by DPO on pairs of answers. The time of a step is wall time; TRL's is that between its callbacks,
without reading the batch.
"""

import argparse
import os
import tempfile
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

os.environ.setdefault("INDELIBLE_CACHE", tempfile.mkdtemp(prefix="indelible-bench-"))

import numpy as np
import posttrain_dpo as dpo
import posttrain_sft as sft
import torch

SMALL = {
    **sft.TINY,
    "batch_size": 8,
    "rows": 400,
    "seq_len": 256,
    "lr": 1e-3,
    "model": {"hidden_size": 192, "num_layers": 3, "num_heads": 6, "num_kv_heads": 2, "intermediate_size": 512},
}


def print_parity() -> None:
    """The largest difference of 20 losses, for each packing and for DPO."""
    print("parity: 20 steps, fp32, answers only, tiny random Llama")
    for name in (*sft.PACKINGS, "dpo"):
        folder = Path(tempfile.mkdtemp())
        ours, theirs = dpo.parity(folder) if name == "dpo" else sft.parity(folder, name)
        worst = max(abs(one - other) for one, other in zip(ours, theirs, strict=True))
        print(f"  {name:>9}: largest difference {worst:.1e} nats; first {ours[0]:.6f}, last {ours[-1]:.6f}")


Run = Callable[[], list[float]]  # seconds of each step


def print_rates(name: str, what: str, amount: float, turns: int, runs: Callable[[], dict[str, Run]]) -> None:
    """What is done a second: medians over turns of the steps behind the first, and of the ratio to ours in each turn.

    Args:
        name: of what is measured.
        what: its unit, plural.
        amount: of it in a step.
        turns: how often.
        runs: makes what is run in a turn, by name, ours among it.
    """
    rates: dict[str, list[float]] = {}
    for _ in range(turns):
        for who, run in runs().items():
            seconds = run()
            rates.setdefault(who, []).append(amount * (len(seconds) - 1) / sum(seconds[1:]))
    for who, found in rates.items():
        ratios = [ours / theirs for ours, theirs in zip(rates["ours"], found, strict=True)]
        ratio = f"; ours is {np.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f}) times that"
        spread = f"{min(found):,.0f} to {max(found):,.0f}"
        print(f"  {name:>9}, {who}: {np.median(found):,.0f} {what}/s ({spread}){ratio * (who != 'ours')}", flush=True)


def print_speed(threads: int, turns: int, compile_mode: str) -> None:
    """Tokens a second, padding left out."""
    torch.set_num_threads(threads)
    settings = {**SMALL, "threads": threads, "compile": compile_mode, "steps": 11}
    print(
        f"speed: {turns} turns, {threads} threads, 8 rows of 256 tokens, hidden 192, 3 layers, ours with compile: "
        f"{compile_mode}; tokens without padding"
    )
    for packing in sft.PACKINGS:
        folder = Path(tempfile.mkdtemp())
        sft.write_inputs(folder, 1500, 24)
        loop = sft.loop_of(folder, packing, settings)
        tokens = sum(len(row["input_ids"]) for row in sft.rows_of(loop)) / settings["steps"]

        def runs(folder: Path = folder, packing: str = packing) -> dict[str, Run]:
            loop = sft.loop_of(folder, packing, settings)
            return {
                "TRL": lambda: sft.losses_of_trl(loop, folder, settings)[1],
                "ours": lambda: sft.losses_of_ours(loop)[1],
            }

        print_rates(packing, "tokens", tokens, turns, runs)
    print_dpo_speed(settings, turns)


def print_dpo_speed(settings: dict[str, Any], turns: int) -> None:
    """The same of DPO, 8 pairs a step; TRL's reference in every step (its default), or computed once as ours is."""
    folder = Path(tempfile.mkdtemp())
    dpo.write_inputs(folder, 600, 90)
    rows = list(dpo.rows_of(dpo.loop_of(folder, settings)))
    tokens = sum(2 * len(r["prompt_ids"]) + len(r["chosen_ids"]) + len(r["rejected_ids"]) for r in rows)

    def runs() -> dict[str, Run]:
        loop = dpo.loop_of(folder, settings)
        return {
            "TRL": lambda: dpo.losses_of_trl(loop, folder, settings)[1],
            "TRL, reference computed once": lambda: dpo.losses_of_trl(loop, folder, settings, precompute=True)[1],
            "ours": lambda: sft.losses_of_ours(loop)[1],
        }

    print_rates("dpo", "tokens", tokens / settings["steps"], turns, runs)
    print(f"  {'dpo':>9}: {tokens / 2 / len(rows):.0f} tokens a row, 8 pairs a step")


def main() -> None:
    """Prints both."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--compile", choices=("on", "off"), default="off")
    options = parser.parse_args()
    print(f"torch {torch.__version__}, TRL {version('trl')}")
    print_parity()
    print_speed(options.threads, options.turns, options.compile)


if __name__ == "__main__":
    main()
