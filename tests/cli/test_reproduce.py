"""`reproduce`: what it asks `run` for, and the report and verdicts that follow. The run itself is a made-up one."""

import pytest
import typer
from fake_study import FakeStudy, write_fake_study
from typer.testing import CliRunner

from indelible.cli import run_commands
from indelible.cli.reproduce_commands import register
from indelible.errors import UserError


@pytest.fixture
def call(monkeypatch):
    """Calls `reproduce`; the asked run leaves a finished study of its seeds and exits with `code`."""
    asked = {}

    def answer(*arguments, code=0):
        def run(figure, folder, *, workers, executor, overrides):
            asked.update(figure=figure, workers=workers, executor=executor, overrides=overrides)
            write_fake_study(folder, FakeStudy(seeds=(0, 1, 2)))
            raise typer.Exit(code)

        monkeypatch.setattr(run_commands, "run", run)
        application = typer.Typer()
        register(application)
        return CliRunner().invoke(application, [str(argument) for argument in arguments]), asked

    return answer


def test_it_runs_the_figure_and_writes_report_and_verdicts(call, tmp_path):
    out = tmp_path / "fig"
    done, asked = call(
        "fig3a", "--scale", "nano", "--seeds", 2, "--out", out, "--workers", 3, "--set", "finetune.lr=1e-4"
    )
    assert done.exit_code == 0
    assert asked == {
        "figure": "fig3a",
        "workers": 3,
        "executor": "local",
        "overrides": ["scale=nano", "seeds=[0, 1]", "finetune.lr=1e-4"],
    }
    assert (out / "report.html").read_text().startswith("<!DOCTYPE html>")
    assert "retained-lower (Figure 3a right)" in done.stdout


def test_what_a_failed_run_left_is_reported_with_its_exit_code(call, tmp_path):
    done, _ = call("fig3a", "--out", tmp_path / "fig", code=1)
    assert done.exit_code == 1
    assert (tmp_path / "fig" / "report.html").exists()


def test_unknown_figures_and_scales_are_refused_before_anything_is_made(call, tmp_path):
    for arguments, message in ((["fig99"], "is not a shipped study"), (["fig3a", "--scale", "huge"], "huge")):
        done, asked = call(*arguments, "--out", tmp_path / "fig")
        assert isinstance(done.exception, UserError)
        assert message in str(done.exception)
        assert not asked
        assert not (tmp_path / "fig").exists()
