"""status, show, diff, gc: what they say, from the files alone."""

import json
import os
import shutil
import time
from pathlib import Path
from types import ModuleType

import pytest
import typer
from rich.console import Console
from typer.testing import CliRunner

from indelible.cli import run_commands
from indelible.errors import UserError
from indelible.lab import garbage, lineage, watch
from indelible.lab.lease import Lease
from indelible.lab.runner import run_plan, snapshot_of
from indelible.lab.runs import load_plan


@pytest.fixture(scope="module")
def app() -> typer.Typer:
    """The commands of this room."""
    made = typer.Typer()
    run_commands.register(made)
    return made


@pytest.fixture
def finished(tmp_path: Path, fake: ModuleType) -> Path:
    """A finished study of three stages with two fine-tunings."""
    runs = [
        ("pretrain-a", None, {"class": "StageSpec", "steps": 2, "seed": 0}),
        ("posttrain-b", "pretrain-a", {"steps": 2, "training": {"class": "T", "lr": 0.1}}),
        ("finetune-c1", "posttrain-b", {"steps": 2, "training": {"class": "T", "lr": 0.1}}),
        ("finetune-c2", "posttrain-b", {"steps": 2, "training": {"class": "T", "lr": 0.2}, "extra": True}),
    ]
    out = fake.make_plan(tmp_path / "out", runs)
    assert run_plan(out, 1, engine="fake_engine:run_stage", console=Console(quiet=True)) == 0
    return out


