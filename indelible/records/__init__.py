"""The records of a study folder: plan.json, result.json, failure.json and evaluations. One format, one reader each.

The files are the database, and this is its schema. Keys that a later version adds are passed over; a record of another
format is refused.
"""

from indelible.records.base import RUN_ID, Amount, Record, Signed, Tally
from indelible.records.bundle import BUNDLED, Bundle, Environment
from indelible.records.made import Evaluation, Failure, PackedRows, PackedSide, StageResult, UseCounts
from indelible.records.places import documents_path, evaluation_name, evaluation_path, run_dir, run_name, task_path
from indelible.records.plan import NOTES, Plan, PlannedChain, PlannedRun, RunCost
from indelible.records.task_examples import TaskExample, TaskExamples
from indelible.records.tracked import SentRun, TrackerName

__all__ = [
    "BUNDLED", "NOTES", "RUN_ID", "Amount", "Bundle", "Environment", "Evaluation", "Failure", "PackedRows",
    "PackedSide", "Plan", "PlannedChain", "PlannedRun", "Record", "RunCost", "SentRun", "Signed", "StageResult",
    "Tally", "TaskExample", "TaskExamples", "TrackerName", "UseCounts", "documents_path", "evaluation_name",
    "evaluation_path", "run_dir", "run_name", "task_path",
]  # fmt: skip
