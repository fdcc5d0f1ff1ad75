"""The process beside the launcher: it sends while stages train, and a tracker that hangs costs nothing."""

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest
from fake_engine import make_plan, run_quietly

from indelible.cli.track_commands import following
from indelible.tracking.follow import Follower
from indelible.tracking.sending import Sender

FAKE = """
import json, os, time
class Settings:
    def __init__(self, **_): pass
class Run:
    def __init__(self, run_id): self.id, self.summary = run_id, {{}}
    def define_metric(self, *_, **__): pass
    def log(self, row):
        with open({log!r}, "a") as file: file.write(json.dumps([self.id, row]) + "\\n")
    def finish(self): pass
def init(id, **_):
    print("a library that prints")
    {body}
    return Run(id)
def teardown(): pass
"""


@pytest.fixture
def library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Puts a made-up wandb on the path of processes that are started; what it was sent stands in sent.jsonl."""

    def put(body: str = "pass") -> Path:
        log = tmp_path / "sent.jsonl"
        (tmp_path / "wandb.py").write_text(FAKE.format(log=str(log), body=body))
        paths = [tmp_path, Path(__file__).parents[2], Path(__file__).parents[1] / "scheduling"]
        monkeypatch.setenv("PYTHONPATH", ":".join(map(str, paths)))
        return log

    return put


def _rows(log: Path) -> list[tuple[str, int]]:
    rows = [json.loads(line) for line in log.read_text().splitlines()]
    return [(run_id, row["optimizer_step"]) for run_id, row in rows]


def test_what_comes_while_it_runs_is_sent(folder: Path, library) -> None:
    log = library()
    follower = Follower(folder, "wandb")
    deadline = time.monotonic() + 30
    while not list(folder.glob("tracking/wandb/finetune*/sent.json")) and time.monotonic() < deadline:
        time.sleep(0.05)
    before = _rows(log)
    run_id = max(name for name, _ in before)
    with open(folder / "runs" / run_id / "metrics.jsonl", "a") as file:
        file.write('{"step": 102, "tokens": 9, "train/loss": 3.5}\n')
    sent = follower.finish()
    assert (sent.reason, sent.waiting) == ("", [])
    assert sent.runs == len({name for name, _ in before}), "a run that was sent in two passes is one run"
    assert _rows(log)[len(before) :] == [(run_id, 102)]
    assert "a library that prints" in follower.log.read_text()


def test_a_tracker_that_hangs_costs_no_training_and_no_result(tmp_path: Path, library, capfd) -> None:
    library("time.sleep(600)")
    out = make_plan(tmp_path / "out", [("pretrain-a", None, {"steps": 3}), ("posttrain-b", "pretrain-a", {})])
    began = time.monotonic()
    follower = Follower(out, "wandb")
    code, _ = run_quietly(out, 1)
    launched = time.monotonic() - began
    assert code == 0
    sent = follower.finish(2.0)
    assert time.monotonic() - began < launched + 10
    assert sent.waiting == ["pretrain-a", "posttrain-b"]
    assert sent.reason == "no answer within 2 s"
    assert follower._process.poll() is not None, "it was ended"
    library()
    assert Follower(out, "wandb").finish().runs == 2
    assert Sender(out, "wandb").unsent("left").waiting == []


def test_a_tracker_that_fails_is_one_warning(folder: Path, library, capfd) -> None:
    library('raise ConnectionError("no route")')
    with following(folder, "wandb"):
        pass
    said = capfd.readouterr()
    assert said.out.splitlines()[-1] == "wandb: nothing was sent"
    assert said.err.startswith("Warning: wandb: ")
    assert "stage runs not sent (ConnectionError: no route)" in said.err
    assert len(said.err.splitlines()) == 1


def test_it_sends_when_the_launcher_dies_and_ends(folder: Path, library) -> None:
    log = library()
    code = (
        "import os, sys; from pathlib import Path; from indelible.tracking.follow import Follower\n"
        "print(Follower(Path(sys.argv[1]), 'wandb')._process.pid, flush=True); os.kill(os.getpid(), 9)"
    )
    done = subprocess.run([sys.executable, "-c", code, str(folder)], capture_output=True, text=True, check=False)
    pid = int(done.stdout)
    deadline = time.monotonic() + 30
    while Path(f"/proc/{pid}").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not Path(f"/proc/{pid}").exists()
    assert len({run_id for run_id, _ in _rows(log)}) == 4


def test_without_a_tracker_nothing_is_started(tmp_path: Path) -> None:
    with following(tmp_path, None):
        pass
    assert list(tmp_path.iterdir()) == []
