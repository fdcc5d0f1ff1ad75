"""Reads the folder of a study run: its plan, and what stage runs and evaluations have left in it so far."""

import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Self

from pydantic import BaseModel, ValidationError, model_validator

from indelible.errors import UserError
from indelible.objectives.preference import MEASURES
from indelible.records import (
    Evaluation,
    Failure,
    Plan,
    PlannedChain,
    StageResult,
    Tally,
    evaluation_name,
    run_dir,
    run_name,
)
from indelible.strict import LARGEST, Positive
from indelible.study.identity import part_of

TASK_MEASURES = ("accuracy",)  # of an evaluation on a task


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
        store = self._part(run_id, "data", "main", "store", of=str)
        return self._corpora.get(store, store)

    def _part(self, run_id: str, *keys: str, of: type) -> Any:
        return part_of(self.specs[run_id], self.root / "plan.json", *keys, of=of)

    @cached_property
    def _corpora(self) -> dict[str, str]:
        """Token store folder to corpus."""
        return {store: corpus for corpus, store in self.plan.stores.items()}

    def planned_evaluations(self, chain: PlannedChain, checkpoint: str) -> dict[str, str]:
        """The evaluations that a chain has of one of its checkpoints: corpus or task to evaluation id.

        A given checkpoint may be evaluated on windows of several lengths; a chain has those of its own length.
        """
        found = self._evaluations_by_length.get((checkpoint, self.seq_len(chain)), {})
        tasks = self.plan.task_evaluations.get(checkpoint)
        return found | {self.plan.tasks[number].task: name for name, number in tasks.items()} if tasks else found

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

    @cached_property
    def pair_corpora(self) -> frozenset[str]:
        """The corpora that are made of pairs of answers."""
        return frozenset(self._corpora.get(kind.store, kind.store) for kind in self.plan.heldout if kind.pairs)

    def seq_len(self, chain: PlannedChain) -> int:
        """Tokens in a window of a chain, which all of its stages have in common."""
        return self._seq_lens[next(iter(chain.stages.values()))]

    @cached_property
    def _seq_lens(self) -> dict[str, int]:
        """By the run id of a chain's first stage: it is looked up for every chain, checkpoint and corpus."""
        first = dict.fromkeys(next(iter(chain.stages.values())) for chain in self.plan.chains)
        return {name: self._part(name, "seq_len", of=int) for name in first}

    @cached_property
    def tasks(self) -> frozenset[str]:
        """The names of the tasks that checkpoints are evaluated on."""
        return frozenset(task.task for task in self.plan.tasks)

    def measures_of(self, corpus: str) -> tuple[str, ...]:
        """What evaluations on a corpus of pairs or on a task measure beside a loss; nothing on any other corpus."""
        if corpus in self.tasks:
            return TASK_MEASURES
        return MEASURES if corpus in self.pair_corpora else ()


def read_plan(root: Path) -> Plan:
    """plan.json of a study run's folder.

    Raises:
        UserError: there is none, it cannot be read, or it has no chains.
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
    return plan


def read_study_run(root: Path) -> StudyRun:
    """Reads plan.json, and of what it names every result.json, failure.json and evaluation.

    Args:
        root: the folder that ``indelible run --out`` wrote.

    Raises:
        UserError: ``root`` has no plan.json, or one of the records cannot be read.
    """
    plan = read_plan(root)
    results: dict[str, StageResult] = {}
    failures: dict[str, Failure] = {}
    for run in plan.stage_runs:
        folder = f"{root}/{run_name(run.id)}"  # texts: to make tens of thousands of paths takes as long as to read them
        if (result := StageResult.read(f"{folder}/result.json")) is not None:
            _check_place(f"{folder}/result.json", result.id, run.id)
            results[run.id] = result
        elif (failure := Failure.read(f"{folder}/failure.json")) is not None:
            failures[run.id] = failure
    evaluations: dict[str, Evaluation] = {}
    for checkpoint in dict.fromkeys((*plan.evaluations, *plan.task_evaluations)):
        if checkpoint not in results and checkpoint not in plan.given:
            continue  # its stage run is not done
        wanted = (*plan.evaluations.get(checkpoint, {}), *plan.task_evaluations.get(checkpoint, {}))
        for name in wanted:
            path = f"{root}/{evaluation_name(checkpoint, name)}"
            if (made := Evaluation.read(path)) is not None:
                _check_place(path, f"{made.checkpoint}/{made.id}", f"{checkpoint}/{name}")
                evaluations[name] = made
        is_missing = any(name not in evaluations for name in wanted)
        if is_missing and (failure := Failure.read(f"{root}/{evaluation_name(checkpoint, 'failure')}")) is not None:
            failures[checkpoint] = failure
    return StudyRun(root, plan, results, failures, evaluations)


def _check_place(path: str, found: str, expected: str) -> None:
    """A record that was copied to another place would count as that one's."""
    if found != expected:
        raise UserError(
            f"{path}: holds the record of {found!r}, and {expected!r} is expected there; the file was edited or "
            "copied. Move it away and run the same command again."
        )


