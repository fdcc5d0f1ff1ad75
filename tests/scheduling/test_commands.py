"""`status`, `show`, `diff` and `gc` as commands: what they print, and what machines read of it."""

import json
import shutil
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
