"""The checks of benchmarks/gpu.py, each in a process of its own: ``gpu_checks.py NAME SETTINGS`` prints its finding."""

import contextlib
import json
import os
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))
import numpy as np
import torch
from random_loop import stage_loop, weights_digest
from train_rivals import MARK, llama, windows

from indelible.data.loader import Batch
from indelible.study.execution import ExecutionSpec
from indelible.train.checkpoint import find_resume
from indelible.train.device import choose_device, fitting_micro_batch
from indelible.train.distributed import World
from indelible.train.evaluate import mean_loss
from indelible.train.loop import Loop
from indelible.train.program import forget_programs

LOSS_TOLERANCE = 1e-4  # nats per token, a GPU against the CPU, both fp32
RANK_TOLERANCE = 1e-4  # nats per token of a step's loss, two ranks against one
STEPS = 8
Settings = dict[str, Any]


class _Stop(Exception):
    """Ends a loop between two of its steps."""


def loss(settings: Settings) -> Settings:
    """The same weights on the same windows: the GPU's held-out loss and the CPU's."""
    tokens = windows(settings).numpy()[:16]
    batch = Batch(tokens, np.ones((len(tokens), tokens.shape[1] - 1), np.bool_))
    losses = {}
    for kind in dict.fromkeys(("cpu", _kind())):
        forget_programs()
        device = choose_device("fp32", ExecutionSpec(device=kind, compile="off"))
        loop = stage_loop(settings, llama(settings), tokens, device, _folder())
        losses[kind] = mean_loss(loop.program, batch, World())
    difference = abs(losses["cpu"] - losses[_kind()])
    return {"ok": difference <= LOSS_TOLERANCE, "difference": difference, "on": _kind()}


def resume(settings: Settings) -> Settings:
    """Stopped after half its steps and loaded into a fresh loop, with deterministic algorithms, eager."""
    return _resumed(settings, "off")


def resume_compiled(settings: Settings) -> Settings:
    """The same, compiled."""
    return _resumed(settings, "auto")


def _resumed(settings: Settings, how: Any) -> Settings:
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True)
    device = choose_device(settings["precision"], ExecutionSpec(compile=how))
    tokens, folder = windows(settings).numpy(), _folder()

    def fresh(run_dir: Path, **options: Any) -> Loop:
        return stage_loop(settings, llama(settings), tokens, device, run_dir, steps=STEPS, **options)

    whole = fresh(_folder())
    whole.run()
    expected = weights_digest(whole)
    reads = iter(range(STEPS))

    def stop_at_half() -> None:
        if next(reads) == STEPS // 2:
            raise _Stop

    halted = fresh(folder, on_read=stop_at_half)
    with contextlib.suppress(_Stop):
        halted.run()
    halted.save()
    at = halted.state.step
    forget_programs()
    again = fresh(folder)
    state, _ = find_resume(folder)
    assert state is not None, "no resume state was written"
    again.load(state)
    again.run()
    return {"ok": weights_digest(again) == expected, "stopped_at": at, "of": STEPS, "compiled": device.compile}


def micro_batch(settings: Settings) -> Settings:
    """The micro batch that is chosen for a large batch: one update of it, and the memory that it took."""
    device = choose_device(settings["precision"], ExecutionSpec(compile="off"))
    model = llama(settings)
    parameters = sum(weight.numel() for weight in model.parameters())
    is_gpu = device.torch_device.type == "cuda"
    memory = torch.cuda.get_device_properties(0).total_memory if is_gpu else 2**33
    size = fitting_micro_batch(
        model.config, parameters, settings["seq_len"], settings["batch_size"], device, memory
    )  # as a stage run chooses it
    loop = stage_loop(settings, model, windows(settings).numpy(), device, _folder(), steps=1)
    loop.program.device = replace(device, micro_batch_size=size)
    loop.run()
    peak = torch.cuda.max_memory_allocated() if is_gpu else None
    return {"ok": True, "micro_batch": size, "of": settings["batch_size"], "peak_gib": peak / 2**30 if peak else None}


def fsdp(settings: Settings) -> Settings:
    """Four steps on two ranks with sharded weights and on one: the same losses."""
    import torch.multiprocessing as mp

    losses = []
    for size in (1, 2):
        out = _folder() / "losses.json"
        mp.spawn(_rank, (size, settings, str(out), str(_folder() / "store")), nprocs=size)
        losses.append(json.loads(out.read_text()))
    difference = max(abs(a - b) for a, b in zip(*losses, strict=True))
    return {"ok": difference <= RANK_TOLERANCE, "difference": difference, "ranks": 2}


def _rank(rank: int, size: int, settings: Settings, out: str, store: str) -> None:
    import torch.distributed as dist

    has_gpus = torch.cuda.is_available()
    if has_gpus:
        torch.cuda.set_device(rank)
    dist.init_process_group(
        "cpu:gloo,cuda:nccl" if has_gpus else "gloo", init_method=f"file://{store}", rank=rank, world_size=size
    )
    device = choose_device(settings["precision"], ExecutionSpec(compile="off", threads=1))
    folder = _folder()
    steps = 4
    world = World(rank, size, "fsdp")
    stage_loop(settings, llama(settings), windows(settings).numpy(), device, folder, steps=steps, world=world).run()
    if rank == 0:
        lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
        Path(out).write_text(json.dumps([line["train/loss"] for line in lines]))
    dist.destroy_process_group()


def _kind() -> Any:
    return "cuda" if torch.cuda.is_available() else "cpu"


def _folder() -> Path:
    return Path(tempfile.mkdtemp(prefix="indelible-gpu-"))


CHECKS = {
    "loss": loss,
    "resume": resume,
    "resume_compiled": resume_compiled,
    "micro_batch": micro_batch,
    "fsdp": fsdp,
}

if __name__ == "__main__":
    print(MARK + json.dumps(CHECKS[sys.argv[1]](json.loads(sys.argv[2]))), flush=True)
