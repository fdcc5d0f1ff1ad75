"""Options of the commands that read results, choose chains and say their defaults."""

import json
from pathlib import Path

import polars as pl
import pytest
import typer
from fake_study import FakeStudy, write_fake_study
from typer.testing import CliRunner

from indelible.cli.main import build_app
from indelible.errors import UserError
from indelible.scheduling.failures import MAX_ATTEMPTS
from indelible.scheduling.lease import LEASE_SECONDS


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return write_fake_study(tmp_path_factory.mktemp("fake") / "out", FakeStudy(seeds=(0, 1), post_tokens=(10_000,)))


@pytest.fixture(scope="module")
def app() -> typer.Typer:
    return build_app()


def call(app: typer.Typer, *arguments: object) -> str:
    done = CliRunner().invoke(app, [str(argument) for argument in arguments], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.output


def refused(app: typer.Typer, *arguments: object) -> str:
    with pytest.raises(UserError) as caught:
        CliRunner().invoke(app, [str(argument) for argument in arguments], catch_exceptions=False)
    return str(caught.value)


def test_the_files_ending_says_the_format(app, folder, tmp_path):
    for ending, read in (("parquet", pl.read_parquet), ("csv", pl.read_csv)):
        path = tmp_path / f"t.{ending}"
        assert call(app, "results", folder, "-o", path).startswith(f"{path}: 18 chains")
        assert read(path).height == 18
    call(app, "results", folder, "-o", tmp_path / "t.json")
    assert len(json.loads((tmp_path / "t.json").read_text())) == 18


def test_a_format_that_contradicts_the_ending_is_refused(app, folder, tmp_path):
    assert "ends in .parquet, and --format says csv" in refused(
        app, "results", folder, "--format", "csv", "-o", tmp_path / "t.parquet"
    )
    assert "the ending says no format" in refused(app, "results", folder, "-o", tmp_path / "table")
    call(app, "results", folder, "--format", "csv", "-o", tmp_path / "table")
    assert "it takes neither --format nor -o" in refused(app, "results", folder, "--summary", "-o", tmp_path / "s.md")


def test_the_long_tables_are_written(app, folder, tmp_path):
    printed = json.loads(call(app, "results", folder, "--losses", "--format", "json"))
    assert {"chain", "stage", "checkpoint", "corpus", "nats_per_token"} <= printed[0].keys()
    assert call(app, "results", folder, "--curves", "--format", "parquet").startswith(f"{folder / 'curves.parquet'}: ")
    assert "kind" in pl.read_parquet(folder / "curves.parquet").columns
    assert "ask for one at a time" in refused(app, "results", folder, "--losses", "--curves")
    call(app, "results", folder, "-o", tmp_path / "table.parquet")
    assert "this needs the folder of one study run" in refused(app, "results", tmp_path / "table.parquet", "--losses")


def test_chains_are_chosen_by_arm_in_compare(app, folder):
    arms = ("--arm", "seed=0", "--arm", "finetune_lr=0.001")
    found = json.loads(call(app, "compare", folder, "--by", "exposure_fraction", *arms, "--json"))
    assert {one["losses"]["L_ret"]["result"]["n"] for one in found} == {1}
    assert {one["losses"]["L_ret"]["num_blocks"] for one in found} == {1}
    assert "have no column 'sede'" in refused(app, "compare", folder, "--by", "exposure_fraction", "--arm", "sede=0")


def test_lambda_is_a_name_of_the_fraction(app, folder):
    usual = call(app, "compare", folder, "--by", "exposure_fraction")
    assert call(app, "compare", folder, "--by", "lambda") == usual
    assert call(app, "compare", folder, "--by", "λ") == usual
    within = ("--by", "finetune_lr", "--within")
    assert call(app, "compare", folder, *within, "lambda") == call(app, "compare", folder, *within, "exposure_fraction")
    for option in ("--where", "--arm"):
        usual = call(app, "compare", folder, "--by", "finetune_lr", option, "exposure_fraction=0.5")
        assert call(app, "compare", folder, "--by", "finetune_lr", option, "lambda=0.5") == usual
    with pytest.raises(UserError, match=r"--where 3: exposure_fraction has 0, 0\.5, 1"):
        call(app, "compare", folder, "--by", "finetune_lr", "--where", "lambda=3")


def test_a_setting_that_comes_after_a_loss_is_said_to(app, folder):
    text = call(app, "compare", folder, "--by", "finetune_lr")
    lines = [line for line in text.splitlines() if line.startswith("  L_im")]
    assert lines
    assert all("the same runs (2 seeds): nothing to compare" in one for one in lines)


def test_diff_needs_two_runs_or_arms(app, folder):
    assert "give two stage runs, or the study folder and --arm" in refused(app, "diff", folder)
    assert "give either two stage runs" in refused(app, "diff", folder, folder, "--arm", "seed=0")


def test_helps_say_the_defaults(app):
    text = " ".join(call(app, "run", "--help").replace("│", " ").split())
    assert f"default {MAX_ATTEMPTS}." in text
    assert f"default {LEASE_SECONDS:g}." in text
