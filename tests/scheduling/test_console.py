"""What status, show and diff print, from the files alone; and which run is meant by what people know of it."""

import io
import os
import shutil
import time
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from rich.console import Console, RenderableType

from indelible.console import lineage, live
from indelible.console.selection import chosen_pair, chosen_run
from indelible.errors import UserError
from indelible.records import PlannedChain, StageResult
from indelible.scheduling.lease import Lease
from indelible.scheduling.snapshot import snapshot_of

GIVEN = "given-" + "f" * 12


def _chain(rate: float, seed: int, last: str, **columns: Any) -> PlannedChain:
    stages = {"pretrain": "pretrain-a", "posttrain": "posttrain-b", "finetune": last}
    return PlannedChain(columns={"arm": "", "finetune_lr": rate, "seed": seed, **columns}, stages=stages)


@pytest.fixture
def finished(tmp_path: Path, fake: ModuleType) -> Path:
    """A finished study of three stages with two fine-tunings."""
    runs = [
        ("pretrain-a", None, {"class": "StageSpec", "steps": 2, "seed": 0}),
        ("posttrain-b", "pretrain-a", {"steps": 2, "training": {"class": "T", "lr": 0.1}}),
        ("finetune-c1", "posttrain-b", {"steps": 2, "training": {"class": "T", "lr": 0.1}}),
        ("finetune-c2", "posttrain-b", {"steps": 2, "training": {"class": "T", "lr": 0.2}, "extra": True}),
    ]
    chains = [_chain(0.1, 0, "finetune-c1"), _chain(0.2, 0, "finetune-c2")]
    out = fake.make_plan(tmp_path / "out", runs, chains=chains)
    assert fake.run_quietly(out, 1)[0] == 0
    return out


def _text(shown: RenderableType, columns: int = 200) -> str:
    text = io.StringIO()
    Console(file=text, width=columns).print(shown, highlight=False)
    return text.getvalue()


def _status(out: Path, columns: int = 200) -> str:
    return _text(live.render(snapshot_of(out), width=columns), columns)


def _took(out: Path, run_id: str, seconds: float) -> None:
    path = out / "runs" / run_id / "result.json"
    result = StageResult.read(path)
    assert result is not None
    result.model_copy(update={"total_seconds": seconds}).write(path)


def test_status(finished: Path) -> None:
    text = _status(finished)
    assert "toy" in text
    assert "left" not in text
    shown = snapshot_of(finished).as_json()
    assert shown["counts"] == {"planned": 0, "running": 0, "done": 4, "failed": 0, "blocked": 0, "diverged": 0}
    assert shown["by_stage"]["finetune"] == {"done": 2}
    assert "evaluate" not in shown["by_stage"]
    assert shown["is_settled"]


def test_status_shows_what_runs_and_how_long_is_left(finished: Path) -> None:
    for name in ("finetune-c1", "finetune-c2"):
        (finished / "runs" / name / "result.json").unlink()
    for name in ("pretrain-a", "posttrain-b"):  # 2 units of work took 10 seconds
        _took(finished, name, 10.0)
    lease = Lease.take(finished / "runs" / "finetune-c1", 2, "w7", beat_seconds=0.01)
    assert lease is not None
    beat = {"step": 1, "total_steps": 2, "loss": 1.5, "tokens": 10, "tokens_per_second": 1234.0, "phase": "training"}
    lease.show(**beat, lr=2.5e-4, grad_norm=0.75, seconds_left=7.0)
    lease._write_beat(None)
    shown = snapshot_of(finished).as_json()
    assert [(run["id"], run["worker"], run["step"], run["attempt"]) for run in shown["running"]] == [
        ("finetune-c1", "w7", 1, 2)
    ]
    assert shown["seconds_left"] == pytest.approx(15.0)  # half of one run and the whole of the other, one worker
    text = _status(finished, 80)
    assert "w7" in text
    assert "1/2" in text
    assert "1.500" in text
    assert "1,234" in text
    assert "at most 15 s left" in text
    assert "grad" not in text, "eighty characters have no room for it"
    wide = _status(finished, 130)
    assert all(word in wide for word in ("0.00025", "0.75", " 7 s"))
    assert shown["running"][0]["stage_seconds_left"] == 7.0
    lease.release("stopped")


