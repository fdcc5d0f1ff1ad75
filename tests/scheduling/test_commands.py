"""`status`, `show`, `diff` and `gc` as commands: what they print, and what machines read of it."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
import typer
from typer.testing import CliRunner

from indelible.cli import lineage_commands, run_commands
from indelible.errors import UserError
from indelible.records import PlannedChain


@pytest.fixture(scope="module")
def app() -> typer.Typer:
    """The commands of these rooms."""
    made = typer.Typer()
    run_commands.register(made)
    lineage_commands.register(made)
    return made


@pytest.fixture
def finished(tmp_path: Path, fake: ModuleType) -> Path:
    """A finished study of two chains that share their first stage."""
    runs = [("pretrain-a", None, {"steps": 2})]
    runs += [(f"finetune-c{i}", "pretrain-a", {"steps": 2, "training": {"class": "T", "lr": i / 10}}) for i in (1, 2)]
    chains = [
        PlannedChain(
            columns={"arm": "", "finetune_lr": i / 10, "seed": 0},
            stages={"pretrain": "pretrain-a", "finetune": f"finetune-c{i}"},
        )
        for i in (1, 2)
    ]
    out = fake.make_plan(tmp_path / "out", runs, chains=chains)
    assert fake.run_quietly(out, 1)[0] == 0
    return out


def _call(app: typer.Typer, *arguments: str, columns: int = 200) -> str:
    result = CliRunner().invoke(app, list(arguments), env={"COLUMNS": str(columns)}, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


def test_status(app: typer.Typer, finished: Path) -> None:
    assert "toy" in _call(app, "status", str(finished))
    shown = json.loads(_call(app, "status", str(finished), "--json"))
    assert (shown["counts"]["done"], shown["by_stage"]["finetune"], shown["is_settled"]) == (3, {"done": 2}, True)


def test_show(app: typer.Typer, finished: Path) -> None:
    text = _call(app, "show", str(finished / "finetune-c1"))
    assert "finetune-c1 <- pretrain-a (done)" in " ".join(text.split())
    shown = json.loads(_call(app, "show", str(finished / "finetune-c2"), "--json"))
    assert (shown["id"], shown["parents"]) == ("finetune-c2", [{"id": "pretrain-a", "status": "done"}])
    by_setting = json.loads(_call(app, "show", str(finished), "--arm", "finetune_lr=0.2", "--json"))
    assert by_setting == shown
    assert _call(app, "show", str(finished), "--stage", "pretrain").startswith("pretrain-a")
    with pytest.raises(UserError, match=r"--arm seed=0: 2 stage runs; say one of finetune_lr \(0\.1, 0\.2\)"):
        _call(app, "show", str(finished), "--arm", "seed=0")


def test_diff(app: typer.Typer, finished: Path) -> None:
    pair = (str(finished / "finetune-c1"), str(finished / "finetune-c2"))
    assert "spec.training.lr" in _call(app, "diff", *pair)
    assert "spec.training.lr" in _call(app, "diff", *pair, columns=60)  # the names of fields are never cut
    shown = json.loads(_call(app, "diff", *pair, "--json"))
    assert (shown["runs"], shown["fields"]["spec.training.lr"]) == (["finetune-c1", "finetune-c2"], [0.1, 0.2])
    arms = ("--arm", "finetune_lr=0.1", "--arm", "finetune_lr=0.2")
    assert json.loads(_call(app, "diff", str(finished), *arms, "--json")) == shown
    same = _call(app, "diff", str(finished), *arms, "--stage", "pretrain")
    assert "A and B are the same run, pretrain-a" in same
    assert "No difference." in _call(app, "diff", pair[0], pair[0])


def test_work_needs_a_plan_and_says_when_nothing_is_left(app: typer.Typer, finished: Path, tmp_path: Path) -> None:
    assert "3 done. Nothing to do." in _call(app, "work", str(finished))
    with pytest.raises(UserError, match=r"no plan\.json; is this the --out folder of a study"):
        _call(app, "work", str(tmp_path / "nowhere"))


def test_work_leaves_what_failed_for_good(app: typer.Typer, tmp_path: Path, fake: ModuleType) -> None:
    bad = {"steps": 2, "fail": {"how": "error", "at": 1, "unless": str(tmp_path / "mended")}}
    runs = [("pretrain-a", None, bad), ("pretrain-b", None, {"steps": 2}), ("finetune-c", "pretrain-a", {"steps": 2})]
    out = fake.make_plan(tmp_path / "out", runs)
    assert fake.run_quietly(out, 1, is_retrying=False)[0] == 1
    failure = out / "runs" / "pretrain-a" / "failure.json"
    before = failure.read_bytes()
    (tmp_path / "mended").touch()
    result = CliRunner().invoke(app, ["work", str(out)], catch_exceptions=False)
    assert result.exit_code == 1
    assert "1 done, 1 failed, 1 blocked. Nothing to do." in result.output
    assert failure.read_bytes() == before, "another worker of this folder may just have written it"
    assert fake.run_quietly(out, 1)[0] == 0, "run tries again"


def test_what_is_prepared_is_worked_on(app: typer.Typer, tiny_study: Callable[..., Path], tmp_path: Path) -> None:
    out = tiny_study()
    (out / "plan.json").unlink()
    text = _call(app, "run", str(tmp_path / "out.yaml"), "--out", str(out), "--only-prepare")
    assert f"`indelible work {out}` trains it" in text
    assert (out / "plan.json").is_file()
    assert not list(out.glob("runs/*"))
    assert "3 done" in _call(app, "work", str(out))
    with pytest.raises(UserError, match="--only-prepare trains nothing"):
        _call(app, "run", "quickstart", "--out", str(tmp_path / "x"), "--only-prepare", "--track", "wandb")


def test_gc_is_dry_by_default(app: typer.Typer, finished: Path) -> None:
    assert "0.000 MB can go" in _call(app, "gc", str(finished))
    old = shutil.copytree(finished / "runs" / "finetune-c1", finished / "runs" / "finetune-old")
    assert "can go; `indelible gc" in _call(app, "gc", str(finished))
    shown = json.loads(_call(app, "gc", str(finished), "--json"))
    assert [(item["path"], item["why"]) for item in shown["found"]] == [("runs/finetune-old", "not in the plan")]
    assert shown["removed_bytes"] == 0
    assert old.exists()
    assert "Removed" in _call(app, "gc", str(finished), "--yes")
    assert not old.exists()
    assert json.loads(_call(app, "gc", str(finished), "--json"))["found"] == []
