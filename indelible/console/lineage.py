"""Where a run comes from and in what two runs differ: `show` and `diff`, from the files of the run folders."""

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from indelible.console.live import duration
from indelible.errors import UserError
from indelible.records import RUN_ID, Evaluation, Failure, Plan, StageResult
from indelible.scheduling.folder import SpecFile
from indelible.scheduling.lease import LeaseObserver, generations, read_beat, read_record
from indelible.study.identity import given_id, part_of

_FAILURE = re.compile(r"failure(\.\d+)?\.json")


@dataclass(frozen=True)
class RunFiles:
    """What the folder of a stage run says."""

    run_dir: Path
    head: SpecFile
    result: StageResult | None
    failure: Failure | None
    evaluations: tuple[Evaluation, ...]  # of its checkpoint, by corpus

    @property
    def status(self) -> str:
        """done, diverged, failed, running or planned, by this folder alone."""
        if self.result is not None:
            return self.result.status
        if self.failure is not None and self.failure.is_final:
            return "failed"
        return "running" if LeaseObserver().look(self.run_dir).is_held else "planned"

    @property
    def start(self) -> tuple[str, str | None] | None:
        """Id and folder (where the plan says it) of the given checkpoint that the run starts from."""
        place = self.run_dir / "spec.json"
        if part_of(self.head.spec, place, "init", of=(dict, type(None))) is None:
            return None
        given, plan = (
            given_id(part_of(self.head.spec, place, "init", "sha256", of=str)),
            Plan.read(self.run_dir.parents[1] / "plan.json"),
        )
        return given, plan.given.get(given) if plan is not None else None


def find_run(reference: Path) -> Path:
    """The run folder meant by a path to it, or by ``<study folder>/<beginning of a run id>``.

    Raises:
        UserError: there is none, or more than one.
    """
    if (reference / "spec.json").is_file():
        return reference
    found: list[Path] = []
    for folder in (reference.parent, reference.parent / "runs"):
        if folder.is_dir() and reference.name:
            found += [
                path.parent
                for path in sorted(folder.glob("*/spec.json"))
                if path.parent.name.startswith(reference.name)
            ]
    if len(found) == 1:
        return found[0]
    if not found:
        raise UserError(
            f"{reference}: no stage run; give the path of a folder with spec.json, e.g. DIR/runs/<run id>, or DIR and "
            "--arm column=value."
        )
    names = ", ".join(path.name for path in found[:5]) + (", ..." if len(found) > 5 else "")
    raise UserError(f"{reference}: {len(found)} stage runs begin so ({names}); give more of the id, or --arm.")


def read_run(run_dir: Path) -> RunFiles:
    """Reads a run folder.

    Raises:
        UserError: spec.json is missing or broken.
    """
    head = SpecFile.read(run_dir / "spec.json")
    if head is None:
        raise UserError(f"{run_dir}: no spec.json; this stage run has not begun.")
    folder = run_dir.parents[1] / "evaluations" / run_dir.name
    files = [path for path in sorted(folder.glob("*.json")) if not _FAILURE.fullmatch(path.name)]
    evaluations = [found for path in files if (found := Evaluation.read(path)) is not None]
    return RunFiles(
        run_dir,
        head,
        StageResult.read(run_dir / "result.json"),
        Failure.read(run_dir / "failure.json"),
        tuple(sorted(evaluations, key=lambda one: (one.corpus, one.id))),
    )


def ancestors(run: RunFiles) -> list[RunFiles]:
    """The run's parents, the nearest first, as far as their folders are there.

    Raises:
        UserError: a run is its own ancestor, or its parent is no plain folder name.
    """
    found, names = [run], {run.run_dir.name}
    while (parent := found[-1].head.parent) is not None:
        place = found[-1].run_dir / "spec.json"
        if not RUN_ID.fullmatch(parent) or parent in names:
            why = "which descends from it" if parent in names else "which is no stage run"
            raise UserError(f"{place}: parent is {parent!r}, {why}; the file was edited. Put back what it was.")
        if not (run.run_dir.parent / parent / "spec.json").is_file():
            break
        names.add(parent)
        found.append(read_run(run.run_dir.parent / parent))
    return found[1:]


