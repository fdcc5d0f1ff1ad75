"""One rank of a unit that spans several devices: what torchrun starts. See `indelible.scheduling.torchrun`."""

import os
import signal
import sys
import threading
import time
from pathlib import Path

import torch
import torch.distributed as dist

from indelible.files import write_text
from indelible.host import Owner, is_known_dead
from indelible.scheduling.engine import load_engine
from indelible.scheduling.failures import cause_of
from indelible.scheduling.lease import LeaseLost, StopRequested
from indelible.scheduling.torchrun import PROGRESS, Exchange, RankTask
from indelible.train.job import Progress

_PARENT_SECONDS = 1.0  # between two looks whether torchrun and the worker still live


def _die_with_parents(owner: Owner) -> None:
    """Ends this rank when torchrun or the worker has gone: a rank that waits for others would never notice."""
    torchrun = os.getppid()

    def watch() -> None:
        while os.getppid() == torchrun and not is_known_dead(owner):
            time.sleep(_PARENT_SECONDS)
        os.killpg(os.getpgrp(), signal.SIGKILL)  # torchrun gives each rank a session of its own

    threading.Thread(target=watch, name="parents", daemon=True).start()


def _start_group(device: str) -> None:
    uses_gpus = device != "cpu" and torch.cuda.is_available()
    if uses_gpus:
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    # numbers that all ranks agree on travel over gloo, gradients on GPUs over nccl
    dist.init_process_group("cpu:gloo,cuda:nccl" if uses_gpus else "gloo")


def _report_error(exchange: Exchange, error: BaseException) -> None:
    # the first to fail is the cause; the others fail of its absence
    if not exchange.error.exists():
        write_text(exchange.error, cause_of(error).model_dump_json(indent=1) + "\n")


def _write_progress(path: Path, now: Progress) -> None:
    """A heartbeat, several a second on the training thread: renamed into place, but never flushed to disk."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    temporary.write_bytes(PROGRESS.dump_json(now))
    os.replace(temporary, path)


def main(task_path: Path) -> int:
    """Runs the task of ``<n>.job.json`` as one of the ranks that torchrun started."""
    task = RankTask.model_validate_json(task_path.read_bytes())
    exchange = Exchange(task.lease_folder, task.generation)
    name, is_first = task.lease_folder.name, os.environ["RANK"] == "0"
    successor = task.lease_folder / "lease" / f"{task.generation + 1}.json"
    _die_with_parents(task.owner)

    def guard() -> None:
        if successor.exists() or is_known_dead(task.owner):
            raise LeaseLost(f"{name}: attempt {task.generation} was taken over by another worker.")

    def progress(now: Progress) -> None:
        if is_first:
            _write_progress(exchange.progress, now)
            guard()
            if exchange.stop.exists():
                raise StopRequested(name)

    try:
        engine = load_engine(task.engine)
        if task.stage is not None:
            _start_group(task.stage.execution.device)
            engine.run_stage(task.stage, progress=progress, guard=guard)
            dist.destroy_process_group()
        elif task.evaluations is not None:
            engine.run_evaluations(task.evaluations, progress=progress, guard=guard)
    except Exception as error:
        _report_error(exchange, error)
        return 1
    return 0


if __name__ == "__main__":
    code = main(Path(sys.argv[1]))
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)  # libraries abort at random when the interpreter ends after a process group
