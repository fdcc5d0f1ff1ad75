"""trackio: a run a stage run, in the project $TRACKIO_PROJECT (``indelible``), grouped by study.

By default it keeps a database on this machine (TRACKIO_DIR); TRACKIO_SPACE_ID and TRACKIO_SERVER_URL send it elsewhere.
"""

import contextlib
import io
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import trackio

from indelible.tracking.series import Row, Setting, TrackedRun


class Trackio:
    """Opens a run, sends and waits, each time."""

    ended_runs_only = False

    def send(self, run: TrackedRun, rows: Sequence[Row], end: Mapping[str, Setting], *, is_first: bool) -> None:
        """Continues the run of this name, or begins it."""
        with contextlib.redirect_stdout(io.StringIO()):  # several lines a run for people
            self._send(run, rows, end)

    def _send(self, run: TrackedRun, rows: Sequence[Row], end: Mapping[str, Setting]) -> None:
        opened = trackio.init(
            project=os.environ.get("TRACKIO_PROJECT") or "indelible",
            name=run.id,
            group=run.study,
            config=dict(run.config),
            resume="allow",
            embed=False,
            auto_log_gpu=False,
            auto_log_cpu=False,
        )
        for row in rows:
            finite = {key: value for key, value in row.values.items() if math.isfinite(value)}
            opened.log({"tokens": row.tokens, **finite}, step=row.step)
        if end:
            opened.log({f"result/{name}": value for name, value in end.items()}, step=int(end["steps"]))
        trackio.finish()

    def close(self) -> None:
        """Nothing is open."""


def open_tracker(folder: Path) -> Trackio:
    """trackio; it keeps its own folder."""
    return Trackio()