def attempts(run_dir: Path) -> list[dict[str, Any]]:
    """One entry per attempt: worker, host, and how it ended (null: running, or its worker died)."""
    entries = []
    for generation in generations(run_dir):
        record, (_, beat) = read_record(run_dir, generation), read_beat(run_dir, generation)
        entries.append(
            {
                "attempt": generation,
                "worker": record.worker if record is not None else None,
                "host": record.owner.host if record is not None else None,
                "outcome": beat.get("outcome"),
                "seconds": beat.get("seconds"),
            }
        )
    return entries


def describe(run_dir: Path) -> dict[str, Any]:
    """Everything `show` prints, for machines."""
    run = read_run(run_dir)
    parents = ancestors(run)
    start = [*[run], *parents][-1].start
    return {
        "id": run.head.id,
        "stage": run.head.stage,
        "status": run.status,
        "parents": [{"id": parent.head.id, "status": parent.status} for parent in parents],
        "start": None if start is None else {"id": start[0], "folder": start[1]},
        "spec": run.head.spec,
        "result": None if run.result is None else run.result.model_dump(mode="json"),
        "evaluations": [one.model_dump(mode="json") for one in run.evaluations],
        "failure": None if run.failure is None else run.failure.model_dump(mode="json"),
        "now": LeaseObserver().look(run_dir).beat if run.status == "running" else None,
        "attempts": attempts(run_dir),
    }


def flat(value: Any, prefix: str = "") -> dict[str, Any]:
    """Nested dictionaries as one with dotted keys; class tags are left out."""
    if not isinstance(value, dict):
        return {prefix: value}
    leaves: dict[str, Any] = {}
    for key, item in value.items():
        if key != "class":
            leaves |= flat(item, f"{prefix}.{key}" if prefix else key)
    return leaves or {prefix: {}}


def render(run_dir: Path) -> RenderableType:
    """What `show` prints for people."""
    run, facts = read_run(run_dir), describe(run_dir)
    parts: list[RenderableType] = [Text(run.head.id, "bold"), Text(f"status: {run.status}")]
    line = [run.head.id, *(f"{parent['id']} ({parent['status']})" for parent in facts["parents"])]
    if facts["start"] is not None:
        line.append(f"{facts['start']['id']} ({facts['start']['folder'] or 'given checkpoint'})")
    parts += [Text(f"lineage: {' <- '.join(line)}"), Text()]
    if (now := facts["now"]) and now.get("step") is not None:
        loss = "" if now.get("loss") is None else f", loss {now['loss']:.4f}"
        parts += [Text(f"{now.get('phase')}: step {now['step']} of {now.get('total_steps')}{loss}"), Text()]
    if run.evaluations:
        parts += [_losses(run.evaluations), Text()]
    if any(one.metric for one in run.evaluations):
        parts += [_accuracies(run.evaluations), Text()]
    if (result := run.result) is not None:
        times = ", ".join(f"{name} {duration(getattr(result, f'{name}_seconds'))}" for name in _TIMES)
        parts += [Text(f"ended by {result.stop_reason} after {result.steps} of {result.total_steps} steps; {times}")]
        machine = ", ".join(f"{key} {value}" for key, value in result.environment.items())
        parts += [Text(f"machine: {machine}"), Text()]
    if (failure := run.failure) is not None:
        parts += [Text(f"{failure.kind}: {failure.type}: {failure.message}", "red"), Text()]
    spec = Table("field", "value", box=None, pad_edge=False)
    for key, value in flat(run.head.spec).items():
        spec.add_row(key, json.dumps(value, ensure_ascii=False))
    table = Table("attempt", "worker", "host", "ended", "seconds", box=None, pad_edge=False)
    for entry in facts["attempts"]:
        table.add_row(*("" if value is None else str(value) for value in entry.values()))
    return Group(*parts, spec, Text(), table)


