"""Where a run comes from and in what two runs differ: `show` and `diff`, from the files of the run folders."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from indelible.errors import UserError
from indelible.files import read_json
from indelible.lab.lease import LeaseObserver, latest_generation, read_beat, read_record
from indelible.lab.runs import read_optional
from indelible.lab.watch import duration


@dataclass(frozen=True)
class RunFiles:
    """What the folder of a stage run says."""

    run_dir: Path
    id: str
    stage: str
    parent: str | None
    spec: dict[str, Any]
    result: dict[str, Any] | None
    failure: dict[str, Any] | None

    @property
    def status(self) -> str:
        """done, diverged, failed, running or planned, by this folder alone."""
        if self.result is not None:
            return str(self.result["status"])
        if self.failure is not None and self.failure.get("is_final"):
            return "failed"
        return "running" if LeaseObserver().look(self.run_dir).is_held else "planned"


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
        raise UserError(f"{reference}: no stage run; give the path of a folder with spec.json, e.g. DIR/runs/<run id>.")
    names = ", ".join(path.name for path in found[:5]) + (", ..." if len(found) > 5 else "")
    raise UserError(f"{reference}: {len(found)} stage runs begin so ({names}); give more of the id.")


def read_run(run_dir: Path) -> RunFiles:
    """Reads a run folder.

    Raises:
        UserError: spec.json is missing or broken.
    """
    head = read_json(run_dir / "spec.json")
    result, failure = read_optional(run_dir / "result.json"), read_optional(run_dir / "failure.json")
    return RunFiles(run_dir, head["id"], head["stage"], head["parent"], head["spec"], result, failure)


def ancestors(run: RunFiles) -> list[RunFiles]:
    """The run's parents, the nearest first, as far as their folders are there."""
    found: list[RunFiles] = []
    while run.parent is not None and (run.run_dir.parent / run.parent / "spec.json").is_file():
        run = read_run(run.run_dir.parent / run.parent)
        found.append(run)
    return found


def attempts(run_dir: Path) -> list[dict[str, Any]]:
    """One entry per attempt: worker, host, and how it ended (null: running, or its worker died)."""
    entries = []
    for generation in range(1, latest_generation(run_dir) + 1):
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
    return {
        "id": run.id,
        "stage": run.stage,
        "status": run.status,
        "parents": [{"id": parent.id, "status": parent.status} for parent in ancestors(run)],
        "spec": run.spec,
        "result": run.result,
        "failure": run.failure,
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
    facts = describe(run_dir)
    parts: list[RenderableType] = [Text(facts["id"], "bold"), Text(f"status: {facts['status']}")]
    lineage = " <- ".join([facts["id"], *(f"{parent['id']} ({parent['status']})" for parent in facts["parents"])])
    parts += [Text(f"lineage: {lineage}"), Text()]
    result, now = facts["result"], facts["now"]
    if now and now.get("step") is not None:
        loss = "" if now.get("loss") is None else f", loss {now['loss']:.4f}"
        parts += [Text(f"{now.get('phase')}: step {now['step']} of {now.get('total_steps')}{loss}"), Text()]
    if result is not None:
        losses = Table("loss on", "nats/token", "bits/byte", "held-out tokens", box=None, pad_edge=False)
        for corpus, loss in result.get("losses", {}).items():
            bits = loss.get("bits_per_byte")
            shown = (
                f"{loss['nats_per_token']:.4f}",
                "" if bits is None else f"{bits:.4f}",
                str(loss.get("tokens", "")),
            )
            losses.add_row(corpus, *shown)
        times = ", ".join(f"{name} {duration(result.get(f'{name}_seconds'))}" for name in ("trained", "eval", "total"))
        parts += [losses, Text(f"ended by {result.get('stop_reason')}; {times}")]
        machine = ", ".join(f"{key} {value}" for key, value in (result.get("environment") or {}).items())
        parts += [Text(f"machine: {machine}"), Text()]
    if facts["failure"] is not None:
        failure = facts["failure"]
        parts += [Text(f"{failure['kind']}: {failure['type']}: {failure['message']}", "red"), Text()]
    spec = Table("field", "value", box=None, pad_edge=False)
    for key, value in flat(facts["spec"]).items():
        spec.add_row(key, json.dumps(value, ensure_ascii=False))
    table = Table("attempt", "worker", "host", "ended", "seconds", box=None, pad_edge=False)
    for entry in facts["attempts"]:
        table.add_row(*("" if value is None else str(value) for value in entry.values()))
    return Group(*parts, spec, Text(), table)


_COMPARED = ("stop_reason", "steps", "losses", "weights_sha256", "precision")


def differences(first: Path, second: Path) -> dict[str, tuple[Any, Any]]:
    """Fields in which two runs differ: of their specs, and of results and machines once both have a result.

    A field that one of them lacks is None there.
    """
    sides = []
    both = [read_run(run_dir) for run_dir in (first, second)]
    for run in both:
        facts: dict[str, Any] = {"stage": run.stage, "status": run.status, "spec": run.spec}
        if all(other.result is not None for other in both):  # else every figure would count as different
            result = run.result or {}
            facts["result"] = {key: result.get(key) for key in _COMPARED}
            facts["environment"] = result.get("environment") or {}
        sides.append(flat(facts))
    keys = [*sides[0], *(key for key in sides[1] if key not in sides[0])]
    return {key: (sides[0].get(key), sides[1].get(key)) for key in keys if sides[0].get(key) != sides[1].get(key)}


def render_differences(first: Path, second: Path) -> RenderableType:
    """What `diff` prints: one line for each field that differs."""
    found = differences(first, second)
    if not found:
        return Text("No difference.")
    table = Table(box=None, pad_edge=False)
    table.add_column("field", no_wrap=True)
    for title in ("A", "B"):
        table.add_column(title, overflow="fold")
    for key, values in found.items():
        table.add_row(key, *(json.dumps(value, ensure_ascii=False) for value in values))
    return Group(Text(f"A: {first.name}"), Text(f"B: {second.name}"), table)
