"""Reads the folder of a study run: its plan, and what stage runs and evaluations have left in it so far."""

import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from indelible.errors import UserError
from indelible.records import Evaluation, Failure, Plan, PlannedChain, StageResult, evaluation_name, run_dir, run_name


@dataclass(frozen=True)
class StudyRun:
    """What is known of one study run. Made once; every other room reads from it."""

    root: Path
    plan: Plan
    results: dict[str, StageResult]  # by run id, of the runs that have one
    failures: dict[str, Failure]  # by run id, of runs without a result; by checkpoint id, of its missing evaluations
    evaluations: dict[str, Evaluation]  # by evaluation id, of those that are made

    @cached_property
    def stages(self) -> tuple[str, ...]:
        """The names of the stages of all chains, each once, in an order that agrees with every chain."""
        order: list[str] = []
        for names in dict.fromkeys(tuple(chain.stages) for chain in self.plan.chains):
            for position, name in enumerate(names):
                if name not in order:
                    later = [order.index(other) for other in names[position:] if other in order]
                    order.insert(min(later, default=len(order)), name)
        return tuple(order)

    @cached_property
    def specs(self) -> dict[str, dict[str, Any]]:
        """The canonical spec of every stage run, by run id."""
        return {run.id: run.spec for run in self.plan.stage_runs}

    def own_corpus(self, run_id: str) -> str:
        """The corpus that a stage run trains on, without what is mixed in."""
        store = self.specs[run_id]["data"]["main"]["store"]
        return self._corpora.get(store, store)

    @cached_property
    def _corpora(self) -> dict[str, str]:
        """Token store folder to corpus."""
        return {store: corpus for corpus, store in self.plan.stores.items()}

    def planned_evaluations(self, chain: PlannedChain, checkpoint: str) -> dict[str, str]:
        """The evaluations that a chain has of one of its checkpoints: corpus to evaluation id.

        A given checkpoint may be evaluated on windows of several lengths; a chain has those of its own length.
        """
        return self._evaluations_by_length.get((checkpoint, self._seq_len(chain)), {})

    def checkpoints(self, chain: PlannedChain) -> dict[str, str]:
        """The checkpoints of a chain in order, by stage; ``start`` is the given checkpoint that it starts from."""
        return {**({"start": chain.start} if chain.start else {}), **chain.stages}

    @cached_property
    def _evaluations_by_length(self) -> dict[tuple[str, int], dict[str, str]]:
        kinds = [(self._corpora.get(kind.store, kind.store), kind.seq_len) for kind in self.plan.heldout]
        found: dict[tuple[str, int], dict[str, str]] = {}
        for checkpoint, wanted in self.plan.evaluations.items():
            for name, kind in wanted.items():
                corpus, seq_len = kinds[kind]
                found.setdefault((checkpoint, seq_len), {})[corpus] = name
        return found

    def _seq_len(self, chain: PlannedChain) -> int:
        return self.specs[next(iter(chain.stages.values()))]["seq_len"]


def read_study_run(root: Path) -> StudyRun:
    """Reads plan.json, and of what it names every result.json, failure.json and evaluation.

    Args:
        root: the folder that ``indelible run --out`` wrote.

    Raises:
        UserError: ``root`` has no plan.json, or one of the records cannot be read.
    """
    plan = Plan.read(root / "plan.json")
    if plan is None:
        raise UserError(
            f"{root}: not the folder of a study run: it has no plan.json. "
            "Give the folder that `indelible run STUDY --out DIR` wrote."
        )
    if not plan.chains:
        raise UserError(
            f"{root / 'plan.json'}: `chains` is missing or empty, and a table has a row a chain; plan the study again."
        )
    results: dict[str, StageResult] = {}
    failures: dict[str, Failure] = {}
    for run in plan.stage_runs:
        folder = f"{root}/{run_name(run.id)}"  # texts: to make tens of thousands of paths takes as long as to read them
        if (result := StageResult.read(f"{folder}/result.json")) is not None:
            results[run.id] = result
        elif (failure := Failure.read(f"{folder}/failure.json")) is not None:
            failures[run.id] = failure
    evaluations: dict[str, Evaluation] = {}
    for checkpoint, wanted in plan.evaluations.items():
        if checkpoint not in results and checkpoint not in plan.given:
            continue  # its stage run is not done
        for name in wanted:
            if (made := Evaluation.read(f"{root}/{evaluation_name(checkpoint, name)}")) is not None:
                evaluations[name] = made
        is_missing = any(name not in evaluations for name in wanted)
        if is_missing and (failure := Failure.read(f"{root}/{evaluation_name(checkpoint, 'failure')}")) is not None:
            failures[checkpoint] = failure
    return StudyRun(root, plan, results, failures, evaluations)


def read_metrics(root: Path, run_id: str, group: str = "") -> list[dict[str, Any]]:
    """The lines of a run's metrics.jsonl, in order; empty when there is none.

    A last line that is cut off (the writer was killed) is left out.

    Args:
        root: folder of the study run.
        run_id: of a stage run.
        group: only lines with keys of this group (``watch``); the others are not even parsed.

    Raises:
        UserError: a line before the last is not JSON.
    """
    path = run_dir(root, run_id) / "metrics.jsonl"
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        return []
    mark = f'"{group}/' if group else ""
    try:
        return json.loads(f"[{','.join(line for line in lines if mark in line)}]")  # at once: a third of the time
    except ValueError:
        records = _whole_lines(path, lines)
        return [record for record in records if not group or any(key.startswith(f"{group}/") for key in record)]


def _whole_lines(path: Path, lines: list[str]) -> list[dict[str, Any]]:
    records: list[dict[str, Any]] = []
    for number, line in enumerate(lines, 1):
        try:
            records.append(json.loads(line))
        except ValueError as error:
            if number == len(lines):
                break
            raise UserError(f"{path}, line {number}: not JSON ({error}); delete the line.") from None
    return records


def read_ledger(root: Path, run_id: str) -> dict[str, Any] | None:
    """A run's ledger.json (``sources``, ``bins``, ``tokens`` per source and bin), or None when there is none.

    Raises:
        UserError: it is not JSON.
    """
    path = run_dir(root, run_id) / "ledger.json"
    try:
        return json.loads(path.read_bytes())
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise UserError(f"{path}: not a JSON file ({error}); delete it and run the same command again.") from None
