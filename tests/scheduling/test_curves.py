"""Curves asked of runs that are done: they are trained again for them, and nothing else waits."""

from collections import Counter
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from indelible.records import Plan, PlannedRun, StageResult
from indelible.scheduling import cleanup
from indelible.scheduling.curves import lacks_curves, watch_of
from indelible.scheduling.engine import Engine, load_engine
from indelible.scheduling.folder import StudyFolder
from indelible.scheduling.jobs import stage_job
from indelible.scheduling.run_index import RunIndex, Status
from indelible.scheduling.snapshot import snapshot_of
from indelible.scheduling.worker import Worker
from indelible.study.training import WatchSpec

RUNS: list[tuple[str, str | None, dict[str, Any]]] = [
    ("pretrain-a", None, {"steps": 2}),
    ("finetune-b", "pretrain-a", {"steps": 2}),
]
WATCH = {"pretrain-a": WatchSpec(corpora=("music",), steps=(0, 2))}


def _work(out: Path) -> None:
    assert Worker(out, "w", engine=load_engine("fake_engine:run_stage")).work() == 0


def _finished(out: Path) -> Counter[str]:
    return Counter((out / "finished.log").read_text().split())


def _result(out: Path, run_id: str) -> StageResult:
    result = StageResult.read(out / "runs" / run_id / "result.json")
    assert result is not None
    return result


def test_a_run_that_is_done_is_run_again_for_its_curves(tmp_path: Path, fake: ModuleType) -> None:
    out = fake.make_plan(tmp_path / "out", RUNS)
    _work(out)
    before = _result(out, "pretrain-a")
    fake.make_plan(out, RUNS, watch=WATCH)
    snapshot = snapshot_of(out)
    assert {name: state.status for name, state in snapshot.states.items()} == {
        "pretrain-a": Status.PLANNED,
        "finetune-b": Status.DONE,
    }
    assert not snapshot.is_settled
    code, text = fake.run_quietly(out, 1)
    assert (code, "pretrain-a: done" in text) == (0, True)
    assert _finished(out) == {"pretrain-a": 2, "finetune-b": 1}
    assert _result(out, "pretrain-a") == before.model_copy(update={"watched": WATCH["pretrain-a"]})
    assert "Nothing to do" in fake.run_quietly(out)[1]


def test_children_do_not_wait_for_the_curves_of_their_parent(tmp_path: Path, fake: ModuleType) -> None:
    out = fake.make_plan(tmp_path / "out", RUNS[:1])
    _work(out)
    fake.make_plan(out, RUNS, watch=WATCH)
    index = RunIndex(StudyFolder.open(out))
    assert {unit.id for unit, _ in index.ready()} == {"pretrain-a", "finetune-b"}
    assert index.scan()["finetune-b"].status is Status.PLANNED


def test_curves_that_cannot_be_had_leave_the_result_and_the_children_alone(tmp_path: Path, fake: ModuleType) -> None:
    out = fake.make_plan(tmp_path / "out", RUNS[:1])
    _work(out)
    before = _result(out, "pretrain-a")
    fake.make_plan(out, RUNS, watch=WATCH)

    def blind(job: Any, *, progress: Any, guard: Any) -> None:
        fake.run_stage(job.model_copy(update={"watch": None}), progress=progress, guard=guard)

    assert Worker(out, "w", engine=Engine(blind, fake.run_evaluations)).work() == 0
    states = snapshot_of(out).states
    assert states["pretrain-a"].status is Status.FAILED
    assert "without recording the curves" in states["pretrain-a"].failure.message
    assert states["finetune-b"].status is Status.DONE
    assert _result(out, "pretrain-a") == before


def test_the_resume_state_of_a_run_that_is_made_again_is_kept(tmp_path: Path, fake: ModuleType) -> None:
    out = fake.make_plan(tmp_path / "out", RUNS)
    _work(out)
    fake.make_plan(out, RUNS, watch=WATCH)
    state = out / "runs" / "pretrain-a" / "resume" / "state.json"
    state.parent.mkdir()
    state.write_text("{}")
    assert cleanup.find_garbage(StudyFolder.open(out)) == []
    fake.make_plan(out, RUNS)
    assert [item.path.name for item in cleanup.find_garbage(StudyFolder.open(out))] == ["resume"]


@pytest.mark.parametrize(
    ("asked", "watched", "lacks"),
    [
        (None, None, False),
        (WatchSpec(), None, True),
        (None, WatchSpec(corpora=("music",)), False),
        (WatchSpec(corpora=("music",)), WatchSpec(corpora=("chemistry", "music")), False),
        (WatchSpec(corpora=("chemistry", "music")), WatchSpec(corpora=("music",)), True),
        (WatchSpec(), WatchSpec(corpora=("chemistry", "music")), False),  # `extra` is only evaluated on
        (WatchSpec(), WatchSpec(corpora=("music",)), True),
        (WatchSpec(corpora=("extra",)), WatchSpec(corpora=("chemistry", "music")), True),  # asked for by name
        (WatchSpec(corpora=("music",), steps=(1, 5)), WatchSpec(corpora=("music",), steps=(0, 1, 5)), False),
        (WatchSpec(corpora=("music",), steps=(1, 7)), WatchSpec(corpora=("music",), steps=(0, 1, 5)), True),
        (WatchSpec(corpora=("music",), steps=(1,)), WatchSpec(corpora=("music",)), True),
        (WatchSpec(corpora=("music",)), WatchSpec(corpora=("music",), steps=(1,)), True),
        (WatchSpec(corpora=("music",), windows=9), WatchSpec(corpora=("music",), windows=8), True),
    ],
)
def test_what_counts_as_watched(
    tmp_path: Path, fake: ModuleType, asked: WatchSpec | None, watched: WatchSpec | None, lacks: bool
) -> None:
    out = fake.make_plan(tmp_path / "out", RUNS[:1])
    _work(out)
    result = _result(out, "pretrain-a").model_copy(update={"watched": watched})
    uses = {"main": {"store": "music-1"}, "mix": [{"store": "chemistry-1"}]}
    run = PlannedRun(id="pretrain-a", stage="pretrain", spec={"data": uses}, watch=asked)
    stores = {name: f"{name}-1" for name in ("music", "chemistry", "extra")}
    folder = StudyFolder(out, Plan(name="toy", stores=stores, stage_runs=(run,)), (0, 0, 0))
    assert lacks_curves(folder, run, result) is lacks
    assert not lacks_curves(folder, run, result.model_copy(update={"status": "diverged"}))


def test_the_job_names_all_corpora_that_are_watched(tmp_path: Path, fake: ModuleType) -> None:
    every = {"pretrain-a": WatchSpec(steps=(1,))}
    out = fake.make_plan(tmp_path / "out", RUNS, corpora=("music", "chemistry"), watch=every)
    folder = StudyFolder.open(out)
    assert watch_of(folder, folder.runs["pretrain-a"]) == WatchSpec(corpora=("chemistry", "music"), steps=(1,))
    assert stage_job(folder, folder.runs["pretrain-a"]).watch == WatchSpec(corpora=("chemistry", "music"), steps=(1,))
    assert stage_job(folder, folder.runs["finetune-b"]).watch is None
