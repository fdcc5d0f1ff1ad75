"""What the current plan of a study folder does not need: found here, removed only when asked to."""

import shutil
from dataclasses import dataclass
from pathlib import Path

from indelible.lab.lease import LEASE_SECONDS, LeaseObserver
from indelible.lab.runs import Plan, read_optional


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


def find_garbage(plan: Plan, lease_seconds: float = LEASE_SECONDS) -> list[Garbage]:
    """Lists what no current plan needs; nothing that a worker holds a lease on is listed.

    Runs and token stores outside the plan; resume states, superseded results and temporary files of finished runs.
    """
    found: list[tuple[Path, str]] = []
    observer = LeaseObserver(lease_seconds)
    for run_dir in _entries(plan.out / "runs"):
        if not run_dir.is_dir() or run_dir.is_symlink():
            found.append((run_dir, "no run folder"))
        elif observer.look(run_dir).is_held:
            continue
        elif run_dir.name not in plan.runs:
            found.append((run_dir, "not in the plan"))
        else:
            found += [(path, "temporary file of a killed worker") for path in sorted(run_dir.rglob(".*.tmp"))]
            if read_optional(run_dir / "result.json") is not None:
                left = {"resume": "resume state of a finished run", "result.superseded.json": "result made again"}
                found += [(run_dir / name, why) for name, why in left.items() if (run_dir / name).exists()]
    for store in _entries(plan.out / "tokens"):
        if plan.stores and store.name not in plan.stores and not store.name.startswith("."):
            found.append((store, "token store that the plan does not use"))
    return [Garbage(path, why, _size(path)) for path, why in found]


def remove(garbage: list[Garbage]) -> int:
    """Removes what was found, without following links; returns the bytes freed."""
    for item in garbage:
        if item.path.is_dir() and not item.path.is_symlink():
            shutil.rmtree(item.path, ignore_errors=True)
        else:
            item.path.unlink(missing_ok=True)
    return sum(item.size for item in garbage if not item.path.exists())
