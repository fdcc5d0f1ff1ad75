"""Packs a study run into one file that others can read: records, tables, page and verdicts, but no weights or text."""

import json
import tempfile
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from indelible import __version__
from indelible.errors import UserError
from indelible.files import atomic_write, file_sha256, read_json
from indelible.records import Bundle, Environment, Plan, documents_path, evaluation_name, run_name
from indelible.study.yaml_reader import read_mapping, write_yaml
from indelible.workflow.private_paths import ShortPaths
from indelible.workflow.unbundling import checked

if TYPE_CHECKING:
    from indelible.workflow.reading import StudyRuns

_TIME = (1980, 1, 1, 0, 0, 0)  # of every file: the same content gives the same bytes
_OF_A_FAILURE = ("traceback", "worker", "host")  # names of the sender's machine
_OF_A_STUDY = ("plan.json", "packing.json", "looks.json")


@dataclass(frozen=True)
class WrittenBundle:
    """What `write_bundle` has written."""

    path: Path
    num_files: int
    num_chains: int


def write_bundle(runs: "StudyRuns", path: str | Path | None = None, *, has_curves: bool = True) -> WrittenBundle:
    """Writes everything that commands read of a study run into one zip file.

    It holds the plan, the study file, result, failure, ledger and curves of every stage run, all evaluations with their
    losses by document; and made from these: the tables as Parquet, the page, the verdicts, versions and machines.
    Absolute paths are replaced by their last part. The same content gives the same bytes.

    Args:
        runs: of one folder.
        path: of the file; None = bundle.zip in the folder.
        has_curves: False leaves metrics.jsonl out, most of a bundle's size.

    Raises:
        UserError: these are tables or several folders, there is no plan, or the file would not be a .zip.
    """
    root = runs.folder
    target = root / "bundle.zip" if path is None else Path(path)
    if target.suffix != ".zip":
        raise UserError(f"bundle -o {target}: the file is a zip; end its name in .zip.")
    if target.exists() and any(place.is_file() and target.samefile(place) for place in runs.places):
        raise UserError(f"bundle -o {target}: this is the bundle that is read; name another file.")
    with tempfile.TemporaryDirectory(prefix="indelible-") as temporary:
        folder = Path(temporary)
        plan = runs.plan
        environments = _copy(root, folder, plan, has_curves=has_curves)
        record = Bundle(
            name=plan.name, indelible=__version__, has_curves=has_curves, environments=environments, files={}
        )
        record.write(folder / "bundle.json")  # so that the page knows that its folder is one
        num_chains = _derive(folder)
        names = sorted({str(one.relative_to(folder)) for one in folder.rglob("*") if one.is_file()} - {"bundle.json"})
        digests = {name: file_sha256(folder / name) for name in names}
        record.model_copy(update={"files": digests}).write(folder / "bundle.json")
        with atomic_write(target) as unfinished:
            _zip(folder, ["bundle.json", *names], unfinished)
            with zipfile.ZipFile(unfinished) as archive:
                checked(target, archive)  # nothing that cannot be read is written
    return WrittenBundle(target, len(names) + 1, num_chains)


def _copy(root: Path, folder: Path, plan: Plan, *, has_curves: bool) -> tuple[Environment, ...]:
    """Copies the records without paths of this machine; returns versions and machines of the results."""
    paths = ShortPaths()
    counts: dict[str, int] = {}
    for name in (*_OF_A_STUDY, *_records(plan)):
        if not (root / name).is_file():
            continue
        value = _without_cluster(paths.clean(read_json(root / name)))
        if name.endswith("/failure.json"):
            value = {key: child for key, child in value.items() if key not in _OF_A_FAILURE}
        if name.endswith("/result.json"):
            key = json.dumps(value.get("environment", {}), sort_keys=True)
            counts[key] = counts.get(key, 0) + 1
        _write(folder / name, (json.dumps(value, ensure_ascii=False, allow_nan=False) + "\n").encode())
    study = root / "study.yaml"
    if study.is_file():
        cleaned = _without_cluster(paths.clean(read_mapping(study.read_bytes(), str(study))))
        _write(folder / "study.yaml", write_yaml(cleaned).encode())
    for name in _numbers(root, plan, has_curves=has_curves):  # without a word in them
        if (root / name).is_file():
            _write(folder / name, (root / name).read_bytes())
    return tuple(Environment(runs=number, versions=json.loads(key)) for key, number in sorted(counts.items()))


def _without_cluster(record: Any) -> Any:
    """A record without execution.slurm: partitions and accounts are nobody else's, and change no result."""
    execution = record.get("execution") if isinstance(record, dict) else None
    if not isinstance(execution, dict) or "slurm" not in execution:
        return record
    return {**record, "execution": {key: value for key, value in execution.items() if key != "slurm"}}


def _records(plan: Plan) -> Iterator[str]:
    for run in plan.stage_runs:
        yield from (f"{run_name(run.id)}/{what}.json" for what in ("result", "failure", "ledger"))
    for checkpoint, name in _evaluations(plan):
        yield evaluation_name(checkpoint, name)
    for checkpoint in dict.fromkeys(checkpoint for checkpoint, _ in _evaluations(plan)):
        yield evaluation_name(checkpoint, "failure")


def _numbers(root: Path, plan: Plan, *, has_curves: bool) -> Iterator[str]:
    if has_curves:
        yield from (f"{run_name(run.id)}/metrics.jsonl" for run in plan.stage_runs)
    for checkpoint, name in _evaluations(plan):
        yield str(documents_path(root, checkpoint, name).relative_to(root))


def _evaluations(plan: Plan) -> Iterator[tuple[str, str]]:
    for wanted in (plan.evaluations, plan.task_evaluations):
        yield from ((checkpoint, name) for checkpoint, names in wanted.items() for name in names)


def _write(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


def _derive(folder: Path) -> int:
    """Tables, page and verdicts, from the copy: what it does not hold they cannot say. Returns the number of chains."""
    from indelible.results.table import write_table
    from indelible.workflow.reading import StudyRuns

    runs = StudyRuns(folder)
    table = runs.results()
    write_table(table, folder / "results.parquet", "parquet")
    write_table(runs.losses(), folder / "losses.parquet", "parquet")
    runs.report(folder / "report.html")
    verdicts: list[dict[str, Any]] = [one.as_json() for one in runs.verdicts()]
    _write(folder / "verdicts.json", (json.dumps(verdicts, indent=1, allow_nan=False) + "\n").encode())
    return table.height


def _zip(folder: Path, names: list[str], target: Path) -> None:
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED, compresslevel=6) as archive:
        for name in names:
            info = zipfile.ZipInfo(name, _TIME)
            info.compress_type = zipfile.ZIP_DEFLATED
            info.create_system, info.external_attr = 3, 0o100644 << 16  # a plain file that all may read
            archive.writestr(info, (folder / name).read_bytes(), compresslevel=6)
