"""The commands results and report, as a user calls them."""

import io
import json

import polars as pl
import pytest
import typer
from fake_files import edit_json
from fake_study import FakeStudy, write_fake_study
from typer.testing import CliRunner

from indelible.cli import compare_command, results_commands
from indelible.errors import UserError
from indelible.results.table import read_table


@pytest.fixture
def app():
    application = typer.Typer()
    results_commands.register(application)
    compare_command.register(application)
    return application


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_fake_study(tmp_path_factory.mktemp("study") / "run", FakeStudy(seeds=(0, 1)))


def call(app, *arguments):
    return CliRunner().invoke(app, [str(argument) for argument in arguments], catch_exceptions=True)


def test_results_prints_csv_and_json(app, folder):
    table = read_table(folder)
    assert pl.read_csv(io.StringIO(call(app, "results", folder).stdout)).height == table.height
    assert json.loads(call(app, "results", folder, "--format", "json").stdout) == table.to_dicts()


def test_results_writes_parquet_beside_the_plan(app, folder, tmp_path):
    assert call(app, "results", folder, "--format", "parquet").exit_code == 0
    assert pl.read_parquet(folder / "results.parquet").equals(read_table(folder))
    assert call(app, "results", folder, "-o", tmp_path / "x.csv").exit_code == 0
    assert (tmp_path / "x.csv").read_text().startswith("study,scale,pipeline")


def test_report_writes_one_file(app, folder, tmp_path):
    done = call(app, "report", folder, "-o", tmp_path / "page.html")
    assert done.exit_code == 0
    assert (tmp_path / "page.html").read_text().startswith("<!DOCTYPE html>")


def test_report_of_a_table_lies_beside_it(app, folder, tmp_path):
    assert call(app, "results", folder, "-o", tmp_path / "all.csv").exit_code == 0
    assert call(app, "report", tmp_path / "all.csv").exit_code == 0
    assert (tmp_path / "all.html").read_text().startswith("<!DOCTYPE html>")


def test_report_of_several_places_needs_a_file(app, folder, tmp_path):
    call(app, "results", folder, "-o", tmp_path / "all.csv")
    error = call(app, "report", folder, tmp_path / "all.csv").exception
    assert isinstance(error, UserError)
    assert "-o FILE" in str(error)
    assert call(app, "report", folder, tmp_path / "all.csv", "-o", tmp_path / "both.html").exit_code == 0
    assert (tmp_path / "both.html").stat().st_size > 100_000


def test_a_folder_without_a_plan_is_refused(app, tmp_path):
    for command in ("results", "report"):
        error = call(app, command, tmp_path).exception
        assert isinstance(error, UserError)
        assert "it has no plan.json" in str(error)


def test_verdicts_of_a_study(app, folder):
    shown = call(app, "verdicts", folder).stdout
    assert "retained-lower" in shown
    assert "the findings of one claim share a risk of 5 % (Holm" in shown
    assert (
        "each finding by itself has a risk of 5 % (uncorrected)"
        in call(app, "verdicts", folder, "--uncorrected").stdout
    )
    rows = json.loads(call(app, "verdicts", folder, "--json").stdout)
    row = next(row for row in rows if row["claim"] == "retained-lower")
    assert {"verdict", "effect", "low", "high", "num_seeds", "run_ids", "detectable", "new_seeds", "p", "level"} <= set(
        row
    )
    assert row["num_seeds"] == 2
    assert set(row["run_ids"]) <= set(read_table(folder)["finetune_id"])


def test_compare_says_what_a_setting_does(app, folder):
    lines = call(app, "compare", folder, "--by", "exposure_fraction", "--within", "post_tokens").stdout.splitlines()
    assert [line for line in lines if "against" in line and not line.startswith(" ")][:2] == [
        "|D_post| 10k: λ 0.5 against 0",
        "|D_post| 10k: λ 1 against 0",
    ]
    assert sum(line.startswith("  L_ret ") and "n=2" in line for line in lines) == 4
    chosen = call(app, "compare", folder, "--by", "exposure_fraction", "--where", "exposure_fraction=0",
                  "--where", "exposure_fraction=1").stdout  # fmt: skip
    assert [line for line in chosen.splitlines() if "against" in line] == ["λ 1 against 0"]
    rows = json.loads(call(app, "compare", folder, "--by", "exposure_fraction", "--json").stdout)
    assert [row["value"] for row in rows] == [0.5, 1.0]
    assert set(rows[0]["losses"]["L_ret"]["finetune_ids"]) <= set(read_table(folder)["finetune_id"])


