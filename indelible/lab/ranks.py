"""One rank of a stage run that spans several devices: what torchrun starts. See `indelible.lab.spread`."""

import importlib
import json
import os
import sys
from dataclasses import asdict
from pathlib import Path

import torch
import torch.distributed as dist

from indelible.files import write_json
from indelible.lab.failures import describe
from indelible.lab.host import Owner, is_known_dead
from indelible.lab.lease import LeaseLost, StopRequested
from indelible.lab.spread import Exchange
from indelible.train.job import Progress, StageJob


def _start_group(device: str) -> None:
    uses_gpus = device != "cpu" and torch.cuda.is_available()
    if uses_gpus:
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    # numbers that all ranks agree on travel over gloo, gradients on GPUs over nccl
    dist.init_process_group("cpu:gloo,cuda:nccl" if uses_gpus else "gloo")


def _tell_error(exchange: Exchange, error: BaseException) -> None:
    # the first to fail is the cause; the others fail of its absence
    if not exchange.error.exists():
        write_json(exchange.error, describe(error))


def main(job_path: Path) -> int:
    """Runs the job of ``<n>.job.json`` as one of the ranks that torchrun started."""
    told = json.loads(job_path.read_text(encoding="utf-8"))
    fields = told["job"]
    for key in ("run_dir", "parent_dir", "tokens_dir"):
        fields[key] = None if fields[key] is None else Path(fields[key])
    job, owner = StageJob(**fields), Owner(**told["owner"])
    exchange = Exchange(job.run_dir, told["generation"])
    is_first = os.environ["RANK"] == "0"
    successor = job.run_dir / "lease" / f"{told['generation'] + 1}.json"

    def guard() -> None:
        if successor.exists() or is_known_dead(owner):
            raise LeaseLost(f"{job.run_id}: attempt {told['generation']} was taken over by another worker.")

    def progress(now: Progress) -> None:
        if is_first:
            write_json(exchange.progress, asdict(now), indent=None)
            guard()
            if exchange.stop.exists():
                raise StopRequested(job.run_id)

    try:
        module, _, name = told["engine"].partition(":")
        run_stage = getattr(importlib.import_module(module), name)
        _start_group(str(job.execution.get("device") or "auto"))
        run_stage(job, progress=progress, guard=guard)
        dist.destroy_process_group()
    except Exception as error:
        _tell_error(exchange, error)
        return 1
    return 0


if __name__ == "__main__":
    code = main(Path(sys.argv[1]))
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)  # libraries abort at random when the interpreter ends after a process group
