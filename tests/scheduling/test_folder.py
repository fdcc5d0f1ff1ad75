"""One folder, one study: what is refused, what is kept when it is forced, and what `gc` may offer."""

import json
import os
import shutil
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from indelible.errors import UserError
from indelible.records import Plan, PlannedRun, StageResult
from indelible.scheduling.cleanup import find_garbage, remove
from indelible.scheduling.folder import StudyFolder, check_same_study, earlier_plans
from indelible.scheduling.lease import Lease
from indelible.scheduling.snapshot import snapshot_of

RUNS: list[tuple[str, str | None, dict[str, Any]]] = [
    ("pretrain-a", None, {"steps": 2}),
    ("finetune-b", "pretrain-a", {"steps": 2}),
]


@pytest.fixture
def finished(tmp_path: Path, fake: ModuleType) -> Path:
    """A finished study of two stage runs."""
    out = fake.make_plan(tmp_path / "out", RUNS, corpora=("music", "chemistry"))
    assert fake.run_quietly(out, 1)[0] == 0
    return out


def _plan(out: Path, *runs: str, **changes: Any) -> Plan:
    """The plan of a folder with changes; ``runs`` are its stage runs' ids."""
    plan = StudyFolder.open(out).plan
    entries = tuple(PlannedRun(id=run, stage="pretrain", spec={"code_version": 2}) for run in runs)
    return Plan(**{**dict(plan), **({"stage_runs": entries, "evaluations": {}} if runs else {}), **changes})


def _names(out: Path) -> set[str]:
    return {str(item.path.relative_to(out)) for item in find_garbage(StudyFolder.open(out))}


def test_the_same_study_may_grow_and_shrink(finished: Path) -> None:
    check_same_study(finished / "elsewhere", _plan(finished))
    check_same_study(finished, _plan(finished))
    check_same_study(finished, _plan(finished, "pretrain-a", "pretrain-new"))
    assert earlier_plans(finished) == []


def test_another_study_is_named_and_refused(finished: Path) -> None:
    with pytest.raises(
        UserError, match=r"this folder holds study toy, 2 of 2 stage runs done; the new study is other\. .*--force"
    ):
        check_same_study(finished, _plan(finished, name="other"))


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"stores": {"music": "music-new", "chemistry": "chemistry-0123456789ab"}}, "corpus music has changed since"),
        (
            {"stores": {"music": "music-new", "chemistry": "chemistry-new"}, "tokenizer": "tokenizer-new"},
            "corpus music, corpus chemistry, the tokenizer have changed since",
        ),
        ({}, "its settings have changed since, and none of these runs is in the new plan"),
    ],
)
def test_what_changed_is_said_when_nothing_that_was_done_is_in_the_new_plan(
    finished: Path, changes: dict[str, Any], reason: str
) -> None:
    old = _plan(finished, "pretrain-a", "finetune-b")
    old.write(finished / "plan.json")
    with pytest.raises(UserError, match=f"this folder holds study toy, 2 of 2 stage runs done; {reason}"):
        check_same_study(finished, _plan(finished, "pretrain-new", **changes))


def test_a_new_engine_is_said(finished: Path) -> None:
    newer = PlannedRun(id="pretrain-new", stage="pretrain", spec={"code_version": 3})
    with pytest.raises(UserError, match="the version of the engine has changed since"):
        check_same_study(finished, _plan(finished, "x", stage_runs=(newer,)))


def test_nothing_done_means_nothing_hidden(tmp_path: Path, fake: ModuleType) -> None:
    out = fake.make_plan(tmp_path / "out", RUNS)
    check_same_study(out, _plan(out, "pretrain-new"))


def test_forced_the_old_plan_is_kept_and_its_work_is_never_offered(finished: Path) -> None:
    old = StudyFolder.open(finished).plan
    new = _plan(finished, "pretrain-new", name="other", stores={"music": "music-new"})
    check_same_study(finished, new, force=True)
    new.write(finished / "plan.json")
    check_same_study(finished, _plan(finished, name="third"), force=True)
    assert {path.name for path in finished.glob("plan.*.json")} == {"plan.1.json", "plan.2.json"}
    assert [plan.name for plan in earlier_plans(finished)] == ["toy", "other"]
    assert earlier_plans(finished)[0] == old
    for name in ("music-0123456789ab", "music-new", "music-unknown"):
        (finished / "tokens" / name).mkdir()
    shutil.copytree(finished / "runs" / "finetune-b", finished / "runs" / "finetune-unknown")
    shutil.copytree(finished / "evaluations" / "finetune-b", finished / "evaluations" / "finetune-unknown")
    wanted = {"tokens/music-unknown", "runs/finetune-unknown", "evaluations/finetune-unknown"}
    assert _names(finished) == wanted
    (finished / "runs" / "finetune-b" / "result.json").unlink()  # not finished: nobody can use it
    assert _names(finished) == wanted | {"runs/finetune-b"}