def test_a_loss_that_cannot_differ_is_the_same_runs(app, folder):
    """Stage 3's learning rate leaves stage 2 alone: a zero with an interval would look like a measurement."""
    lines = call(app, "compare", folder, "--by", "finetune_lr").stdout.splitlines()
    of_loss = {loss: [line for line in lines if line.startswith(f"  {loss} ")] for loss in ("L_im", "L_ret")}
    assert len(of_loss["L_im"]) == len(of_loss["L_ret"]) == 2
    assert all("the same runs (2 seeds): nothing to compare" in line for line in of_loss["L_im"])
    assert all("signs 2 / 0" in line for line in of_loss["L_ret"])


def test_verdicts_of_the_paper(app):
    assert "face value: one seed" in " ".join(call(app, "verdicts", "--paper").stdout.split())
    rows = json.loads(call(app, "verdicts", "--paper", "--json").stdout)
    assert {"supported", "contradicted", "not tested"} <= {row["verdict"] for row in rows}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "give either the folder of a study run or --paper"),
        (("DIR", "--paper"), "give either the folder of a study run or --paper"),
        (("--paper", "--uncorrected"), "the paper has one seed, so there is no p value to correct"),
    ],
)
def test_verdicts_refuses_unclear_requests(app, arguments, message):
    error = call(app, "verdicts", *arguments).exception
    assert isinstance(error, UserError)
    assert message in str(error)


def test_compare_by_exposure_says_what_to_show_and_what_it_costs(app, folder):
    shown = call(app, "compare", folder, "--by-exposure", "--finetune-lr", "0.001").stdout
    assert shown.count("stage-3 rate 0.001") == 2, "one for each size of D_post"
    assert "may be best" in shown
    assert "100,000" in shown
    assert "Each block by itself, at one look." in shown
    asked = ("compare", folder, "--by-exposure", "--finetune-lr")
    assert call(app, *asked, "1x").stdout == call(app, *asked, "3e-4").stdout != "", "pico's own rate"
    rows = json.loads(call(app, "compare", folder, "--by-exposure", "--json").stdout)
    assert [row["rate"] for row in rows] == [1e-4, 3e-4, 1e-3] * 2
    assert [one["fraction"] for one in rows[0]["rows"]] == [0.0, 0.5, 1.0]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ([], "give either --by SETTING, --by-exposure or --by-document"),
        (["--by", "placement", "--by-exposure"], "only one of them"),
        (["--by", "placement", "--finetune-lr", "1e-3"], "--finetune-lr: goes with --by-exposure"),
        (["--by-exposure", "--finetune-lr", "5"], "--finetune-lr 5: no chain has this stage-3 rate"),
        (["--by-exposure", "--finetune-lr", "5x"], "--finetune-lr 0.0015: no chain has this stage-3 rate"),
        (["--by-exposure", "--finetune-lr", "fast"], "--finetune-lr fast: expected a stage-3 rate of this"),
        (["--by-exposure", "--gain"], "--against, --within and --gain go with --by"),
        (["--by-exposure", "--where", "exposure_fraction=0"], "no finished chains at λ 0 and a larger λ"),
    ],
)
def test_what_cannot_be_asked_by_exposure_is_refused(app, folder, options, said):
    error = call(app, "compare", folder, *options).exception
    assert isinstance(error, UserError)
    assert said in str(error)


def test_summary_and_report_end_with_what_to_run_next(app, folder, tmp_path):
    for shown in (call(app, "results", folder, "--summary"), call(app, "report", folder, "-o", tmp_path / "p.html")):
        assert shown.stdout.rpartition("\n\n")[2].startswith("Next  ")


def test_options_of_figures_need_a_folder_for_them(app, folder):
    for options in (["--width", "240"], ["--figure", "retention"], ["--no-paper"]):
        error = call(app, "report", folder, *options).exception
        assert "--figure, --width and --no-paper go with --figures DIR" in str(error)


def test_a_rate_that_forgets_nothing_and_the_plans_notes_stand_below_a_comparison(app, tmp_path):
    root = write_fake_study(tmp_path / "run", FakeStudy(seeds=(0, 1), post_tokens=(10_000,), finetune_lrs=(1e-5, 1e-3)))
    edit_json(root / "plan.json", lambda plan: plan["summary"].update(notes=["posttrain: too few steps"]))
    shown = call(app, "compare", root, "--by", "exposure_fraction").stdout
    assert "Note: posttrain: too few steps" in shown
    notes = [line for line in shown.splitlines() if "so no gain can show" in line]
    assert len(notes) == 1
    assert notes[0].startswith("Note: stage-3 rate 1e-05: Without exposure nothing is forgotten at this rate")
    call(app, "report", root, "-o", tmp_path / "p.html")
    assert "<li>posttrain: too few steps</li>" in (tmp_path / "p.html").read_text()