def test_evaluations_that_are_left_are_a_row_of_their_own(finished: Path, fake: ModuleType) -> None:
    plan_runs = [("pretrain-a", None, {"class": "StageSpec", "steps": 2, "seed": 0})]
    fake.make_plan(finished, plan_runs, corpora=("music", "chemistry"))
    rows = [line.split() for line in _status(finished).splitlines()]
    assert ["stage", "planned", "done"] in rows
    assert ["evaluate", "1", "0"] in rows
    lease = Lease.take(finished / "evaluations" / "pretrain-a", 1, "w7", beat_seconds=1e9)
    assert lease is not None
    lease.show(step=1, total_steps=2, phase="evaluating")
    lease._write_beat(None)
    assert "w7" in _status(finished)
    assert "evaluations/pretrain-a" in _status(finished)
    assert snapshot_of(finished).as_json()["running"][0]["phase"] == "evaluating"
    lease.release("stopped")


def test_failures_are_shown(tmp_path: Path, fake: ModuleType) -> None:
    bad = {"fail": {"how": "error", "at": 0}}
    out = fake.make_plan(tmp_path / "out", [("pretrain-a", None, bad), ("finetune-b", "pretrain-a", {})])
    assert fake.run_quietly(out, 1)[0] == 1
    assert "pretrain-a: ValueError: wrong by design" in _status(out)
    shown = snapshot_of(out).as_json()
    assert shown["failed"] == [
        {"id": "pretrain-a", "kind": "error", "type": "ValueError", "message": "wrong by design", "attempt": 1}
    ]
    assert "error: ValueError: wrong by design" in _text(lineage.render(lineage.find_run(out / "pretrain")))


def test_show(finished: Path) -> None:
    text = _text(lineage.render(finished / "runs" / "finetune-c1"))
    assert "finetune-c1 <- posttrain-b (done) <- pretrain-a (done)" in " ".join(text.split())
    assert "training.lr" in text
    shown = lineage.describe(finished / "runs" / "finetune-c2")
    assert [parent["id"] for parent in shown["parents"]] == ["posttrain-b", "pretrain-a"]
    assert (shown["status"], shown["attempts"][0]["outcome"], shown["start"]) == ("done", "done", None)
    assert [(one["corpus"], one["tokens"]) for one in shown["evaluations"]] == [("music", 32)]
    loss = shown["evaluations"][0]["nats_per_token"]
    row = next(
        line for line in _text(lineage.render(finished / "runs" / "finetune-c2")).splitlines() if "music" in line
    )
    assert row.split() == ["music", f"{loss:.4f}", "0.0100", "1.0000", "32", "3"]


def test_show_ends_at_the_given_checkpoint(tmp_path: Path, fake: ModuleType) -> None:
    given = tmp_path / "given"
    given.mkdir()
    (given / "model.safetensors").write_text("abcd")
    start = {"init": {"class": "StageInit", "sha256": "f" * 64}}
    out = fake.make_plan(
        tmp_path / "out", [("posttrain-b", None, start), ("finetune-c", "posttrain-b", {})], given={GIVEN: given}
    )
    assert fake.run_quietly(out, 1)[0] == 0
    text = " ".join(_text(lineage.render(out / "runs" / "finetune-c")).split())
    assert f"finetune-c <- posttrain-b (done) <- {GIVEN} ({given})" in text
    assert lineage.describe(out / "runs" / "finetune-c")["start"] == {"id": GIVEN, "folder": str(given)}


def test_which_run_is_meant(finished: Path) -> None:
    assert lineage.find_run(finished / "post").name == "posttrain-b"
    assert lineage.find_run(finished / "runs" / "pre").name == "pretrain-a"
    with pytest.raises(UserError, match=r"2 stage runs begin so \(finetune-c1, finetune-c2\); give more of the id"):
        lineage.find_run(finished / "fine")
    with pytest.raises(UserError, match=r"no stage run; give the path of a folder with spec\.json, .*--arm"):
        lineage.find_run(finished / "nothing")
    with pytest.raises(UserError, match=r"no spec\.json; this stage run has not begun"):
        lineage.read_run(finished / "runs" / "finetune-c3")


def test_a_run_by_its_settings(finished: Path) -> None:
    assert chosen_run(finished, ["finetune_lr=2e-1", "seed=0"]).name == "finetune-c2"
    assert chosen_run(finished, ["0"], "posttrain").name == "posttrain-b"
    assert chosen_run(finished, [], "pretrain").name == "pretrain-a"  # all chains share it
    with pytest.raises(
        UserError, match=r"--arm seed=0: 2 stage runs; say one of finetune_lr \(0\.1, 0\.2\), e\.g\. --arm finetune_lr="
    ):
        chosen_run(finished, ["seed=0"])
    with pytest.raises(UserError, match="no column 'lr'; they have arm, finetune_lr, seed"):
        chosen_run(finished, ["lr=1"])
    with pytest.raises(UserError, match="--stage relearn: the chosen chains have no such stage; they have pretrain, p"):
        chosen_run(finished, [], "relearn")


