"""Whether a stage continues from a resume state: found, checked against what this process would compute, loaded."""

from pathlib import Path
from typing import Any

from indelible.train import checkpoint
from indelible.train.job import StageJob
from indelible.train.loop import Loop
from indelible.train.metrics import cut_metrics

_MEANINGS = {
    "spec": "the stage's settings",
    "ledger": "the data order",
    "precision": "the precision",
    "torch": "the version of torch",
    "transformers": "the version of transformers",
    "indelible": "the version of indelible",
}


def resume(loop: Loop, job: StageJob) -> tuple[bool, float]:
    """Loads the resume state if there is one that fits; says so, and says why when one cannot be used.

    Returns:
        Whether the stage continues, and the seconds that it took before.
    """
    world = loop.world
    name = world.broadcast(str(_usable_state(loop, job) or "") if world.is_first else "")
    if not name:
        return False, 0.0
    folder = Path(name)
    loop.load(folder)
    if world.is_first:
        print(f"{job.run_id}: continues at step {loop.state.step} of {loop.total_steps}", flush=True)
        _report_world_size(loop, job, checkpoint.read_record(folder)["world_size"])
    return True, loop.state.trained_seconds + loop.state.eval_seconds


def _usable_state(loop: Loop, job: StageJob) -> Path | None:
    folder, damaged = checkpoint.find_resume(job.run_dir)
    for sentence in damaged:
        print(f"{job.run_id}: {sentence}", flush=True)
    if folder is not None:
        changed = _changed(checkpoint.read_record(folder).get("identity"), loop.context.identity)
        if not changed:
            return folder
        print(f"{job.run_id}: the resume state is not used, and the stage starts anew: {changed}", flush=True)
        loop.context.fence()
        checkpoint.delete_resume(job.run_dir)
    cut_metrics(job.run_dir / "metrics.jsonl", -1)
    return None


def _changed(before: Any, now: dict[str, Any]) -> str:
    """In what a resume state differs from this process, in words; empty if it fits."""
    if not isinstance(before, dict):
        return "it does not say what it belongs to"
    return "; ".join(
        f"{_MEANINGS.get(key, key)} was {str(before.get(key))[:16]} and is {str(value)[:16]}"
        for key, value in now.items()
        if before.get(key) != value
    )


def _report_world_size(loop: Loop, job: StageJob, before: int) -> None:
    if before == loop.world.size:
        return
    same = "dropout masks differ from here on" if loop.training.dropout else "sums are added up in another order"
    print(
        f"{job.run_id}: {before} process(es) wrote this state, {loop.world.size} go on: the data order is the same, "
        f"{same}, so the result is not bitwise that of an uninterrupted run",
        flush=True,
    )
