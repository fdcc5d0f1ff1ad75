"""Whatever stands in the files of a study folder, commands read it or say what is wrong, and nothing of it is lost.

A hundred mutants of each kind of file; ``FUZZ_MUTANTS=2000`` takes more (docs/security.md has the figures).
"""

import importlib.util
import io
import itertools
import json
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import pytest
from fake_files import write_documents
from fake_study import FakeStudy, write_fake_study
from fuzzing import COUNT, expect_both, feed
from mutations import json_mutants, mutants
from tiny_engine import TINY, job_of, layered, loop_of, runs_of
from token_folder import plan_on_arrays

from indelible.claims.looks import read_looks
from indelible.cli.terminal import console
from indelible.console import lineage, live
from indelible.errors import UserError
from indelible.report.charts_ledger import ledger_figure
from indelible.results.table import table_bytes
from indelible.scheduling import failures
from indelible.scheduling.cleanup import find_garbage
from indelible.scheduling.engine import Engine
from indelible.scheduling.folder import StudyFolder
from indelible.scheduling.launcher import _check_specs
from indelible.scheduling.run_index import RunIndex
from indelible.scheduling.snapshot import look, snapshot_of
from indelible.scheduling.worker import Worker
from indelible.train.job import StageJob
from indelible.train.resuming import resume
from indelible.workflow.reading import open_runs
from indelible.workflow.reporting import write_report

WORDS = [b'"id"', b'"done"', b'"diverged"', b'"format": 2', b'"tokens"', b"{}\n", b'{"step": 3}\n']


