"""The trackers that are known, and what each must be able to do. Their libraries are imported when one is opened."""

import importlib
import importlib.util
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol, get_args

from indelible.errors import UserError
from indelible.records import TrackerName
from indelible.tracking.series import Row, Setting, TrackedRun

NAMES: tuple[TrackerName, ...] = get_args(TrackerName)


class Tracker(Protocol):
    """Where points are sent to."""

    ended_runs_only: bool  # a run is sent when it is over, and not before

    def send(self, run: TrackedRun, rows: Sequence[Row], end: Mapping[str, Setting], *, is_first: bool) -> None:
        """Sends, and returns when it is sent; whatever goes wrong is raised.

        Args:
            run: the stage run and its lineage.
            rows: points that were not sent yet, by step.
            end: what its result says; empty as long as it has none.
            is_first: nothing of this run was sent before.
        """
        ...

    def close(self) -> None:
        """Nothing more will be sent."""
        ...


def check_tracker(name: str) -> TrackerName:
    """The name of a tracker that is known and installed.

    Raises:
        UserError: it is not.
    """
    for known in NAMES:
        if name == known:
            if importlib.util.find_spec(known) is None:
                raise UserError(f"tracker {name}: it is not installed; `pip install {name}` (the extra `track` of "
                                "indelible has all three).")  # fmt: skip
            return known
    raise UserError(f"tracker {name!r}: not one that is known; choose one of {', '.join(NAMES)}.")


def open_tracker(name: TrackerName, root: Path) -> Tracker:
    """A tracker, ready to be sent to.

    Args:
        name: as `check_tracker` gives it.
        root: folder of the study run; what the tracker's library writes on this machine goes below it.
    """
    module = importlib.import_module(f"indelible.tracking.to_{name}")
    opened: Tracker = module.open_tracker(tracker_folder(root, name))
    return opened


def tracker_folder(root: Path, name: str) -> Path:
    """Where the notes of what was sent lie, and what the tracker's library writes itself."""
    return root / "tracking" / name