def test_two_runs_by_their_settings(finished: Path) -> None:
    names = [path.name for path in chosen_pair(finished, ["seed=0"])]
    assert names == ["finetune-c1", "finetune-c2"]
    names = [path.name for path in chosen_pair(finished, ["finetune_lr=0.2", "finetune_lr=0.1", "seed=0"])]
    assert names == ["finetune-c2", "finetune-c1"]
    first, second = chosen_pair(finished, ["finetune_lr=0.1", "finetune_lr=0.2"], "posttrain")
    assert first == second
    assert "A and B are the same run, posttrain-b: what was chosen makes no difference" in _text(
        lineage.render_differences(first, second)
    )
    with pytest.raises(UserError, match=r"--arm finetune_lr=0\.1: one chain; give a column twice"):
        chosen_pair(finished, ["finetune_lr=0.1"])


def test_more_than_two_runs_are_no_pair(tmp_path: Path, fake: ModuleType) -> None:
    runs = [("pretrain-a", None, {}), ("posttrain-b", "pretrain-a", {})]
    runs += [(f"finetune-{i}", "posttrain-b", {"i": i}) for i in range(7)]
    chains = [_chain(i / 10, 0, f"finetune-{i}") for i in range(7)]
    out = fake.make_plan(tmp_path / "out", runs, chains=chains)
    with pytest.raises(
        UserError, match=r"7 stage runs, and two can be compared; say one of finetune_lr \(0\.0, .*, \.\.\.\)"
    ):
        chosen_pair(out, [])


def test_diff(finished: Path) -> None:
    one, other = finished / "runs" / "finetune-c1", finished / "runs" / "finetune-c2"
    found = lineage.differences(one, other)
    assert found["spec.training.lr"] == (0.1, 0.2)
    assert found["spec.extra"] == (None, True)
    assert set(found) == {
        "spec.training.lr",
        "spec.extra",
        "result.weights_sha256",
        "losses.music (4 windows)",
    }
    assert "spec.training.lr" in _text(lineage.render_differences(one, other))
    assert "spec.training.lr" in _text(lineage.render_differences(one, other), 40)  # names of fields are never cut
    same = _text(lineage.render_differences(one, one))
    assert "A and B are the same run, finetune-c1" in same
    assert "No difference." in same


def test_the_same_run_in_two_folders_is_said_to_be_the_same(finished: Path, tmp_path: Path) -> None:
    other = shutil.copytree(finished, tmp_path / "other")
    path = other / "runs" / "pretrain-a" / "result.json"
    result = StageResult.read(path)
    assert result is not None
    result.model_copy(update={"weights_sha256": "ab", "environment": {"machine": "another"}}).write(path)
    first, second = (out / "runs" / "pretrain-a" for out in (finished, other))
    text = _text(lineage.render_differences(first, second))
    assert "A and B are the same run, pretrain-a, in two folders: equal settings, seed and start." in text
    assert "environment.machine" in text
    assert lineage.sameness(first, finished / "runs" / "posttrain-b") is None


def test_equal_weights_of_other_runs_are_said(finished: Path) -> None:
    one, other = finished / "runs" / "finetune-c1", finished / "runs" / "finetune-c2"
    for run_dir in (one, other):
        result = StageResult.read(run_dir / "result.json")
        assert result is not None
        result.model_copy(update={"weights_sha256": "ab"}).write(run_dir / "result.json")
    assert "Their weights are equal, bit for bit." in _text(lineage.render_differences(one, other))


def test_diff_with_a_run_that_has_no_result_yet_compares_what_there_is(finished: Path) -> None:
    (finished / "runs" / "finetune-c2" / "result.json").unlink()
    found = lineage.differences(finished / "runs" / "finetune-c1", finished / "runs" / "finetune-c2")
    assert set(found) == {"status", "spec.training.lr", "spec.extra"}


def test_show_of_a_running_run_says_how_far_it_is(finished: Path) -> None:
    run_dir = finished / "runs" / "finetune-c1"
    (run_dir / "result.json").unlink()
    lease = Lease.take(run_dir, 2, "w7", beat_seconds=1e9)
    assert lease is not None
    lease.show(step=1, total_steps=2, loss=1.5, phase="training")
    lease._write_beat(None)
    assert "training: step 1 of 2, loss 1.5000" in _text(lineage.render(run_dir))
    assert lineage.describe(run_dir)["now"]["step"] == 1
    lease.release("stopped")