def edited(path: Path, seed: int, count: int = COUNT) -> Iterator[bytes]:
    """Mutants of a file: one half of its bytes, the other half JSON still, where it is JSON."""
    data = path.read_bytes()
    try:
        value = json.loads(data)
    except ValueError:  # JSON lines: one line of them is edited
        if path.suffix != ".jsonl":
            yield from mutants(data, count, seed, WORDS)
            return
        yield from mutants(data, count // 2, seed, WORDS)
        lines = data.splitlines(keepends=True)
        for number in range(count - count // 2):
            at = number * 7 % len(lines)
            (line,) = json_mutants(json.loads(lines[at]), 1, seed + number)
            yield b"".join([*lines[:at], line.replace(b"\n", b" ") + b"\n", *lines[at + 1 :]])
        return
    yield from mutants(data, count // 2, seed, WORDS)
    yield from json_mutants(value, count - count // 2, seed)


def contents(folder: Path) -> dict[str, bytes]:
    """Every file of a folder by its path below it."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def all_of(*steps: Callable[[], object]) -> None:
    """Does everything; what was refused is raised at the end, whatever else was raised at once."""
    refusals = []
    for step in steps:
        try:
            step()
        except UserError as error:
            refusals.append(error)
    if refusals:
        raise refusals[0]


# ---- a finished study, and the commands that read it


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    fake = FakeStudy(fractions=(0.0, 1.0), post_tokens=(10_000,), finetune_lrs=(1e-4,), seeds=(0, 1), is_watched=True)
    root = write_fake_study(tmp_path_factory.mktemp("finished") / "study", fake)
    for checkpoint in sorted(path.name for path in (root / "evaluations").glob("finetune-*")):
        write_documents(root, checkpoint, "music", [40, 50, 60], [100.0, 120.0, 150.0])
    one = {
        "claim": "retained-lower",
        "scope": "all",
        "number": 0,
        "num_seeds": 3,
        "planned": [3, 5, 8],
        "level": 0.05,
        "nominal": 0.01,
        "effect": -0.1,
        "low": -0.2,
        "high": 0.1,
        "p_support": 0.2,
        "p_against": 0.9,
    }
    (root / "looks.json").write_text(json.dumps([{**one, "decision": "open"}]))
    return root


def readers(out: Path, aside: Path) -> list[tuple[Callable[[], object], ...]]:
    """What reads a study folder, in turns: the page, which takes seconds, least often."""
    runs = open_runs(out)
    ids = sorted(path.name for path in (out / "runs").glob("finetune-*"))

    def table() -> None:
        for format_name in ("json", "csv"):
            table_bytes(runs.results(), format_name)

    def long_tables() -> None:
        table_bytes(runs.losses(), "json")
        table_bytes(runs.curves(), "csv")

    def status() -> None:
        snapshot = snapshot_of(out)
        json.dumps(snapshot.as_json(), allow_nan=False)
        console(file=io.StringIO(), width=200).print(live.render(snapshot, width=200))

    turns = [
        (table, long_tables),
        (table, status, lambda: find_garbage(StudyFolder.open(out))),
        (table, runs.verdicts, lambda: read_looks(out)),
        (lambda: runs.compare("exposure_fraction"), lambda: ledger_figure(runs.results(), runs.read())),
        (lambda: runs.compare_documents(ids[0], ids[1], "music"),),
        (lambda: write_report(runs, aside / "report.html"),),
    ]
    return [*turns, *turns[:-1] * 19]


FILES = {
    "plan": "plan.json",
    "result": "runs/{finetune}/result.json",
    "failure": "runs/{failed}/failure.json",
    "metrics": "runs/{finetune}/metrics.jsonl",
    "ledger": "runs/{pretrain}/ledger.json",
    "evaluation": "evaluations/{finetune}/music-*[0-9a-f].json",
    "losses by document": "evaluations/{finetune}/music-*.documents.parquet",
    "looks": "looks.json",
}


@pytest.mark.parametrize("kind", FILES)
def test_a_finished_study(tmp_path: Path, finished: Path, kind: str) -> None:
    out = shutil.copytree(finished, tmp_path / "study")
    ids = sorted(path.name for path in (out / "runs").iterdir())
    named = {stage: next(name for name in ids if name.startswith(stage)) for stage in ("finetune", "pretrain")}
    named["pretrain"] = next(name for name in ids if name.startswith("pretrain-e1"))  # something is mixed in
    if kind == "failure":
        named["failed"] = ids[0]
        shutil.move(out / "runs" / ids[0] / "result.json", tmp_path / "result.json")
        write_failure(out / "runs" / ids[0])
    (path,) = out.glob(FILES[kind].format(**named))
    turns, before = itertools.cycle(readers(out, tmp_path)), contents(out)
    for steps in readers(out, tmp_path)[1:6]:
        all_of(*steps)  # as it stands, all of it is read

    def read(data: bytes) -> None:
        path.write_bytes(data)
        try:
            all_of(*next(turns))
        finally:
            now = contents(out)
            assert now.pop(str(path.relative_to(out))) == data, "a command that reads has changed the file"
            assert now == {name: one for name, one in before.items() if name != str(path.relative_to(out))}

    expect_both(feed(edited(path, 11), read))


def write_failure(folder: Path) -> None:
    record = {
        "format": 1,
        "id": folder.name,
        "kind": "infrastructure",
        "type": "OSError",
        "message": "I/O",
        "attempt": 1,
    }
    (folder / "failure.json").write_text(json.dumps({**record, "failures": 1, "is_final": True, "worker": "w"}))


# ---- a study under way: status, show, gc, and workers that go on with it


@pytest.fixture(scope="module")
def fake() -> ModuleType:
    if "fake_engine" not in sys.modules:
        file = Path(__file__).parents[1] / "scheduling/fake_engine.py"
        spec = importlib.util.spec_from_file_location("fake_engine", file)
        assert spec is not None
        assert spec.loader is not None
        sys.modules["fake_engine"] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(sys.modules["fake_engine"])
    return sys.modules["fake_engine"]


DONE, OPEN = "pretrain-a", "finetune-b"


@pytest.fixture(scope="module")
def under_way(tmp_path_factory: pytest.TempPathFactory, fake: ModuleType) -> Path:
    """One stage run is done; a second was begun, saved a state, and lost its worker."""
    out = tmp_path_factory.mktemp("under-way") / "study"
    fake.make_plan(out, [(DONE, None, {"steps": 2})])
    assert Worker(out, "w", engine=engine(fake), beat_seconds=30).work() == 0
    fake.make_plan(out, [(DONE, None, {"steps": 2}), (OPEN, DONE, {"steps": 2})])
    run = out / "runs" / OPEN
    shutil.copytree(out / "runs" / DONE / "lease", run / "lease")
    beat = {"count": 9, "outcome": None, "seconds": 3.5, "phase": "training", "step": 1, "total_steps": 2, "loss": 3.2}
    beat |= {"lr": 1e-3, "grad_norm": 0.5, "tokens": 64, "tokens_per_second": 10.0, "seconds_left": 4.0}
    (run / "lease/1.beat").write_text(json.dumps(beat))
    spec = {"format": 1, "id": OPEN, "stage": "finetune", "parent": DONE, "spec": {"init": None, "steps": 2}}
    (run / "spec.json").write_text(json.dumps(spec))
    write_failure(run)
    return out


def engine(fake: ModuleType) -> Engine:
    return Engine(fake.run_stage, fake.run_evaluations)


def show(out: Path) -> None:
    run = out / "runs" / OPEN
    json.dumps(lineage.describe(run), allow_nan=False)
    screen = console(file=io.StringIO(), width=100)
    screen.print(lineage.render(run))
    screen.print(lineage.render_differences(run, out / "runs" / DONE))


def go_on(out: Path, fake: ModuleType) -> None:
    """What `run` does with a folder that has its plan, in this process."""
    folder = StudyFolder.open(out)
    _check_specs(folder)
    index = RunIndex(folder, lease_seconds=0.02)
    look(index)
    failures.clear_failures(unit.folder for unit in index.units.values())
    assert Worker(out, "w", engine=engine(fake), lease_seconds=0.02, beat_seconds=30).work() == 0
    assert snapshot_of(out, lease_seconds=0.02).is_settled


@pytest.mark.parametrize(
    "name",
    [
        *("plan.json", f"runs/{DONE}/result.json", f"runs/{DONE}/spec.json", f"runs/{OPEN}/spec.json"),
        *(f"runs/{OPEN}/failure.json", f"runs/{OPEN}/lease/1.json", f"runs/{OPEN}/lease/1.beat"),
    ],
)
def test_a_study_under_way(tmp_path: Path, under_way: Path, fake: ModuleType, name: str) -> None:
    numbers = itertools.count()

    def read(data: bytes) -> None:
        out = shutil.copytree(under_way, tmp_path / f"{next(numbers)}")
        (out / name).write_bytes(data)
        before = contents(out)
        try:
            all_of(lambda: snapshot_of(out), lambda: show(out), lambda: find_garbage(StudyFolder.open(out)))
        finally:
            assert contents(out) == before, "a command that reads has changed a file"
        try:
            go_on(out, fake)
        finally:
            now = list(contents(out).values())
            own = ("finished.log", f"runs/{OPEN}/lease/1.beat" if name != f"runs/{OPEN}/lease/1.beat" else "")
            lost = [path for path, content in before.items() if content not in now and path not in own]
            assert not lost, "what a file held stands nowhere any more"
            shutil.rmtree(out)

    ends = feed(edited(under_way / name, 12), read)
    assert ends["read"]


# ---- a stage that was stopped half-way, and goes on


@pytest.fixture
def stopped(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, StageJob]:
    """A real stage that was stopped after its second step: its resume state, and metrics up to the third step."""
    out = plan_on_arrays(tmp_path_factory.mktemp("stopped") / "out", layered(TINY, {"precision": "fp32"}), 512)
    loop = loop_of(out)
    while loop.state.step < 2:
        assert loop._timed_update()
    loop.save()
    assert loop._timed_update()
    return out, job_of(out, runs_of(out, "pretrain")[0])


def is_equal(data: bytes, original: bytes) -> bool:
    try:
        return bool(json.loads(data) == json.loads(original))
    except (ValueError, RecursionError):
        return False


@pytest.mark.parametrize("name", ["resume/step-000000002/state.json", "metrics.jsonl"])
def test_a_stage_that_goes_on(tmp_path: Path, stopped: tuple[Path, StageJob], name: str) -> None:
    out, job = stopped
    before = shutil.copytree(job.run_dir, tmp_path / "before")
    loop = loop_of(out)
    lines = (before / "metrics.jsonl").read_bytes().splitlines(keepends=True)
    assert [json.loads(line)["step"] for line in lines] == [1, 2, 3]

    def go_on(data: bytes) -> None:
        shutil.rmtree(job.run_dir)
        shutil.copytree(before, job.run_dir)
        (job.run_dir / name).write_bytes(data)
        is_resumed, _ = resume(loop, job)
        if name == "metrics.jsonl" or data == (before / name).read_bytes():
            assert is_resumed
        elif is_resumed:
            assert is_equal(data, (before / name).read_bytes()), "a changed state was used"
        kept = (job.run_dir / "metrics.jsonl").read_bytes().splitlines(keepends=True)
        if name == "metrics.jsonl":
            later = [line for line in data.splitlines(keepends=True) if line.strip() and line.rstrip() not in
                     [one.rstrip() for one in kept]]  # fmt: skip
            assert all(line is later[-1] or json.loads(line)["step"] > 2 for line in later), "a line was lost"
        elif not is_resumed:
            assert kept == [], "it starts anew"

    ends = feed(edited(before / name, 13), go_on)
    assert ends["read"] == sum(ends.values())
