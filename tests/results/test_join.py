"""Joining results tables: parts of one study become its table, and parts that contradict each other are refused."""

import json

import polars as pl
import pytest
import typer
from fake_study import FakeStudy, write_fake_study
from resolved_study import write_resolved_study
from typer.testing import CliRunner

from indelible.claims.paper_claims import study_verdicts
from indelible.cli import compare_command, results_commands
from indelible.errors import UserError
from indelible.results.columns import setting_columns, stages_of
from indelible.results.join import join_tables, read_tables
from indelible.results.table import read_table, write_table


@pytest.fixture
def whole(tmp_path):
    return write_fake_study(tmp_path / "whole", FakeStudy(seeds=(0, 1, 2)))


@pytest.fixture
def parts(tmp_path):
    """The same study in three parts: a folder, and two tables of which one has a seed of the folder, too."""
    folder = write_fake_study(tmp_path / "first", FakeStudy(seeds=(0,)))
    second = read_table(write_fake_study(tmp_path / "second", FakeStudy(seeds=(0, 1))))
    third = read_table(write_fake_study(tmp_path / "third", FakeStudy(seeds=(2,))))
    write_table(second, tmp_path / "second.csv", "csv")
    write_table(third, tmp_path / "third.parquet", "parquet")
    return [folder, tmp_path / "second.csv", tmp_path / "third.parquet"]


def in_order(table):
    return table.sort("seed", *setting_columns(table)).select(sorted(table.columns))


def test_parts_of_a_study_joined_are_the_study(whole, parts):
    joined, expected = read_tables(parts), read_table(whole)
    assert joined.columns == expected.columns
    assert joined.schema == expected.schema
    assert in_order(joined).equals(in_order(expected))
    assert study_verdicts(joined) == study_verdicts(expected)


def test_one_place_is_read_as_it_is(whole):
    assert read_tables([whole]).equals(read_table(whole))
    assert read_tables([whole, whole]).equals(read_table(whole))


@pytest.mark.parametrize("is_finished_first", [True, False])
def test_of_a_chain_in_two_tables_the_finished_row_is_kept(whole, is_finished_first):
    done = read_table(whole)
    begun = done.with_columns(
        pl.lit(None, pl.Float64).alias("L_ret"), pl.lit("incomplete").alias("status"), pl.lit(1.0).alias("L_pre_bpb")
    )
    pair = [("done", done), ("begun", begun)]
    joined = join_tables(pair if is_finished_first else pair[::-1])
    assert in_order(joined).equals(in_order(done))


def test_equal_settings_with_other_runs_in_one_of_the_tables_are_refused(whole):
    table = read_table(whole)
    again = table.head(1).with_columns(pl.lit("finetune-other").alias("finetune_id"))
    twice = pl.concat([table, again])
    with pytest.raises(UserError, match=r"^twice: two chains have the same settings and seed, .* and finetune-other"):
        join_tables([("twice", twice), ("again", twice)])


def test_a_chain_that_a_table_has_twice_is_one_run_and_may_stay(whole):
    table = read_table(whole)
    twice = pl.concat([table, table.head(1)])
    assert join_tables([("twice", twice), ("once", table)]).height == table.height + 1


def test_settings_and_counts_that_a_table_lacks_are_null_and_in_their_places(whole):
    table = read_table(whole).with_columns(pl.lit("a").alias("arm"))
    other = table.with_columns(pl.lit("b").alias("arm"), pl.lit(7).alias("finetune_art_tokens"))
    other.insert_column(other.columns.index("L_im"), pl.Series("beta", [0.5] * other.height))
    for tables in ([("a", table), ("b", other)], [("b", other), ("a", table)]):
        joined = join_tables(tables)
        assert joined.columns == other.columns
        assert "beta" in setting_columns(joined)
        assert joined.filter(pl.col("arm") == "a")["beta"].null_count() == table.height
        assert joined.filter(pl.col("arm") == "b")["finetune_art_tokens"].to_list() == [7] * table.height


@pytest.mark.parametrize("is_lacking_first", [True, False])
def test_rows_of_equal_runs_are_one_chain_whatever_columns_one_lacks(whole, is_lacking_first):
    table = read_table(whole)
    other = table.with_columns(pl.lit(7).alias("finetune_art_tokens"))
    other.insert_column(other.columns.index("L_im"), pl.Series("beta", [0.5] * other.height))
    tables = [("lacking", table), ("full", other)]
    joined = join_tables(tables if is_lacking_first else tables[::-1])
    assert in_order(joined).equals(in_order(other))


def test_arms_of_equal_runs_stay_apart(whole):
    table = read_table(whole)
    named = table.with_columns(pl.lit("fig2").alias("arm"))
    assert join_tables([("a", table), ("b", named)]).height == 2 * table.height