def test_time_left_is_told_before_the_first_run_is_done_and_by_stage(finished: Path) -> None:
    for name in ("posttrain-b", "finetune-c1", "finetune-c2"):
        shutil.rmtree(finished / "runs" / name)
    _took(finished, "pretrain-a", 10.0)  # 2 units of work
    lease = Lease.take(finished / "runs" / "posttrain-b", 1, "w", beat_seconds=1e9)
    assert lease is not None
    lease._started -= 3.0
    lease.show(step=1, total_steps=2)  # half of 2 units in 3 seconds: another 3 are left
    lease._write_beat(None)
    only_pretrain_and_posttrain = snapshot_of(finished).seconds_left()
    assert only_pretrain_and_posttrain is not None
    rate = (2 + 1) / (10.0 + 3.0)  # of stage 3 nothing is known: that of all together
    assert only_pretrain_and_posttrain == pytest.approx(3.0 + 2 * 2 / rate, rel=0.05)
    (finished / "runs" / "pretrain-a" / "result.json").unlink()
    assert snapshot_of(finished).seconds_left() is not None  # by the run that is under way
    lease.release("stopped")
    assert snapshot_of(finished).seconds_left() is None
    assert "time left not known yet" in _status(finished)


def test_what_early_stopping_saved_makes_an_estimate_beside_the_bound(finished: Path) -> None:
    (finished / "runs" / "finetune-c1" / "result.json").unlink()
    for name in ("pretrain-a", "posttrain-b", "finetune-c2"):
        _took(finished, name, 10.0)
    path = finished / "runs" / "finetune-c2" / "result.json"
    result = StageResult.read(path)
    assert result is not None
    result.model_copy(update={"steps": 25, "total_steps": 100}).write(path)
    snapshot = snapshot_of(finished)
    assert snapshot.seconds_left() == pytest.approx(10.0)  # as long as its like took
    assert snapshot.seconds_at_most() == pytest.approx(40.0)  # with all of its steps
    assert live.time_left(snapshot) == "about 10 s left, at most 40 s"
    assert snapshot.as_json()["seconds_at_most"] == pytest.approx(40.0)


def test_a_worker_that_is_silent_is_shown_as_such(finished: Path) -> None:
    run_dir = finished / "runs" / "finetune-c1"
    (run_dir / "result.json").unlink()
    lease = Lease.take(run_dir, 2, "w7", beat_seconds=1e9)
    assert lease is not None
    assert "silent" not in _status(finished)
    long_ago = time.time() - 300
    os.utime(run_dir / "lease" / "2.beat", (long_ago, long_ago))
    assert "silent 5 min" in _status(finished)
    assert snapshot_of(finished).as_json()["running"][0]["silent_seconds"] >= 300
    lease.release("stopped")


def test_lines_for_logs_say_at_most_how_long_is_left(finished: Path) -> None:
    text = io.StringIO()
    lines = live.PlainLines(Console(file=text, width=200), every_seconds=0.0)
    (finished / "runs" / "finetune-c1" / "result.json").unlink()
    for name in ("pretrain-a", "posttrain-b", "finetune-c2"):
        _took(finished, name, 10.0)
    lines.on_look(snapshot_of(finished))
    lines.on_stop("asked to stop")
    assert text.getvalue().splitlines() == [
        "toy: 1 planned, 3 done",
        "1 planned, 3 done; at most 10 s left",
        "Stopping: workers save their state. Once more to stop at once.",
    ]


def test_a_terminal_gets_one_view_that_is_drawn_again_and_again(finished: Path) -> None:
    text = io.StringIO()
    console = Console(file=text, width=100, force_terminal=True)
    with live.watching(console) as observer:
        observer.on_look(snapshot_of(finished))
        observer.on_stop("asked to stop")
    assert "pretrain" in text.getvalue()
    assert "Stopping: workers save their state." in text.getvalue()


def test_long_ids_fit_a_narrow_terminal() -> None:
    assert live._short("finetune-short") == "finetune-short"
    shortened = live._short("posttrain-music-lr0.0001-drop0.05-s0-0123456789ab")
    assert shortened == "posttrain-music-lr0.0…6789ab"


def test_durations() -> None:
    assert [live.duration(value) for value in (None, 42.4, 185, 7800)] == ["?", "42 s", "3 min 05 s", "2 h 10 min"]
