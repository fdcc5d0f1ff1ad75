"""What a stage run took of a machine, as the records of a study folder say: hours times the cores that it ran on."""

import polars as pl

from indelible.records import StageResult
from indelible.results.columns import timed_stages
from indelible.results.run_folder import StudyRun

CORE_HOURS, DEVICE_HOURS = "core-hours", "device-hours"  # of a processor's cores; of accelerators, one a stage run

OF_FOLDERS = {
    CORE_HOURS: "Core-hours are each stage run's own time, its evaluations of early stopping included, times its "
    "threads; the evaluation of checkpoints is not counted.",
    DEVICE_HOURS: "Device-hours are each stage run's own time, its evaluations of early stopping included, one device "
    "a run; the evaluation of checkpoints is not counted.",
}
OF_TABLES = (
    "A table has the times of the training loops alone: one core a stage run is assumed, and no evaluation is counted."
)


def core_seconds(table: pl.DataFrame, run: StudyRun) -> pl.DataFrame:
    """The table with ``<stage>_seconds`` as core-seconds: all of a run's time, its own evaluations included.

    Args:
        table: the results table of ``run``.
        run: whose results say how long each stage run took, and with how many threads.
    """
    seconds = {name: _seconds(result) for name, result in run.results.items()}
    columns = {
        f"{stage}_seconds": pl.Series([seconds.get(name) for name in table[f"{stage}_id"]], dtype=pl.Float64)
        for stage in timed_stages(table)
    }
    return table.with_columns(**columns)


def hours_unit(run: StudyRun) -> str:
    """``core-hours`` where every stage run was on a processor, else ``device-hours``."""
    return CORE_HOURS if all(_is_on_cpu(result) for result in run.results.values()) else DEVICE_HOURS


def _seconds(result: StageResult) -> float:
    threads = result.environment.get("threads")
    if not _is_on_cpu(result) or not isinstance(threads, int) or isinstance(threads, bool) or threads < 1:
        return result.total_seconds
    return result.total_seconds * threads


def _is_on_cpu(result: StageResult) -> bool:
    return result.environment.get("device", "cpu") == "cpu"
