"""A study folder as scheduling sees it: its plan, and where things are."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from indelible.errors import UserError
from indelible.files import write_text
from indelible.records import Plan, PlannedRun, Record, evaluation_path, run_dir
from indelible.study.identity import part_of
from indelible.study.stage_spec import EvaluationSpec, TaskEvaluation


class SpecFile(Record):
    """spec.json of a stage run: what was to be trained when the run was first taken up."""

    id: str
    stage: str
    parent: str | None
    spec: dict[str, Any]  # canonical, with class tags


def plan_stamp(out: Path) -> tuple[int, int, int]:
    """Identity of the plan.json now in the folder (inode, size, nanoseconds); changes when it is written again.

    Raises:
        UserError: there is none.
    """
    try:
        info = os.stat(out / "plan.json")
    except OSError:
        raise UserError(
            f"{out}: no plan.json; is this the --out folder of a study? `indelible run STUDY --out DIR` writes it."
        ) from None
    return info.st_ino, info.st_size, info.st_mtime_ns


@dataclass(frozen=True)
class StudyFolder:
    """The plan of a study folder, and the places of its files."""

    out: Path
    plan: Plan
    stamp: tuple[int, int, int]  # of the plan.json that was read

    @classmethod
    def open(cls, out: Path) -> "StudyFolder":
        """Reads and checks ``<out>/plan.json``.

        Raises:
            UserError: missing, another format, or it makes no sense.
        """
        stamp = plan_stamp(out)
        plan = Plan.read(out / "plan.json")
        if plan is None:
            raise UserError(f"{out}: plan.json has gone; `indelible run STUDY --out DIR` writes it.")
        return cls(out, plan, stamp)

    @cached_property
    def runs(self) -> dict[str, PlannedRun]:
        """Stage runs by id, parents before children."""
        return {run.id: run for run in self.plan.stage_runs}

    @property
    def tokens_dir(self) -> Path:
        """Folder of the token stores and of the tokenizer."""
        return self.out / "tokens"

    @property
    def token_folders(self) -> frozenset[str]:
        """Names of the folders below tokens/ that the plan needs."""
        return frozenset(name for name in (*self.plan.stores.values(), self.plan.tokenizer) if name)

    @cached_property
    def trained_corpora(self) -> frozenset[str]:
        """Corpora that some stage run shows."""
        place = self.out / "plan.json"
        data = [part_of(run.spec, place, "data", of=dict) for run in self.plan.stage_runs]
        mixes = [use for one in data for use in part_of(one, place, "mix", of=list)]
        stores = {part_of(use, place, "store", of=str) for use in (*(one.get("main") for one in data), *mixes)}
        return frozenset(corpus for corpus, store in self.plan.stores.items() if store in stores)

    @property
    def resume_bytes(self) -> int:
        """Size of the largest resume state, at most; 0 where the plan does not say."""
        size = self.plan.summary.get("resume_bytes_per_worker", 0)
        return size if isinstance(size, int) else 0

    def run_dir(self, run_id: str) -> Path:
        """Folder of a stage run."""
        return run_dir(self.out, run_id)

    def checkpoint_dir(self, checkpoint: str) -> Path:
        """Hugging Face folder of a stage run's checkpoint, or of a given one."""
        if checkpoint in self.plan.given:
            return Path(self.plan.given[checkpoint])
        return self.run_dir(checkpoint) / "checkpoint"

    def evaluations_dir(self, checkpoint: str) -> Path:
        """Folder of the evaluations of a checkpoint."""
        return evaluation_path(self.out, checkpoint, "any").parent

    def missing_evaluations(self, checkpoint: str) -> dict[str, EvaluationSpec]:
        """Planned evaluations of a checkpoint on held-out windows whose files are not there, by id."""
        missing = self._missing(checkpoint, self.plan.evaluations)
        return {
            name: self.plan.heldout[kind].model_copy(update={"checkpoint": checkpoint})
            for name, kind in missing.items()
        }

    def missing_tasks(self, checkpoint: str) -> dict[str, TaskEvaluation]:
        """The same of evaluations on tasks: a stage run makes none of them itself."""
        missing = self._missing(checkpoint, self.plan.task_evaluations)
        return {
            name: self.plan.tasks[number].model_copy(update={"checkpoint": checkpoint})
            for name, number in missing.items()
        }

    def is_evaluated(self, checkpoint: str) -> bool:
        """True if no evaluation of a checkpoint is missing."""
        return not (self.missing_evaluations(checkpoint) or self.missing_tasks(checkpoint))

    def _missing(self, checkpoint: str, plan: Mapping[str, Mapping[str, int]]) -> dict[str, int]:
        planned = plan.get(checkpoint, {})
        try:
            names = set(os.listdir(self.evaluations_dir(checkpoint))) if planned else set()
        except FileNotFoundError:
            names = set()
        return {name: kind for name, kind in planned.items() if f"{name}.json" not in names}