def read_metrics(root: Path, run_id: str, group: str = "") -> list[dict[str, Any]]:
    """The lines of a run's metrics.jsonl, in order; empty when there is none.

    A last line that is cut off (the writer was killed) is left out.

    Args:
        root: folder of the study run.
        run_id: of a stage run.
        group: only lines with keys of this group (``watch``); the others are not even parsed.

    Raises:
        UserError: a line before the last is not JSON, or one is no line of metrics.
    """
    path = run_dir(root, run_id) / "metrics.jsonl"
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return []
    lines = data.split(b"\n")
    if lines[-1] == b"":
        lines.pop()
    mark = f'"{group}/'.encode() if group else b""
    records: list[dict[str, Any]] = []
    for number, line in enumerate(lines, 1):
        if mark not in line:
            continue  # of another group: a curve has few lines of many
        try:
            record = json.loads(line)
        except (ValueError, RecursionError) as error:
            if number == len(lines):
                break
            raise UserError(f"{path}, line {number}: not JSON ({error}); delete the line.") from None
        if reason := _wrong_in_metrics(record):
            raise UserError(f"{path}, line {number}: {reason}; the file was edited. Delete the line.")
        records.append(record)
    return records


def _wrong_in_metrics(record: Any) -> str:
    """Why this is no line of metrics; empty if it is one. Numbers that are not finite stand there as text."""
    if not isinstance(record, dict):
        return f"found a {type(record).__name__}, and each line is an object"
    for key, value in record.items():
        if key in ("step", "tokens"):
            if type(value) is not int or not 0 <= value <= LARGEST:
                return f"{key} is {value!r:.40}, and a count is expected"
        elif isinstance(value, bool) or not (isinstance(value, int | float) or value in NOT_FINITE or value is None):
            return f"{key} is {value!r:.40}, and a number is expected"
        elif isinstance(value, int) and abs(value) > LARGEST:
            return f"{key} is {value:.3g}, and a number up to {LARGEST:.3g} is expected"
    return "" if "step" in record else "it has no step"


NOT_FINITE = ("nan", "inf", "-inf")  # as they are written


class LedgerPicture(BaseModel):
    """ledger.json of a stage run: tokens by use in equal parts of the stage."""

    sources: tuple[str, ...]  # the stage's own corpus first
    bins: Positive
    tokens: tuple[tuple[Tally, ...], ...]  # by source and bin

    @model_validator(mode="after")
    def _is_a_table(self) -> Self:
        if len(self.tokens) != len(self.sources) or any(len(row) != self.bins for row in self.tokens):
            raise ValueError(f"tokens is no table of {len(self.sources)} sources and {self.bins} bins")
        return self


def read_ledger(root: Path, run_id: str) -> LedgerPicture | None:
    """A run's ledger.json, or None when there is none.

    Raises:
        UserError: it is not such a record.
    """
    path = run_dir(root, run_id) / "ledger.json"
    try:
        return LedgerPicture.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        return None
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "the record"
        raise UserError(f"{path}: {where}: {first['msg']}; the file was edited or cut. Delete it.") from None
