"""The paper's model sizes on this machine: real steps of `135m` through all stages; `1b` planned, built, and sharded.

    python benchmarks/scales.py [--seq-len 256] [--steps 3] [--threads 1] [--only 135m|1b]

`135m` trains its exact model (134,515,008 parameters, vocabulary 49,152) on generated tokens: some steps of stage 1,
then hand-over to stage 2 with early stopping and to stage 3. `1b` is built on the meta device in full; with its layers
cut to two it trains on two ranks that speak by gloo, weights sharded (FSDP2). Each stage runs in a process of its own,
whose peak memory is stated.
"""

import argparse
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "support"))

import torch
from gloo_ranks import fork_rank
from tiny_engine import TINY, layered, losses_of, result_of, runs_of
from token_folder import plan_on_arrays

from indelible.models.build import empty_model, model_config
from indelible.study.load import load_study

VOCABULARY = 49_152


def raw_study(scale: str, seq_len: int, steps: int, batch: int) -> dict[str, Any]:
    """The study of a scale with everything shortened but the model."""
    stage = {"global_batch_size": batch, "warmup_steps": 1, "tokens": steps * batch * seq_len}
    over = {"posttrain": {**stage, "max_tokens": stage["tokens"], "eval_interval": 1, "patience": 3, "lr": 1e-4}}
    over |= {
        "pretrain": stage,
        "finetune": stage,
        "evaluation": {"windows": 2, "stop_windows": 1},
        "scale": scale,
        "seq_len": seq_len,
    }
    raw = layered({key: TINY[key] for key in ("name", "corpora", "pipeline", "seeds")}, over)
    return {**raw, "execution": {"device": "cpu", "compile": "off"}}


def run_stages(out: Path, world: int, execution: dict[str, Any], until: str) -> None:
    """Runs the stages of a plan, each in fresh processes, and prints what each took."""
    for run in runs_of(out):
        begun = time.monotonic()
        task = {"out": str(out), "world": world, "execution": execution, "until": run.stage}
        with tempfile.TemporaryDirectory() as folder:
            ranks = [fork_rank(task, rank, f"{folder}/store") for rank in range(world)]
            ended = [os.wait4(rank, 0) for rank in ranks]
        if any(status for _, status, _ in ended):
            sys.exit(f"{run.id}: a rank failed")
        peaks = [usage.ru_maxrss / 2**20 for _, _, usage in ended]
        result = result_of(out, run.id)
        assert result is not None
        losses = [f"{loss:.3f}" for loss in losses_of(out / "runs" / run.id).values()]
        size = (out / "runs" / run.id / "checkpoint" / "model.safetensors").stat().st_size / 2**20
        print(
            f"{run.stage:9}  {result.steps} steps, losses {' '.join(losses)}  "
            f"{result.trained_seconds / max(1, result.steps):.1f} s a step, "
            f"{result.tokens_per_second:.0f} tokens/s, {time.monotonic() - begun:.0f} s in all, "
            f"peak memory {', '.join(f'{peak:.1f}' for peak in peaks)} GiB, checkpoint {size:.0f} MiB",
            flush=True,
        )
        if run.stage == until:
            break


def parameters_on_meta(scale: str) -> int:
    """The number of parameters of a scale's model, built without memory."""
    spec = load_study("quickstart", [f"scale={scale}"]).arms[0].model
    with torch.device("meta"):
        model = empty_model(model_config(spec, VOCABULARY, 1024, 0))
    return sum(weight.numel() for weight in model.parameters())


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seq-len", type=int, default=256, help="tokens a window; the paper's is 1024")
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--only", choices=("135m", "1b"))
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        if options.only != "1b":
            print(f"135m: {parameters_on_meta('135m'):,} parameters; batch 2 x {options.seq_len} tokens", flush=True)
            raw = raw_study("135m", options.seq_len, options.steps, 2)
            out = plan_on_arrays(
                Path(folder) / "135m", raw, VOCABULARY, 20 * options.seq_len, heldout_tokens=4 * options.seq_len
            )
            run_stages(out, 1, {"threads": options.threads, "micro_batch_size": 1}, "finetune")
        if options.only != "135m":
            print(f"1b: {parameters_on_meta('1b'):,} parameters on the meta device; two layers on two ranks, FSDP2")
            raw = layered(raw_study("1b", 64, 2, 2), {"model": {"num_layers": 2}})
            out = plan_on_arrays(Path(folder) / "1b", raw, VOCABULARY, tokens=20 * 64)
            run_stages(out, 2, {"parallel": "fsdp", "activation_checkpointing": True}, "posttrain")


if __name__ == "__main__":
    main()
