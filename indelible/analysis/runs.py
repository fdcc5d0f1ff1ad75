"""Reads the files of a study run: the plan, and of each stage run its result, failure, metrics and ledger."""

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from indelible.errors import UserError
from indelible.files import read_json

PLAN_FORMAT = 1
_RUN_ID = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._+=-]*")


@dataclass(frozen=True)
class StudyRun:
    """What is known of one study run: its plan, and what its stage runs have left so far."""

    root: Path
    plan: dict[str, Any]
    results: dict[str, dict[str, Any]]  # run id -> result.json, of the runs that have one
    failures: dict[str, dict[str, Any]]  # run id -> failure.json, of the runs without a result


def read_study_run(root: Path) -> StudyRun:
    """Reads plan.json and every result.json or failure.json of the runs that the plan names.

    Args:
        root: the folder that ``indelible run --out`` wrote.

    Raises:
        UserError: ``root`` has no plan.json, the plan is of another format, or a file is not JSON.
    """
    plan = _read_plan(root)
    results: dict[str, dict[str, Any]] = {}
    failures: dict[str, dict[str, Any]] = {}
    for run_id in run_ids(plan):
        folder = run_folder(root, run_id)
        result = _read_optional(folder / "result.json")
        if result is not None:
            results[run_id] = result
            continue
        failure = _read_optional(folder / "failure.json")
        if failure is not None:
            failures[run_id] = failure
    return StudyRun(root, plan, results, failures)


def run_ids(plan: dict[str, Any]) -> list[str]:
    """Every run id that the plan names, each once, in the plan's order."""
    ids = [run["id"] for run in plan.get("stage_runs", [])]
    for chain in plan["chains"]:
        ids += [chain[key] for key in ("pretrain_id", "posttrain_id", "finetune_id") if chain.get(key)]
    return list(dict.fromkeys(ids))


def run_folder(root: Path, run_id: str) -> Path:
    """The folder of a stage run.

    Raises:
        UserError: the id could lead out of the run folder.
    """
    if not _RUN_ID.fullmatch(run_id):
        raise UserError(
            f"{root / 'plan.json'}: run id {run_id!r} is not a folder name; "
            "an id has letters, digits and ._+=- only. Plan the study again."
        )
    return root / "runs" / run_id


def read_metrics(root: Path, run_id: str) -> list[dict[str, Any]]:
    """The lines of a run's metrics.jsonl, in order; empty when there is none.

    A last line that is cut off (the writer was killed) is left out.

    Raises:
        UserError: a line before the last is not JSON.
    """
    path = run_folder(root, run_id) / "metrics.jsonl"
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        return []
    records: list[dict[str, Any]] = []
    for number, line in enumerate(lines, 1):
        try:
            records.append(json.loads(line))
        except json.JSONDecodeError as error:
            if number == len(lines):
                break
            raise UserError(f"{path}, line {number}: not JSON ({error}); delete the line.") from None
    return records


def read_ledger(root: Path, run_id: str) -> dict[str, Any] | None:
    """A run's ledger.json (``sources``, ``bins``, ``tokens`` per source and bin), or None when there is none."""
    return _read_optional(run_folder(root, run_id) / "ledger.json")


def _read_plan(root: Path) -> dict[str, Any]:
    path = root / "plan.json"
    if not path.is_file():
        raise UserError(
            f"{root}: not the folder of a study run: it has no plan.json. "
            "Give the folder that `indelible run STUDY --out DIR` wrote."
        )
    plan = read_json(path)
    found = plan.get("format") if isinstance(plan, dict) else None
    if found != PLAN_FORMAT:
        raise UserError(f"{path}: format {found!r}, but this release reads format {PLAN_FORMAT}; plan the study again.")
    if not isinstance(plan.get("chains"), list):
        raise UserError(f"{path}: `chains` is missing or not a list; plan the study again.")
    return plan


def _read_optional(path: Path) -> dict[str, Any] | None:
    try:
        text = path.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        return None
    try:
        return json.loads(text)
    except ValueError as error:
        raise UserError(f"{path}: not a JSON file ({error}); delete it and run the study again.") from None