def _call(app: typer.Typer, *arguments: str, columns: int = 200) -> str:
    result = CliRunner().invoke(app, list(arguments), env={"COLUMNS": str(columns)}, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


def test_status(app: typer.Typer, finished: Path) -> None:
    text = _call(app, "status", str(finished))
    assert "toy" in text
    assert "left" not in text
    told = json.loads(_call(app, "status", str(finished), "--json"))
    assert told["counts"] == {"planned": 0, "running": 0, "done": 4, "failed": 0, "blocked": 0, "diverged": 0}
    assert told["by_stage"]["finetune"] == {"done": 2}
    assert told["is_settled"]


def test_status_shows_what_runs_and_how_long_is_left(app: typer.Typer, finished: Path) -> None:
    for name in ("finetune-c1", "finetune-c2"):
        (finished / "runs" / name / "result.json").unlink()
    result_path = finished / "runs" / "pretrain-a" / "result.json"
    for name in ("pretrain-a", "posttrain-b"):  # 2 units of cost took 10 seconds
        path = finished / "runs" / name / "result.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), "total_seconds": 10.0}))
    assert result_path.exists()
    lease = Lease.take(finished / "runs" / "finetune-c1", 2, "w7", beat_seconds=0.01)
    assert lease is not None
    beat = {"step": 1, "total_steps": 2, "loss": 1.5, "tokens": 10, "tokens_per_second": 1234.0, "phase": "training"}
    lease.show(**beat, lr=2.5e-4, grad_norm=0.75, seconds_left=7.0)
    lease._write_beat(None)
    told = json.loads(_call(app, "status", str(finished), "--json"))
    assert [(run["id"], run["worker"], run["step"], run["attempt"]) for run in told["running"]] == [
        ("finetune-c1", "w7", 1, 2)
    ]
    assert told["seconds_left"] == pytest.approx(15.0)  # half of one run and the whole of the other, one worker
    text = _call(app, "status", str(finished), columns=80)
    assert "w7" in text
    assert "1/2" in text
    assert "1.500" in text
    assert "1,234" in text
    assert "about 15 s left" in text
    assert "grad" not in text, "eighty characters have no room for it"
    wide = _call(app, "status", str(finished), columns=130)
    assert all(word in wide for word in ("0.00025", "0.75", " 7 s"))
    assert told["running"][0]["stage_seconds_left"] == 7.0
    lease.release("stopped")


def test_failures_are_shown(app: typer.Typer, tmp_path: Path, fake: ModuleType) -> None:
    bad = {"fail": {"how": "error", "at": 0}}
    out = fake.make_plan(tmp_path / "out", [("pretrain-a", None, bad), ("finetune-b", "pretrain-a", {})])
    assert run_plan(out, 1, engine="fake_engine:run_stage", console=Console(quiet=True)) == 1
    assert "pretrain-a: ValueError: wrong by design" in _call(app, "status", str(out))
    told = json.loads(_call(app, "status", str(out), "--json"))
    assert told["failed"][0]["message"] == "wrong by design"
    assert "error: ValueError: wrong by design" in _call(app, "show", str(out / "pretrain"))


def test_show(app: typer.Typer, finished: Path) -> None:
    text = _call(app, "show", str(finished / "runs" / "finetune-c1"))
    assert "finetune-c1 <- posttrain-b (done) <- pretrain-a (done)" in " ".join(text.split())
    assert "training.lr" in text
    assert "2.0000" in text
    told = json.loads(_call(app, "show", str(finished / "finetune-c2"), "--json"))
    assert [parent["id"] for parent in told["parents"]] == ["posttrain-b", "pretrain-a"]
    assert (told["status"], told["attempts"][0]["outcome"]) == ("done", "done")


def test_which_run_is_meant(finished: Path) -> None:
    assert lineage.find_run(finished / "post").name == "posttrain-b"
    assert lineage.find_run(finished / "runs" / "pre").name == "pretrain-a"
    with pytest.raises(UserError, match=r"2 stage runs begin so \(finetune-c1, finetune-c2\)"):
        lineage.find_run(finished / "fine")
    with pytest.raises(UserError, match="no stage run; give the path"):
        lineage.find_run(finished / "nothing")


def test_diff(app: typer.Typer, finished: Path) -> None:
    found = lineage.differences(finished / "runs" / "finetune-c1", finished / "runs" / "finetune-c2")
    assert found["spec.training.lr"] == (0.1, 0.2)
    assert found["spec.extra"] == (None, True)
    assert set(found) == {"spec.training.lr", "spec.extra", "result.weights_sha256"}
    assert "spec.training.lr" in _call(app, "diff", str(finished / "finetune-c1"), str(finished / "finetune-c2"))
    assert "No difference." in _call(app, "diff", str(finished / "post"), str(finished / "post"))
    told = json.loads(_call(app, "diff", str(finished / "finetune-c1"), str(finished / "finetune-c2"), "--json"))
    assert told["runs"] == ["finetune-c1", "finetune-c2"]
    assert told["fields"]["spec.training.lr"] == [0.1, 0.2]


def test_diff_with_a_run_that_has_no_result_yet_compares_what_there_is(app: typer.Typer, finished: Path) -> None:
    (finished / "runs" / "finetune-c2" / "result.json").unlink()
    found = lineage.differences(finished / "runs" / "finetune-c1", finished / "runs" / "finetune-c2")
    assert set(found) == {"status", "spec.training.lr", "spec.extra"}
    narrow = CliRunner().invoke(app, ["diff", str(finished / "finetune-c1"), str(finished / "finetune-c2")])
    assert "spec.training.lr" in narrow.output  # the names of fields are never cut


def test_show_of_a_running_run_says_how_far_it_is(app: typer.Typer, finished: Path) -> None:
    run_dir = finished / "runs" / "finetune-c1"
    (run_dir / "result.json").unlink()
    lease = Lease.take(run_dir, 2, "w7", beat_seconds=1e9)
    assert lease is not None
    lease.show(step=1, total_steps=2, loss=1.5, phase="training")
    lease._write_beat(None)
    assert "training: step 1 of 2, loss 1.5000" in _call(app, "show", str(run_dir))
    assert json.loads(_call(app, "show", str(run_dir), "--json"))["now"]["step"] == 1
    lease.release("stopped")


def test_time_left_is_told_before_the_first_run_is_done_and_by_stage(finished: Path) -> None:
    for name in ("posttrain-b", "finetune-c1", "finetune-c2"):
        shutil.rmtree(finished / "runs" / name)
    path = finished / "runs" / "pretrain-a" / "result.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "total_seconds": 10.0}))  # 2 units of cost
    lease = Lease.take(finished / "runs" / "posttrain-b", 1, "w", beat_seconds=1e9)
    assert lease is not None
    lease._started -= 3.0
    lease.show(step=1, total_steps=2)  # half of 2 units in 3 seconds: another 3 are left
    lease._write_beat(None)
    only_pretrain_and_posttrain = snapshot_of(finished).seconds_left()
    assert only_pretrain_and_posttrain is not None
    rate = (2 + 1) / (10.0 + 3.0)  # of stage 3 nothing is known: that of all together
    assert only_pretrain_and_posttrain == pytest.approx(3.0 + 2 * 2 / rate, rel=0.05)
    path.unlink()
    assert snapshot_of(finished).seconds_left() is not None  # by the run that is under way
    lease.release("stopped")
    assert snapshot_of(finished).seconds_left() is None


def test_a_worker_that_is_silent_is_shown_as_such(app: typer.Typer, finished: Path) -> None:
    run_dir = finished / "runs" / "finetune-c1"
    (run_dir / "result.json").unlink()
    lease = Lease.take(run_dir, 2, "w7", beat_seconds=1e9)
    assert lease is not None
    assert "silent" not in _call(app, "status", str(finished))
    long_ago = time.time() - 300
    os.utime(run_dir / "lease" / "2.beat", (long_ago, long_ago))
    assert "silent 5 min" in _call(app, "status", str(finished))
    assert json.loads(_call(app, "status", str(finished), "--json"))["running"][0]["silent_seconds"] >= 300
    lease.release("stopped")


def test_gc_is_dry_by_default_and_spares_what_is_needed_or_held(
    app: typer.Typer, finished: Path, fake: ModuleType, tmp_path: Path
) -> None:
    assert "0.000 MB can go" in _call(app, "gc", str(finished))
    runs = finished / "runs"
    shutil.copytree(runs / "finetune-c1", runs / "finetune-old")
    shutil.copytree(runs / "finetune-c1", runs / "finetune-held")
    held = Lease.take(runs / "finetune-held", 2, "w")
    assert held is not None
    (runs / "finetune-c1" / "resume").mkdir()
    (runs / "finetune-c1" / "resume" / "state").write_bytes(b"x" * 1000)
    (runs / "pretrain-a" / ".result.json.1.ab.tmp").write_text("half")
    precious = tmp_path / "precious"
    precious.mkdir()
    (precious / "data").write_text("keep")
    (runs / "finetune-link").symlink_to(precious)
    wanted = {"finetune-old", "resume", ".result.json.1.ab.tmp", "finetune-link"}
    assert {item.path.name for item in garbage.find_garbage(load_plan(finished))} == wanted
    assert "can go; `indelible gc" in _call(app, "gc", str(finished))
    told = json.loads(_call(app, "gc", str(finished), "--json"))
    assert {Path(item["path"]).name for item in told["found"]} == wanted
    assert told["removed_bytes"] == 0
    assert (runs / "finetune-old").exists()
    assert "Removed" in _call(app, "gc", str(finished), "--yes")
    assert garbage.find_garbage(load_plan(finished)) == []
    assert (precious / "data").read_text() == "keep"
    assert (runs / "finetune-held").exists()
    held.release("stopped")
    assert snapshot_of(finished).counts["done"] == 4


def test_gc_knows_the_token_stores_of_the_plan(finished: Path) -> None:
    plan = json.loads((finished / "plan.json").read_text())
    (finished / "plan.json").write_text(json.dumps({**plan, "stores": {"a": "a-1"}, "tokenizer": "tokenizer-1"}))
    for name in ("a-1", "a-2", "tokenizer-1"):
        (finished / "tokens" / name).mkdir()
    assert [item.path.name for item in garbage.find_garbage(load_plan(finished))] == ["a-2"]


def test_long_ids_fit_a_narrow_terminal() -> None:
    assert watch._short("finetune-short") == "finetune-short"
    shortened = watch._short("posttrain-music-lr0.0001-drop0.05-s0-0123456789ab")
    assert shortened == "posttrain-music-lr0.0…6789ab"


def test_durations() -> None:
    assert [watch.duration(value) for value in (None, 42.4, 185, 7800)] == ["?", "42 s", "3 min 05 s", "2 h 10 min"]