_TIMES = ("trained", "eval", "total")


def _losses(evaluations: tuple[Evaluation, ...]) -> Table:
    table = Table("loss on", "nats/token", "± standard error", "bits/byte", "tokens", "documents", box=None)
    table.pad_edge = False
    for one in evaluations:
        if one.metric is not None:
            continue
        numbers = (_number(value) for value in (one.nats_per_token, one.standard_error, one.bits_per_byte))
        table.add_row(one.corpus, *numbers, f"{one.tokens:,}", f"{one.documents:,}")
    return table


def _accuracies(evaluations: tuple[Evaluation, ...]) -> Table:
    table = Table("accuracy on", "share", "± standard error", "examples", "cut", "measure", box=None, pad_edge=False)
    for one in evaluations:
        if one.metric is not None:
            table.add_row(one.corpus, _number(one.accuracy), _number(one.accuracy_se), f"{one.documents:,}",
                          f"{one.cut or 0:,}", one.metric)  # fmt: skip
    return table


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}"


_COMPARED = ("stop_reason", "steps", "weights_sha256", "precision")


def differences(first: Path, second: Path) -> dict[str, tuple[Any, Any]]:
    """Fields in which two runs differ: of their specs, and of results, losses and machines once both have a result.

    A field that one of them lacks is None there.
    """
    both = [read_run(run_dir) for run_dir in (first, second)]
    sides = []
    for run in both:
        facts: dict[str, Any] = {"stage": run.head.stage, "status": run.status, "spec": run.head.spec}
        if run.result is not None and all(other.result is not None for other in both):
            # else every figure would count as different
            facts["result"] = {key: getattr(run.result, key) for key in _COMPARED}
            facts["losses"] = {
                f"{one.corpus} ({one.windows} windows)": one.nats_per_token for one in run.evaluations if not one.metric
            }
            if accuracies := {f"{one.corpus}": one.accuracy for one in run.evaluations if one.metric}:
                facts["accuracies"] = accuracies
            facts["environment"] = run.result.environment
        sides.append(flat(facts))
    keys = [*sides[0], *(key for key in sides[1] if key not in sides[0])]
    return {key: (sides[0].get(key), sides[1].get(key)) for key in keys if sides[0].get(key) != sides[1].get(key)}


def sameness(first: Path, second: Path) -> str | None:
    """One sentence if two runs are the same: one folder, or equal settings, seed and start; None if they differ."""
    one, other = read_run(first), read_run(second)
    if first.resolve() == second.resolve():
        return f"A and B are the same run, {one.head.id}: what was chosen makes no difference to this stage."
    if one.head.id.rpartition("-")[2] == other.head.id.rpartition("-")[2] and one.head.spec == other.head.spec:
        return f"A and B are the same run, {one.head.id}, in two folders: equal settings, seed and start."
    return None


def render_differences(first: Path, second: Path) -> RenderableType:
    """What `diff` prints: whether the runs are the same, and one line for each field that differs."""
    found, same = differences(first, second), sameness(first, second)
    parts: list[RenderableType] = [Text(same)] if same else [Text(f"A: {first.name}"), Text(f"B: {second.name}")]
    weights = [run.result.weights_sha256 if (run := read_run(one)).result else None for one in (first, second)]
    if same is None and weights[0] is not None and weights[0] == weights[1]:
        parts.append(Text("Their weights are equal, bit for bit."))
    if not found:
        return Group(*parts, Text("No difference."))
    table = Table(box=None, pad_edge=False)
    table.add_column("field", no_wrap=True)
    for title in ("A", "B"):
        table.add_column(title, overflow="fold")
    for key, values in found.items():
        table.add_row(key, *(json.dumps(value, ensure_ascii=False) for value in values))
    return Group(*parts, table)
