"""Where the records of a study folder lie."""

from pathlib import Path


def run_dir(out: Path, run_id: str) -> Path:
    """Folder of a stage run."""
    return out / run_name(run_id)


def run_name(run_id: str) -> str:
    """The same below the folder of a study run."""
    return f"runs/{run_id}"


def evaluation_path(out: Path, checkpoint: str, evaluation: str) -> Path:
    """File of an evaluation."""
    return out / evaluation_name(checkpoint, evaluation)


def evaluation_name(checkpoint: str, evaluation: str) -> str:
    """The same below the folder of a study run."""
    return f"evaluations/{checkpoint}/{evaluation}.json"


def documents_path(out: Path, checkpoint: str, evaluation: str) -> Path:
    """File of the losses by document of an evaluation."""
    return out / "evaluations" / checkpoint / f"{evaluation}.documents.parquet"


def task_path(out: Path, stored_name: str) -> Path:
    """File of the examples of a task of the user's own."""
    return out / "tasks" / f"{stored_name}.json"