def has_other_spec(folder: Path, run: PlannedRun) -> bool:
    """True if the run's folder holds the work of another spec: spec.json and the plan disagree."""
    found = SpecFile.read(folder / "spec.json")
    return found is not None and found.spec != run.spec


def has_checkpoint(folder: Path) -> bool:
    """True if a run's folder still holds weights that a child can start from."""
    checkpoint = folder / "checkpoint"
    return (checkpoint / "config.json").is_file() and any(checkpoint.glob("*.safetensors"))


def earlier_plans(out: Path) -> list[Plan]:
    """Plans that were set aside as ``plan.<n>.json`` when another study took the folder, the oldest first."""
    found = []
    for number in _plan_numbers(out):
        plan = Plan.read(out / f"plan.{number}.json")
        if plan is not None:
            found.append(plan)
    return found


def _plan_numbers(out: Path) -> list[int]:
    middles = [path.name[len("plan.") : -len(".json")] for path in out.glob("plan.*.json")]
    return sorted(int(middle) for middle in middles if middle.isdigit())


def check_same_study(out: Path, new_plan: Plan, *, force: bool = False) -> None:
    """Sees to it that a plan that is about to be written hides no other study's work; call it before the writing.

    One folder, one study: it is another one if it has another name, or if none of what was finished is in the new plan.

    Args:
        out: folder of the study; nothing happens where it has no plan.
        new_plan: that would be written.
        force: take the folder all the same. The old plan is kept as ``plan.<n>.json``; `gc` then spares its runs.

    Raises:
        UserError: the folder holds another study, unless forced.
    """
    old = Plan.read(out / "plan.json")
    if old is None:
        return
    finished = [run.id for run in old.stage_runs if (run_dir(out, run.id) / "result.json").exists()]
    known = {run.id for run in new_plan.stage_runs}
    hides_all = bool(finished) and not known.intersection(finished)
    if old.name == new_plan.name and not hides_all:
        return
    if force:
        number = max(_plan_numbers(out), default=0) + 1
        write_text(out / f"plan.{number}.json", (out / "plan.json").read_text(encoding="utf-8"))
        return
    why = _what_changed(old, new_plan) if old.name == new_plan.name else f"the new study is {new_plan.name}"
    raise UserError(
        f"--out {out}: this folder holds study {old.name}, {len(finished)} of {len(old.stage_runs)} stage runs done; "
        f"{why}. One folder holds one study: use another --out, or --force, which keeps the old runs and their plan."
    )


def _what_changed(old: Plan, new: Plan) -> str:
    changed = [f"corpus {name}" for name in old.stores if new.stores.get(name, old.stores[name]) != old.stores[name]]
    changed += ["the tokenizer"] if new.tokenizer != old.tokenizer else []
    versions = [{run.spec.get("code_version") for run in plan.stage_runs} for plan in (old, new)]
    changed += ["the version of the engine"] if versions[0] != versions[1] else []
    if not changed:
        return "its settings have changed since, and none of these runs is in the new plan"
    return f"{', '.join(changed)} {'has' if len(changed) == 1 else 'have'} changed since"
