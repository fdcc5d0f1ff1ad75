"""What is sent of a study folder, that nothing is sent twice, and what becomes of it when a tracker fails."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from indelible.cli.main import build_app
from indelible.errors import UserError
from indelible.records import Plan, SentRun
from indelible.tracking import sending, trackers
from indelible.tracking.sending import Sender, send_all, sent_text, unsent_text
from indelible.tracking.series import tracked_runs


class Recorder:
    """A tracker that keeps what it is sent, and fails at the runs that it is told."""

    def __init__(self) -> None:
        self.points: list[tuple[str, int, str, float]] = []  # run, step, key, value
        self.ends: dict[str, dict[str, Any]] = {}
        self.begun: list[str] = []
        self.fails = ""
        self.ended_runs_only = False
        self.num_closed = 0

    def send(self, run: Any, rows: Any, end: Any, *, is_first: bool) -> None:
        if self.fails and run.id.startswith(self.fails):
            raise ConnectionError("no route to the tracker")
        self.begun += [run.id] if is_first else []
        self.points += [(run.id, row.step, key, value) for row in rows for key, value in row.values.items()]
        if end:
            self.ends[run.id] = dict(end)

    def close(self) -> None:
        self.num_closed += 1


@pytest.fixture
def recorder(monkeypatch: pytest.MonkeyPatch) -> Recorder:
    made = Recorder()
    monkeypatch.setattr(sending, "open_tracker", lambda name, root: made)
    return made


def _runs(folder: Path) -> dict[str, str]:
    plan = Plan.read(folder / "plan.json")
    assert plan is not None
    return {f"{run.stage}{number}": run.id for number, run in enumerate(plan.stage_runs)}


def _lines(folder: Path, run_id: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "runs" / run_id / "metrics.jsonl").read_text().splitlines()]


def test_everything_is_sent_once(folder: Path, recorder: Recorder) -> None:
    first = send_all(folder, "trackio")
    assert (first.runs, first.points, first.reason) == (4, len(recorder.points), "")
    assert sent_text("trackio", first) == f"trackio: {first.points} points of 4 stage runs sent"
    assert unsent_text("trackio", folder, first) == ""
    for run_id in _runs(folder).values():
        logged = {(line["step"], key, value) for line in _lines(folder, run_id) for key, value in line.items()
                  if "/" in key}  # fmt: skip
        sent = [point[1:] for point in recorder.points if point[0] == run_id]
        assert {point for point in sent if not point[1].startswith("heldout/")} == logged
        made = [json.loads(path.read_text()) for path in (folder / "evaluations" / run_id).glob("*.json")]
        for one in made:
            assert (100, f"heldout/{one['corpus']}/nats_per_token", one["nats_per_token"]) in sent
        assert recorder.ends[run_id]["status"] == "done"
    assert len(recorder.points) == len(set(recorder.points))
    before = list(recorder.points)
    again = send_all(folder, "trackio")
    assert (again.runs, again.points) == (0, 0)
    assert sent_text("trackio", again) == "trackio: nothing new to send"
    assert recorder.points == before
    assert sorted(recorder.begun) == sorted(_runs(folder).values())
    assert recorder.num_closed == 1, "with nothing to send no library is even opened"


def test_lineage_says_where_a_run_comes_from(folder: Path) -> None:
    plan = Plan.read(folder / "plan.json")
    assert plan is not None
    runs = {run.id: run for run in tracked_runs(plan)}
    names = _runs(folder)
    last = runs[names["finetune2"]]
    assert last.lineage == {
        "study": "fake", "scale": "pico", "run": last.id, "stage": "finetune", "seed": 4,
        "parent": names["posttrain1"], "ancestors": f"{names['pretrain0']} > {names['posttrain1']}",
    }  # fmt: skip
    assert last.settings["finetune_lr"] == 1e-4
    assert last.config["arm.exposure_fraction"] == 0.5
    assert last.config["spec.data.main.store"] == "chemistry-000000000000"
    shared = runs[names["posttrain1"]]
    assert "finetune_lr" not in shared.settings, "two chains share it and differ in this"
    assert shared.settings["post_tokens"] == 10_000


def test_what_comes_later_is_sent_later(folder: Path, recorder: Recorder) -> None:
    run_id = _runs(folder)["finetune3"]
    path = folder / "runs" / run_id / "metrics.jsonl"
    lines, result = path.read_text().splitlines(keepends=True), folder / "runs" / run_id / "result.json"
    curves = [line for line in lines if "watch/" in line]
    rest = [line for line in lines if "watch/" not in line]
    kept = result.read_bytes()
    result.unlink()
    path.write_text("".join(rest[:40]))
    send_all(folder, "trackio")
    assert run_id not in recorder.ends
    path.write_text("".join(rest[:45]) + rest[45][:9])  # a line that is being written
    num = len(recorder.points)
    send_all(folder, "trackio")
    new = [(step, key) for _, step, key, _ in recorder.points[num:]]
    assert new == [(line["step"], key) for line in map(json.loads, rest[40:45]) for key in line if "/" in key]
    result.write_bytes(kept)
    path.write_text("".join(rest))
    send_all(folder, "trackio")
    path.write_text("".join(lines))  # the run was trained again for a curve: its other lines are the same
    num = len(recorder.points)
    send_all(folder, "trackio")
    assert {key for *_, key, _ in recorder.points[num:]} == {key for line in curves for key in json.loads(line)
                                                            if "/" in key}  # fmt: skip
    assert len(recorder.points) == len(set(recorder.points))
    assert recorder.ends[run_id]["steps"] == 100


def test_a_loss_that_is_not_finite_is_sent_as_it_is(folder: Path, recorder: Recorder) -> None:
    run_id = _runs(folder)["finetune3"]
    with open(folder / "runs" / run_id / "metrics.jsonl", "a") as file:
        file.write('{"step": 102, "tokens": 7, "train/loss": "nan", "train/grad_norm": null}\n')
    send_all(folder, "trackio")
    (value,) = [point[3] for point in recorder.points if point[:3] == (run_id, 102, "train/loss")]
    assert math.isnan(value)
    assert not [point for point in recorder.points if point[2] == "train/grad_norm"]


def test_a_tracker_that_is_down_is_tried_once_and_the_rest_is_sent_later(folder: Path, recorder: Recorder) -> None:
    recorder.fails = "posttrain"
    sent = send_all(folder, "trackio")
    names = _runs(folder)
    assert sent.runs == 1
    assert sent.waiting == [names[name] for name in ("posttrain1", "finetune2", "finetune3")]
    text = unsent_text("trackio", folder, sent)
    assert f"{sent.waiting_points:,} points of 3 stage runs not sent" in text
    assert "ConnectionError: no route to the tracker" in text
    assert f"`indelible track {folder} --to trackio` sends them" in text
    recorder.fails = ""
    later = send_all(folder, "trackio")
    assert (later.runs, later.points, later.reason) == (3, sent.waiting_points, "")
    assert len(recorder.points) == len(set(recorder.points)) == sent.points + later.points


def test_a_broken_file_of_one_run_keeps_no_other_from_being_sent(folder: Path, recorder: Recorder) -> None:
    names = _runs(folder)
    path = folder / "runs" / names["pretrain0"] / "metrics.jsonl"
    path.write_text("no metrics\n" + path.read_text())
    sent = send_all(folder, "trackio")
    assert sent.runs == 3
    assert sent.waiting == [names["pretrain0"]]
    assert "metrics.jsonl, line 1: not JSON" in sent.reason
    assert Sender(folder, "trackio").unsent("because").waiting == [names["pretrain0"]]


def test_a_broken_note_is_said_and_nothing_of_its_run_is_sent(folder: Path, recorder: Recorder) -> None:
    send_all(folder, "trackio")
    note = folder / "tracking" / "trackio" / _runs(folder)["finetune2"] / "sent.json"
    note.write_text("{}")
    num = len(recorder.points)
    sent = send_all(folder, "trackio")
    assert sent.waiting == [_runs(folder)["finetune2"]]
    assert f"{note}: format" in sent.reason
    assert len(recorder.points) == num


def test_a_tracker_may_take_runs_when_they_are_over(folder: Path, recorder: Recorder) -> None:
    run_id = _runs(folder)["finetune3"]
    result = folder / "runs" / run_id / "result.json"
    kept = result.read_bytes()
    result.unlink()
    recorder.ended_runs_only = True
    sent = send_all(folder, "wandb")
    assert (sent.runs, sent.reason) == (3, "")
    result.write_bytes(kept)
    assert send_all(folder, "wandb").runs == 1


def test_trackers_are_told_apart(folder: Path, recorder: Recorder) -> None:
    send_all(folder, "trackio")
    assert send_all(folder, "wandb").runs == 4
    note = SentRun.read(folder / "tracking" / "wandb" / _runs(folder)["pretrain0"] / "sent.json")
    assert note is not None
    assert note.tracker == "wandb"


def test_what_is_refused(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match="'mlflow': not one that is known; choose one of tensorboard, trackio, wandb"):
        trackers.check_tracker("mlflow")
    monkeypatch.setattr(trackers.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match="wandb: it is not installed; `pip install wandb`"):
        trackers.check_tracker("wandb")
    with pytest.raises(UserError, match=r"no plan.json; give the folder"):
        send_all(tmp_path, "wandb")
    for arguments in (["track", str(folder), "--to", "wandb"], ["run", "quickstart", "--out", "x", "--track", "wandb"]):
        with pytest.raises(UserError, match="it is not installed"):
            CliRunner().invoke(build_app(), arguments, catch_exceptions=False)
    assert not Path("x").exists()


def test_the_command_says_what_it_sent(folder: Path, recorder: Recorder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trackers.importlib.util, "find_spec", lambda name: "here")
    recorder.fails = "finetune"
    done = CliRunner().invoke(build_app(), ["track", str(folder), "--to", "wandb"], catch_exceptions=False)
    assert done.exit_code == 1
    assert "points of 2 stage runs sent" in done.output
    assert "of 2 stage runs not sent (ConnectionError" in done.output
    recorder.fails = ""
    done = CliRunner().invoke(build_app(), ["track", str(folder), "--to", "wandb"], catch_exceptions=False)
    assert done.exit_code == 0
    assert "2 stage runs sent" in done.output
