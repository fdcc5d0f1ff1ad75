"""A finished stage that is trained again for its curves: it must give the same weights, and keeps its result.

Its checkpoint is left alone, for others may be reading it. Its first metrics are kept until the second are complete.
"""

import os
import shutil
from pathlib import Path

from indelible.errors import UserError
from indelible.records import StageResult
from indelible.train.checkpoint import delete_resume
from indelible.train.job import StageJob

FIRST_METRICS = "metrics.first.jsonl"  # beside metrics.jsonl while a stage is trained again


def keep_first_metrics(run_dir: Path) -> None:
    """Copies the metrics of a stage that has a result, once; those of an unfinished stage are left to the resume."""
    metrics, first = run_dir / "metrics.jsonl", run_dir / FIRST_METRICS
    if (run_dir / "result.json").exists() and metrics.exists() and not first.exists():
        shutil.copyfile(metrics, first)


def check_same_weights(job: StageJob, earlier: StageResult, weights_sha256: str | None) -> None:
    """Checks that a stage ended as it did the first time; if not, the first metrics are put back.

    Args:
        job: the run.
        earlier: its first result.
        weights_sha256: of the weights now, None if it diverged.

    Raises:
        UserError: it gave other weights than the first time.
    """
    if earlier.weights_sha256 == weights_sha256:
        return
    if (job.run_dir / FIRST_METRICS).exists():
        os.replace(job.run_dir / FIRST_METRICS, job.run_dir / "metrics.jsonl")
    delete_resume(job.run_dir)
    before, now = (digest[:12] if digest else "diverged" for digest in (earlier.weights_sha256, weights_sha256))
    raise UserError(
        f"{job.run_id}: trained again for its curves it gave other weights than the first time ({now}, was {before}); "
        "another processor or other versions of the libraries made the first. The result is kept as it was. Take "
        "`watch` out, or move the run's folder away so that it is trained here."
    )


def kept_result(job: StageJob, earlier: StageResult) -> StageResult:
    """The first result, with the curves that are there now."""
    (job.run_dir / FIRST_METRICS).unlink(missing_ok=True)
    return earlier.model_copy(update={"watched": job.watch})