def test_gc_offers_evaluations_that_no_plan_asks_for(finished: Path, fake: ModuleType) -> None:
    assert _names(finished) == set()
    fake.make_plan(finished, RUNS, corpora=("music",))
    name = fake.evaluation_name("finetune-b", "chemistry")
    (finished / "evaluations" / "finetune-b" / "failure.1.json").write_text("{}")
    (finished / "evaluations" / "finetune-b" / ".x.json.1.ab.tmp").write_text("half")
    (finished / "evaluations" / "given-0123456789ab").mkdir()
    (finished / "evaluations" / "stray").write_text("")
    of_b = f"evaluations/finetune-b/{name}"
    assert {one for one in _names(finished) if "pretrain-a" not in one} == {
        f"{of_b}.json",
        f"{of_b}.documents.parquet",
        "evaluations/finetune-b/.x.json.1.ab.tmp",
        "evaluations/given-0123456789ab",
        "evaluations/stray",
    }
    held = Lease.take(finished / "evaluations" / "finetune-b", 1, "w")
    assert held is not None
    assert not any("finetune-b" in one for one in _names(finished))
    held.release("stopped")
    remove(find_garbage(StudyFolder.open(finished)))
    assert _names(finished) == set()
    assert snapshot_of(finished).is_finished


def test_gc_offers_what_was_made_again(finished: Path) -> None:
    run_dir = finished / "runs" / "finetune-b"
    (run_dir / "result.superseded.json").write_text("{}")
    (run_dir / "evaluations.superseded").mkdir()
    (run_dir / "metrics.first.jsonl").write_text("")
    offered = {"result.superseded.json", "evaluations.superseded", "metrics.first.jsonl"}
    assert _names(finished) == {f"runs/finetune-b/{name}" for name in offered}


def test_gc_spares_what_is_needed_or_held(finished: Path, tmp_path: Path) -> None:
    runs = finished / "runs"
    shutil.copytree(runs / "finetune-b", runs / "finetune-old")
    shutil.copytree(runs / "finetune-b", runs / "finetune-held")
    held = Lease.take(runs / "finetune-held", 2, "w")
    assert held is not None
    (runs / "finetune-b" / "resume").mkdir()
    (runs / "finetune-b" / "resume" / "state").write_bytes(b"x" * 1000)
    (runs / "pretrain-a" / ".result.json.1.ab.tmp").write_text("half")
    precious = tmp_path / "precious"
    precious.mkdir()
    (precious / "data").write_text("keep")
    (runs / "finetune-link").symlink_to(precious)
    wanted = {"finetune-old", "finetune-b/resume", "pretrain-a/.result.json.1.ab.tmp", "finetune-link"}
    assert _names(finished) == {f"runs/{name}" for name in wanted}
    assert (runs / "finetune-old").exists()
    assert remove(find_garbage(StudyFolder.open(finished))) > 1000
    assert _names(finished) == set()
    assert (precious / "data").read_text() == "keep"
    assert (runs / "finetune-held").exists()
    held.release("stopped")
    assert snapshot_of(finished).counts["done"] == 2


def test_gc_knows_the_token_stores_of_the_plan(finished: Path) -> None:
    for name in ("music-0123456789ab", "music-2", "tokenizer-0123456789ab", ".lock"):
        (finished / "tokens" / name).mkdir()
    assert _names(finished) == {"tokens/music-2"}


def test_records_of_another_format_or_cut_short_are_refused(finished: Path) -> None:
    path = finished / "runs" / "finetune-b" / "result.json"
    value = json.loads(path.read_text())
    path.write_text(json.dumps({**value, "format": 1}))
    with pytest.raises(UserError, match=r"result\.json: format 1 where 2 is expected"):
        snapshot_of(finished)
    path.write_text(path.read_text()[:50])
    with pytest.raises(UserError, match=r"result\.json: not a JSON file .*delete it and run the same command again"):
        snapshot_of(finished)
    os.unlink(path)
    assert snapshot_of(finished).counts["planned"] == 1
    assert StageResult.read(path) is None
