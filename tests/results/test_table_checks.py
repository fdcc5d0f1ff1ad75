"""Stored tables that no program of ours wrote so: edited by hand, cut, or put together twice."""

import math

import polars as pl
import pytest
from fake_study import FakeStudy, write_fake_study

from indelible.claims.paper_claims import study_verdicts
from indelible.errors import UserError
from indelible.results.join import read_tables
from indelible.results.table import read_table, write_table

ONE = (pl.col("seed") == 1) & (pl.col("exposure_fraction") == 1)


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    study = FakeStudy(post_tokens=(100_000,), is_traced=False)
    return read_table(write_fake_study(tmp_path_factory.mktemp("study"), study))


def edited(table: pl.DataFrame, column: str, value: object) -> pl.DataFrame:
    """The table with a value in the rows of seed 1 at lambda 1."""
    return table.with_columns(pl.when(ONE).then(pl.lit(value, table.schema[column])).otherwise(column).alias(column))


@pytest.mark.parametrize("ending", ["csv", "parquet"])
@pytest.mark.parametrize(
    ("column", "value", "message"),
    [
        ("L_ret", math.nan, r"row 8: L_ret nan is no number; a chain with such a loss is diverged"),
        ("L_im", math.inf, r"row 8: L_im inf is no number"),
        ("L_pre", -0.5, r"row 8: L_pre -0\.5 is below zero"),
        ("forgotten", math.nan, r"row 8: forgotten nan is no number"),
        ("finetune_lr", math.nan, r"row 8: finetune_lr nan is no number"),
        ("exposure_fraction", -1.0, r"row 8: exposure_fraction -1\.0 is below zero"),
        ("status", "Done", r"row 8: status Done is no status; they are done, diverged, failed, incomplete"),
        ("status", None, r"row 8: status None is no status"),
        ("seed", None, r"row 8: seed None has no seed"),
    ],
)
def test_a_row_that_is_no_chain_is_refused(table, tmp_path, column, value, message, ending):
    ordered = table.sort(ONE, "seed", "exposure_fraction", maintain_order=True)
    ordered = pl.concat([ordered.head(7), ordered.tail(3), ordered.slice(7, ordered.height - 10)])
    write_table(edited(ordered, column, value), tmp_path / f"t.{ending}", ending)
    with pytest.raises(UserError, match=message):
        read_table(tmp_path / f"t.{ending}")


def test_a_renamed_column_is_refused_by_name(table, tmp_path):
    write_table(table.rename({"L_ret": "retained"}), tmp_path / "t.csv", "csv")
    with pytest.raises(UserError, match="has no column L_ret"):
        read_table(tmp_path / "t.csv")


def test_rows_that_stand_twice_count_once(table, tmp_path):
    write_table(pl.concat([table, table.head(3), table.tail(1)]), tmp_path / "t.parquet", "parquet")
    assert read_table(tmp_path / "t.parquet").equals(table)
    write_table(table, tmp_path / "again.parquet", "parquet")
    assert study_verdicts(read_tables([tmp_path / "t.parquet", tmp_path / "again.parquet"])) == study_verdicts(table)


def test_a_chain_with_two_losses_is_refused(table, tmp_path):
    better = table.filter(pl.col("seed") == 0).with_columns(pl.col("L_ret") - 1)
    write_table(pl.concat([table, better]), tmp_path / "t.parquet", "parquet")
    with pytest.raises(UserError, match=r"rows 1, 28 are one chain \(seed 0, run finetune-.*\) with other losses"):
        read_table(tmp_path / "t.parquet")


def test_a_seed_that_is_a_copy_of_another_is_refused(table, tmp_path):
    copy = table.filter(pl.col("seed") == 0).with_columns(seed=pl.lit(7, pl.Int64))
    write_table(pl.concat([table, copy]), tmp_path / "t.csv", "csv")
    with pytest.raises(UserError, match=r"run finetune-\S+ stands under seeds 0 and 7; a run has one seed"):
        read_table(tmp_path / "t.csv")
    write_table(copy, tmp_path / "copy.csv", "csv")
    write_table(table, tmp_path / "own.csv", "csv")
    with pytest.raises(UserError, match=r"stands under seeds 0 and 7"):
        read_tables([tmp_path / "own.csv", tmp_path / "copy.csv"])


def test_a_run_that_nested_seeds_share_is_no_copy(table, tmp_path):
    parts = [
        table.with_columns(finetune_seed=pl.lit(seed, pl.Int64), finetune_id=pl.col("finetune_id") + f"-{seed}")
        for seed in (0, 1)
    ]
    place = table.columns.index("L_im")
    order = [*table.columns[:place], "finetune_seed", *table.columns[place:]]
    write_table(pl.concat(parts).select(order), tmp_path / "t.parquet", "parquet")
    assert read_table(tmp_path / "t.parquet").height == 2 * table.height


def test_a_table_without_a_chain_is_refused(table, tmp_path):
    write_table(table.clear(), tmp_path / "t.csv", "csv")
    with pytest.raises(UserError, match=r"t\.csv: a table without a single chain; expected a results table"):
        read_table(tmp_path / "t.csv")