def test_stages_and_losses_of_one_table_alone_have_their_places(tmp_path):
    study = {
        "name": "x", "scale": "pico", "pipeline": {"pre": "general", "post": "music", "ft": "chemistry"}, "seeds": [0]
    }  # fmt: skip
    longer = study | {"stages": {"second": {"corpus": "instruction"}},
                      "views": {"L_second": {"after": "second", "corpus": "posttrain"}}}  # fmt: skip
    short = read_table(write_resolved_study(tmp_path / "short", study))
    long = read_table(write_resolved_study(tmp_path / "long", longer))
    for tables in ([("short", short), ("long", long)], [("long", long), ("short", short)]):
        joined = join_tables(tables)
        assert joined.columns == long.columns
        assert stages_of(joined) == ["pretrain", "posttrain", "finetune", "second"]
        assert joined["second_id"].null_count() == 1
        assert joined.height == 2


def test_equal_settings_with_other_runs_are_refused(whole):
    table = read_table(whole)
    other = table.with_columns(pl.col("finetune_id") + "0")
    message = r"^b: the chain of finetune-\S+0 has the settings and the seed of finetune-\S+ in a, .* indelible diff"
    with pytest.raises(UserError, match=message.replace("indelible diff", "`indelible diff`")):
        join_tables([("a", table), ("b", other)])


def test_what_the_specs_of_two_folders_differ_in_is_said(tmp_path):
    study = {
        "name": "x", "scale": "pico", "pipeline": {"pre": "general", "post": "music", "ft": "chemistry"}, "seeds": [0]
    }  # fmt: skip
    one = write_resolved_study(tmp_path / "one", study)
    other = write_resolved_study(tmp_path / "other", study | {"posttrain": {"weight_decay": 0.3}})
    with pytest.raises(UserError, match=r"Their specs differ in training.weight_decay: 0.1 and 0.3\. They would be"):
        read_tables([one, other])


@pytest.mark.parametrize("loss", ["L_im", "L_ret", "L_ft", "L_pre", "L_pre_post"])
def test_the_same_run_with_another_loss_is_refused_even_in_another_chain(whole, loss):
    table = read_table(whole)
    other = table.head(1).with_columns(pl.col(loss) + 1e-9, pl.lit("other").alias("arm"))
    with pytest.raises(UserError, match=rf"^b: (posttrain|finetune)-\S+ has {loss} [\d.]+, and [\d.]+ in a; "):
        join_tables([("a", table), ("b", other)])


def test_a_loss_is_that_of_its_stage_run_in_whatever_chain(whole):
    """Two chains share a second stage; its loss differs between the tables."""
    table = read_table(whole)
    one = table.filter(pl.col("finetune_lr") == 1e-4)
    other = table.filter(pl.col("finetune_lr") == 1e-3).with_columns(pl.col("L_im") + 1e-9)
    with pytest.raises(UserError, match=r"^b: posttrain-\S+ has L_im .* evaluated on the same windows"):
        join_tables([("a", one), ("b", other)])


def test_a_study_may_take_a_paper_loss_elsewhere(whole):
    """L_ret after a fourth stage: one third stage has several, and that is no contradiction."""
    table = read_table(whole).sort("finetune_lr")
    shared = table.with_columns(pl.lit("finetune-shared").alias("finetune_id"), pl.col("finetune_lr").alias("beta"))
    shared = shared.with_columns(pl.format("second-{}-{}", "posttrain_id", "beta").alias("second_id"))
    position = table.columns.index("L_im")
    order = [*table.columns[:position], "beta", *table.columns[position:]]
    order.insert(order.index("finetune_id") + 1, "second_id")
    shared = shared.select(order)
    assert join_tables([("a", shared), ("b", shared.head(9))]).height == table.height


def run(*arguments):
    application = typer.Typer()
    results_commands.register(application)
    compare_command.register(application)
    return CliRunner().invoke(application, [str(argument) for argument in arguments])


def test_the_commands_take_several_places(whole, parts, tmp_path):
    output = tmp_path / "all.parquet"
    assert run("results", *parts, "--format", "parquet", "-o", output).exit_code == 0
    assert in_order(read_table(output)).equals(in_order(read_table(whole)))
    for arguments in (["verdicts"], ["compare", "--by", "exposure_fraction"]):
        name, *options = arguments
        assert run(name, *parts, *options).stdout == run(name, whole, *options).stdout
    assert json.loads(run("results", *parts, "--format", "json").stdout)


def test_a_joined_table_takes_the_place_of_none_of_its_parts(whole, tmp_path):
    part = tmp_path / "part.csv"
    assert run("results", whole, "-o", part).exit_code == 0
    kept = part.read_bytes()
    refused = run("results", part, whole, "-o", tmp_path / "." / "part.csv")
    assert "part.csv: this is one of the tables that are read; name another file." in str(refused.exception)
    assert part.read_bytes() == kept


def test_parquet_of_several_places_needs_a_file(parts):
    refused = run("results", *parts, "--format", "parquet")
    assert isinstance(refused.exception, UserError)
    assert "-o FILE" in str(refused.exception)
