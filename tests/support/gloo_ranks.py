"""Runs stages on one or several ranks that speak by gloo: ``python gloo_ranks.py tasks.json``.

Imports once and forks every rank, which is a process of its own but starts seconds earlier. Each task of the file is
``{"out", "world", "execution", "until", "kill_at"}``: train what has no result yet up to a stage, on so many ranks;
with ``kill_at`` rank 0 dies by SIGKILL after that step of the first stage, and the others are ended, as torchrun does.
"""

import json
import os
import signal
import subprocess
import sys
import tempfile
import traceback
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from tiny_engine import job_of, runs_of

import indelible.train.loop as loop
from indelible.train.job import Progress
from indelible.train.stage import run_stage


def train(task: dict[str, Any], rank: int, store: str) -> None:
    """What one rank does."""
    torch.set_num_threads(1)
    if task["world"] > 1:
        dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=task["world"])
    loop.REPORT_SECONDS, loop.RESUME_SHARE, loop.SAVE_BYTES_PER_SECOND = 0.0, 1e9, 1e18

    def progress(now: Progress) -> None:
        if rank == 0 and now.phase == "training" and now.step == task.get("kill_at"):
            os.kill(os.getpid(), signal.SIGKILL)

    for run in runs_of(Path(task["out"])):
        execution = {"threads": 1, "resume_seconds": 1e-9 if "kill_at" in task else 1e9, **task["execution"]}
        job = job_of(Path(task["out"]), run, execution)
        if not (job.run_dir / "result.json").exists():
            run_stage(job, progress=progress, guard=lambda: None)
        if run.stage == task["until"]:
            break
    if task["world"] > 1:
        dist.destroy_process_group()


def fork_rank(task: dict[str, Any], rank: int, store: str) -> int:
    """Starts a rank; returns its process id."""
    child = os.fork()
    if child:
        return child
    try:
        train(task, rank, store)
    except BaseException:
        traceback.print_exc()
        os._exit(1)
    sys.stdout.flush()
    os._exit(0)


def run_tasks(tasks: list[dict[str, Any]], folder: Path) -> str:
    """Runs tasks in another process that forks the ranks; returns what they printed.

    Args:
        tasks: as in the file that this script reads.
        folder: where that file is written.
    """
    (folder / "tasks.json").write_text(json.dumps(tasks))
    here = Path(__file__)
    paths = os.pathsep.join([str(here.parents[2]), str(here.parent)])  # the tree that is tested, not an installed one
    environment = {**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, __file__, str(folder / "tasks.json")]
    ran = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=1500, check=False)
    assert ran.returncode == 0, ran.stdout[-3000:] + ran.stderr[-6000:]
    return ran.stdout


def main(path: str) -> None:
    """Runs the tasks one after the other; fails if one ends otherwise than it should."""
    for task in json.loads(Path(path).read_text()):
        with tempfile.TemporaryDirectory() as folder:
            ranks = [fork_rank(task, rank, f"{folder}/store") for rank in range(task["world"])]
            first = os.waitstatus_to_exitcode(os.waitpid(ranks[0], 0)[1])
            wanted = -signal.SIGKILL if "kill_at" in task else 0
            for other in ranks[1:]:
                if first:
                    os.kill(other, signal.SIGKILL)
                code = os.waitstatus_to_exitcode(os.waitpid(other, 0)[1])
                assert first or code == 0, f"{task}: a rank ended with {code}"
            assert first == wanted, f"{task}: rank 0 ended with {first}"


if __name__ == "__main__":
    main(sys.argv[1])
