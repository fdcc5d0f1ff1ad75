"""What the current plan of a study folder does not need: found here, removed only when asked to."""

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from indelible.records import Plan, StageResult
from indelible.scheduling.curves import lacks_curves
from indelible.scheduling.folder import StudyFolder, earlier_plans
from indelible.scheduling.lease import LEASE_SECONDS, LeaseObserver
from indelible.scheduling.unit_run import SUPERSEDED

_TEMPORARY = "temporary file of a killed worker"
_LEFT = {"resume": "resume state of a finished run", "metrics.first.jsonl": "metrics made again", **SUPERSEDED}


@dataclass(frozen=True)
class Garbage:
    """A file or folder that can go."""

    path: Path
    why: str
    size: int  # bytes


def _size(path: Path) -> int:
    if path.is_symlink() or not path.is_dir():
        return path.lstat().st_size
    return sum(entry.lstat().st_size for entry in path.rglob("*") if entry.is_symlink() or not entry.is_dir())


def _entries(folder: Path) -> list[Path]:
    return sorted(folder.iterdir()) if folder.is_dir() and not folder.is_symlink() else []


def find_garbage(folder: StudyFolder, lease_seconds: float = LEASE_SECONDS) -> list[Garbage]:
    """Lists what no plan needs; nothing that a worker holds a lease on is listed.

    Runs, evaluations and token stores outside the plan; resume states, superseded results and temporary files of
    finished runs. What an earlier plan of the folder (``plan.<n>.json``) names is spared once it is finished.
    """
    observer, earlier = LeaseObserver(lease_seconds), earlier_plans(folder.out)
    found = [*_of_runs(folder, earlier, observer), *_of_evaluations(folder, earlier, observer)]
    stores = set(folder.token_folders).union(*({*plan.stores.values(), plan.tokenizer} for plan in earlier))
    for store in _entries(folder.tokens_dir):
        if folder.token_folders and store.name not in stores and not store.name.startswith("."):
            found.append((store, "token store that the plan does not use"))
    return [Garbage(path, why, _size(path)) for path, why in found]


def _of_runs(folder: StudyFolder, earlier: list[Plan], observer: LeaseObserver) -> Iterator[tuple[Path, str]]:
    spared = {run.id for plan in earlier for run in plan.stage_runs}
    for run_dir in _entries(folder.out / "runs"):
        if not run_dir.is_dir() or run_dir.is_symlink():
            yield run_dir, "no run folder"
            continue
        if observer.look(run_dir).is_held:
            continue
        is_known = run_dir.name in folder.runs or run_dir.name in spared
        result = StageResult.read(run_dir / "result.json") if is_known else None
        if run_dir.name not in folder.runs and result is None:
            yield run_dir, "not in the plan"
            continue
        yield from ((path, _TEMPORARY) for path in sorted(run_dir.rglob(".*.tmp")))
        run = folder.runs.get(run_dir.name)
        if result is not None and (run is None or not lacks_curves(folder, run, result)):
            left = {
                "resume": "resume state of a finished run",
                "metrics.first.jsonl": "metrics made again",
                **SUPERSEDED,
            }
            yield from ((run_dir / name, why) for name, why in left.items() if (run_dir / name).exists())


def _of_evaluations(folder: StudyFolder, earlier: list[Plan], observer: LeaseObserver) -> Iterator[tuple[Path, str]]:
    plans = [folder.plan, *earlier]
    for evaluated in _entries(folder.out / "evaluations"):
        if not evaluated.is_dir() or evaluated.is_symlink():
            yield evaluated, "no folder of evaluations"
            continue
        if observer.look(evaluated).is_held or observer.look(folder.run_dir(evaluated.name)).is_held:
            continue
        wanted = [one for plan in plans for one in (plan.evaluations, plan.task_evaluations)]
        planned = [one[evaluated.name] for one in wanted if evaluated.name in one]
        if not planned:
            yield evaluated, "evaluations of a checkpoint that is not in the plan"
            continue
        names = {name for one in planned for name in one}
        for path in _entries(evaluated):
            stem = path.name.removesuffix(".json").removesuffix(".documents.parquet")
            if path.name.startswith(".") and path.name.endswith(".tmp"):
                yield path, _TEMPORARY
            elif stem != path.name and stem not in names and not stem.startswith("failure"):
                yield path, "evaluation that is not in the plan"


def remove(garbage: list[Garbage]) -> int:
    """Removes what was found, without following links; returns the bytes freed."""
    for item in garbage:
        if item.path.is_dir() and not item.path.is_symlink():
            shutil.rmtree(item.path, ignore_errors=True)
        else:
            item.path.unlink(missing_ok=True)
    return sum(item.size for item in garbage if not item.path.exists())
