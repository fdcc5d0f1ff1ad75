"""`reproduce`: which study it runs, and the report and verdicts that follow. The run itself is a made-up one."""

import pytest
import typer
from fake_study import FakeStudy, write_fake_study
from typer.testing import CliRunner

from indelible.cli import run_commands
from indelible.errors import UserError


@pytest.fixture
def call(monkeypatch):
    """Calls `reproduce`; the run leaves a finished study of its seeds and ends with `code`."""
    requested = {}

    def answer(*arguments, code=0):
        def run(study, folder, workers, executor, force):
            requested.update(study=study, workers=workers, executor=executor, force=force)
            write_fake_study(folder, FakeStudy(seeds=(0, 1, 2)))
            return code

        monkeypatch.setattr(run_commands, "_run", run)
        application = typer.Typer()
        run_commands.register(application)
        return CliRunner().invoke(application, ["reproduce", *(str(argument) for argument in arguments)]), requested

    return answer


def test_it_runs_the_figure_and_writes_report_and_verdicts(call, tmp_path):
    out = tmp_path / "fig"
    done, requested = call(
        "fig3a", "--scale", "nano", "--seeds", 2, "--out", out, "--workers", 3, "--set", "finetune.lr=1e-4"
    )
    assert done.exit_code == 0, done.output
    study = requested.pop("study")
    assert (study.name, study.scale, study.seeds) == ("fig3a", "nano", (0, 1))
    assert {arm.stages["finetune"].lr for arm in study.arms} == {1e-4}
    assert requested == {"workers": 3, "executor": "local", "force": False}
    assert (out / "report.html").read_text().startswith("<!DOCTYPE html>")
    assert "retained-lower (Figure 3a right)" in done.stdout


def test_what_a_failed_run_left_is_reported_with_its_exit_code(call, tmp_path):
    done, _ = call("fig3a", "--out", tmp_path / "fig", code=1)
    assert done.exit_code == 1
    assert (tmp_path / "fig" / "report.html").exists()


def test_unknown_figures_and_scales_are_refused_before_anything_is_made(call, tmp_path):
    for arguments, message in ((["fig99"], "is not a shipped study"), (["fig3a", "--scale", "huge"], "huge")):
        done, requested = call(*arguments, "--out", tmp_path / "fig")
        assert isinstance(done.exception, UserError)
        assert message in str(done.exception)
        assert not requested
        assert not (tmp_path / "fig").exists()
