"""The whole of it on a tiny checkpoint: plan, run, kill and continue, card, exit codes."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import jsonschema
import pytest
import yaml
from task_files import CHOICE, write_task
from typer.testing import CliRunner

import indelible
from indelible.cli.main import build_app
from indelible.durability.card import Audit, schema
from indelible.errors import UserError
from indelible.records import Plan
from indelible.scheduling.snapshot import snapshot_of

pytestmark = pytest.mark.slow


@pytest.fixture
def battery(tmp_path, tiny_battery) -> Path:
    """The tiny battery as a file."""
    file = tmp_path / "tiny.yaml"
    file.write_text(yaml.safe_dump(tiny_battery))
    return file


@pytest.fixture
def arguments(checkpoints, battery, tmp_path) -> list[str]:
    """Of an audit of the whole battery, to which options may be added."""
    before, after = checkpoints
    start = ["audit", str(after), "--keep", "post", "--later", "ft", "--base", str(before)]
    return [*start, "--battery", str(battery), "--out", str(tmp_path / "out"), "--workers", "2", "--budget", "all"]


def invoke(arguments, *more) -> tuple[int, str]:
    """Exit code and standard output of the command, in this process; its workers are processes of their own."""
    found = CliRunner().invoke(build_app("audit"), [*arguments, *more])
    if isinstance(found.exception, UserError):
        return 2, str(found.exception)
    if found.exception is not None and not isinstance(found.exception, SystemExit):
        raise found.exception
    return found.exit_code, found.stdout


def test_from_a_plan_over_a_kill_to_a_card(arguments, tmp_path):
    out = tmp_path / "out"
    code, text = invoke(arguments, "--plan", "--json")
    steps = json.loads(text)
    assert code == 0
    assert not out.exists(), "a plan runs nothing"
    assert [step["stage_runs"] for step in steps] == sorted(step["stage_runs"] for step in steps)
    assert "Budget: all" in invoke(arguments, "--plan")[1]

    command = [sys.executable, "-m", "indelible.cli.main", *arguments]
    process = subprocess.Popen(command, start_new_session=True, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 180
    while len(list(out.glob("runs/*/result.json"))) < 2 and time.monotonic() < deadline:
        time.sleep(0.1)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    kept = {path: path.stat().st_mtime_ns for path in out.glob("runs/*/result.json")}
    assert len(kept) >= 2
    assert not (out / "audit.json").exists()

    code, text = invoke(arguments, "--json")
    assert {path: path.stat().st_mtime_ns for path in kept} == kept, "what was done is not done again"
    record = json.loads(text)
    jsonschema.validate(record, schema())
    assert record == json.loads((out / "audit.json").read_text())
    assert (record["exit_code"], record["trials"], record["unfinished"]) == (code, 6, 0)
    assert record["kept"]["unit"] == "share"
    plan = Plan.read(out / "plan.json")
    assert len(plan.stage_runs) == steps[-1]["stage_runs"]
    assert (out / "audit.html").is_file()
    assert (out / "audit.md").read_text().startswith("---\n")

    for bar in (1e-9, 0.5, 1.0):  # what is done is judged again, at another bar
        expected = 0 if record["kept"]["low"] > bar else 3 if record["kept"]["high"] < bar else 4
        assert invoke(arguments, "--require", f"{bar:.9f}")[0] == expected


def test_budgets_are_nested_and_a_larger_one_goes_on(arguments, tmp_path):
    """A budget of one portion, then all: what the first has done stands in the second."""
    steps = json.loads(invoke(arguments, "--plan", "--json")[1])
    between = (steps[0]["seconds"] + steps[1]["seconds"]) / 2
    code, text = invoke(arguments, "--budget", f"{between}s", "--json")
    assert code == 4, "one unit has no interval"
    assert json.loads(text)["left_out"] == [step["adds"] for step in steps[1:]]
    first = {path.name for path in (tmp_path / "out" / "runs").iterdir()}
    assert len(first) == steps[0]["stage_runs"]
    assert json.loads(invoke(arguments, "--json")[1])["left_out"] == []
    assert first < {path.name for path in (tmp_path / "out" / "runs").iterdir()}
    code, text = invoke(arguments, "--budget", "1s", "--out", str(tmp_path / "other"))
    assert (code, "the smallest part of the battery" in text) == (2, True)


def test_from_python_two_checkpoints_are_compared(checkpoints, tiny_battery, tmp_path):
    before, after = checkpoints
    found = indelible.audit(
        after, keep="post", later="ft", against=before, budget="all", battery=tiny_battery, out=tmp_path / "out",
        set={"relearning": [], "replay": []}, workers=2,
    )  # fmt: skip
    assert isinstance(found, Audit)
    assert found == Audit.read(tmp_path / "out" / "audit.json")
    assert found.kept.unit == "nats"
    assert [row.is_main for row in found.comparison].count(True) == 1
    assert found.comparison[0].difference.n == 2
    assert found.scope.unit == "seed of fine-tuning"
    assert any("One checkpoint a side" in one for one in found.warnings)
    copy = tmp_path / "copy"
    copy.symlink_to(after)
    with pytest.raises(indelible.UserError, match="the same weights"):
        indelible.audit(after, keep="post", later="ft", against=copy, battery=tiny_battery, out=tmp_path / "o2")


def test_a_run_that_did_not_end_is_exit_code_one(arguments, monkeypatch):
    from indelible.scheduling import launcher

    def stopped(out, *arguments, **more):
        return launcher.Outcome(snapshot_of(out), trouble="asked to stop")

    monkeypatch.setattr(launcher, "launch", stopped)
    assert invoke(arguments)[0] == 1


def test_wrong_requests_are_exit_code_two(arguments):
    for more, message in (
        (("--for", "nobody"), "expected one of careful"),
        (("--require", "much"), "expected a share such as 0.8"),
        (("--later", "nowhere.jsonl"), "no such file or folder, and no corpus of that name"),
        (("--set", "updates"), "expected field=value"),
        (("--budget", "soon"), "expected a time such as 40m"),
        (("--base", "./nowhere"), "--base = './nowhere': no such folder"),
        (("--executor", "k8s"), "--executor k8s: expected one of local, slurm"),
        (("--set", "adapt=[lora]", "--set", "lora_targets=[c_attn]"), "c_attn not among the linear layers"),
    ):
        code, text = invoke(arguments, *more)
        assert (code, message in text) == (2, True), text


def test_a_card_with_a_task(checkpoints, tiny_battery, tmp_path):
    pytest.importorskip("lm_eval", reason="lm-eval is not installed: pip install 'indelible[tasks]'")
    records = [{"question": f"word {n}", "choices": ["a", "b c", "d"], "answer": n % 3} for n in range(9)]
    file = write_task(tmp_path / "quiz.yaml", {**CHOICE, "prompt": "{question}"}, records)
    how = {"keep": "post", "later": "ft", "battery": tiny_battery, "out": tmp_path / "out", "budget": "all",
           "workers": 1, "set": {"relearning": [], "replay": [], "lr": [3e-3]}}  # fmt: skip
    plain = indelible.audit(checkpoints[1], **how)
    results = {path: path.read_bytes() for path in (tmp_path / "out").glob("runs/*/result.json")}
    found = indelible.audit(checkpoints[1], tasks=file, **how)
    assert {path: path.read_bytes() for path in (tmp_path / "out").glob("runs/*/result.json")} == results
    (row,) = found.accuracies
    assert (row.task, row.later, row.examples, row.after.n, row.settings) == ("quiz", "ft", 9, 2, 1)
    assert found.model_copy(update={"accuracies": (), "cost": plain.cost}) == plain
    assert "## Accuracies" in (tmp_path / "out" / "audit.md").read_text()
