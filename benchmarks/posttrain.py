"""Post-training beside TRL: losses on the same batches, and the tokens a second of both, in turns.

    python benchmarks/posttrain.py [--threads 2] [--turns 3] [--compile off]

TRL is in the extra `bench`. Both train the same random Llama, in fp32 on the CPU, on the last answers of made-up
conversations. The time of a step is wall time; TRL's is that between its callbacks, without reading the batch.
"""

import argparse
import os
import tempfile
from importlib.metadata import version
from pathlib import Path

os.environ.setdefault("INDELIBLE_CACHE", tempfile.mkdtemp(prefix="indelible-bench-"))

import numpy as np
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
    """The largest difference of 20 losses, for each packing."""
    print("parity: 20 steps, fp32, completions only, tiny random Llama")
    for packing in sft.PACKINGS:
        ours, theirs = sft.parity(Path(tempfile.mkdtemp()), packing)
        worst = max(abs(one - other) for one, other in zip(ours, theirs, strict=True))
        print(f"  {packing:>9}: largest difference {worst:.1e} nats; first {ours[0]:.6f}, last {ours[-1]:.6f}")


def print_speed(threads: int, turns: int, compile_mode: str) -> None:
    """Tokens a second, padding left out: the median over turns of ten steps, behind one that is not counted."""
    torch.set_num_threads(threads)
    settings = {**SMALL, "threads": threads, "compile": compile_mode, "steps": 11}
    print(f"speed: {threads} threads, 8 rows of 256 tokens, hidden 192, 3 layers, ours with compile: {compile_mode}")
    for packing in sft.PACKINGS:
        folder = Path(tempfile.mkdtemp())
        sft.write_inputs(folder, 1500, 24)
        rates: dict[str, list[float]] = {"ours": [], "TRL": []}
        for _ in range(turns):
            loop = sft.loop_of(folder, packing, settings)
            tokens = sum(len(row["input_ids"]) for row in sft.rows_of(loop)) / settings["steps"]
            for name, seconds in (
                ("TRL", sft.losses_of_trl(loop, folder, settings)[1]),
                ("ours", sft.losses_of_ours(loop)[1]),
            ):
                rates[name].append(tokens * (len(seconds) - 1) / sum(seconds[1:]))
        for name, found in rates.items():
            spread = f"{min(found):,.0f} to {max(found):,.0f}"
            print(
                f"  {packing:>9}, {name:>4}: {np.median(found):,.0f} tokens/s without padding ({turns} turns: {spread})"
            )


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
