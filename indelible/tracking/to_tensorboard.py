"""TensorBoard: event files below tracking/tensorboard/<run id>, by TensorBoard's own writer (no TensorFlow)."""

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import Summary, SummaryMetadata
from tensorboard.compat.proto.tensor_pb2 import TensorProto
from tensorboard.plugins.hparams.summary_v2 import hparams_pb
from tensorboard.summary.writer.event_file_writer import EventFileWriter

from indelible.tracking.series import Row, Setting, TrackedRun


class TensorBoard:
    """One folder a stage run; its file stays open until the run is over."""

    ended_runs_only = False

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._writers: dict[str, Any] = {}

    def send(self, run: TrackedRun, rows: Sequence[Row], end: Mapping[str, Setting], *, is_first: bool) -> None:
        """Appends to the run's event file and flushes it."""
        writer = self._writers.get(run.id)
        if writer is None:
            writer = self._writers[run.id] = EventFileWriter(str(self._folder / run.id))
        now = time.time()
        if is_first:
            lineage = {**run.lineage, **run.settings}
            writer.add_event(Event(wall_time=now, step=0, summary=_table("lineage", run.config)))
            writer.add_event(Event(wall_time=now, summary=hparams_pb(lineage, trial_id=run.id)))
        for row in rows:
            values = {**row.values, "tokens": float(row.tokens)}
            scalars = [Summary.Value(tag=tag, simple_value=value) for tag, value in values.items()]
            writer.add_event(Event(wall_time=now, step=row.step, summary=Summary(value=scalars)))
        if end:
            writer.add_event(Event(wall_time=now, step=int(end["steps"]), summary=_table("result", end)))
        writer.flush()
        if end:
            self._writers.pop(run.id).close()

    def close(self) -> None:
        """Closes the files of runs that are not over."""
        for writer in self._writers.values():
            writer.close()
        self._writers.clear()


def _table(tag: str, values: Mapping[str, Setting]) -> Any:
    """A summary for TensorBoard's text plugin: a Markdown table."""
    lines = ["| field | value |", "|---|---|", *(f"| {name} | {value} |" for name, value in values.items())]
    metadata = SummaryMetadata(plugin_data=SummaryMetadata.PluginData(plugin_name="text"))
    text = TensorProto(dtype="DT_STRING", string_val=["\n".join(lines).encode()])
    return Summary(value=[Summary.Value(tag=f"{tag}/text_summary", metadata=metadata, tensor=text)])


def open_tracker(folder: Path) -> TensorBoard:
    """Event files below ``folder``."""
    return TensorBoard(folder)
