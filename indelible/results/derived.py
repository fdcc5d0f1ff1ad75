"""The derived files of a study folder: tables that can be deleted and made again."""

from pathlib import Path

from indelible.results.curves import curves
from indelible.results.losses import losses
from indelible.results.run_folder import StudyRun
from indelible.results.table import results_table, write_table

DERIVED = {"results": results_table, "losses": losses, "curves": curves}


def write_derived(run: StudyRun, folder: Path | None = None) -> list[Path]:
    """Writes results.parquet, losses.parquet and curves.parquet.

    Args:
        run: what has been read of a study run.
        folder: where to write; default: the folder of the study run.

    Returns:
        the files.
    """
    written = []
    for name, make in DERIVED.items():
        path = (folder or run.root) / f"{name}.parquet"
        write_table(make(run), path, "parquet")
        written.append(path)
    return written
