"""What a stored table must be before anything is judged by it: people edit tables, and programs join them."""

from collections.abc import Sequence
from pathlib import Path

import polars as pl

from indelible.errors import UserError
from indelible.results.columns import FORGOTTEN, STATUSES, has_sign, id_columns, loss_columns, setting_columns

_MADE_BY = "Make the table again with `indelible results`, or mend the row."


def checked_table(table: pl.DataFrame, path: Path) -> pl.DataFrame:
    """The table with every chain once, if its rows are such as `indelible results` writes.

    Raises:
        UserError: a row has no seed or no known status, a setting or a loss that is no number, or a chain stands in
            it twice with other contents.
    """
    numbered = table.with_row_index("_row", offset=1)
    _refuse(numbered.filter(pl.col("seed").is_null()), path, ["seed"], "has no seed; a chain is told apart by its seed")
    known = pl.col("status").fill_null("").is_in(STATUSES)
    _refuse(numbered.filter(~known), path, ["status"], f"is no status; they are {', '.join(STATUSES)}")
    losses = [*loss_columns(table), *(name for name in (FORGOTTEN,) if name in table.columns)]
    numbers = [name for name in (*setting_columns(table), *losses) if table.schema[name].is_float()]
    for name in numbers:
        is_bad = ~pl.col(name).is_finite()
        _refuse(
            numbered.filter(is_bad), path, [name], "is no number; a chain with such a loss is diverged, its loss empty"
        )
    for name in ("exposure_fraction", *(loss for loss in loss_columns(table) if not has_sign(loss))):
        _refuse(
            numbered.filter(pl.col(name) < 0), path, [name], "is below zero, which no loss and no part of a corpus is"
        )
    return _each_chain_once(table, numbered, path)


def _each_chain_once(table: pl.DataFrame, numbered: pl.DataFrame, path: Path) -> pl.DataFrame:
    keys = [*setting_columns(table), "seed", *id_columns(table)]
    once = table.unique(maintain_order=True, keep="first")
    twice = once.filter(pl.struct(keys).is_duplicated())
    if twice.height:
        first = numbered.join(twice.head(1), on=keys, how="semi", nulls_equal=True)
        rows = first["_row"].to_list()
        raise UserError(
            f"{path}: rows {', '.join(map(str, rows[:6]))} are one chain (seed {first['seed'][0]}, run "
            f"{_run(first, path)}) with other losses or other costs; a chain has one row. {_MADE_BY}"
        )
    return once


def _refuse(rows: pl.DataFrame, path: Path, names: Sequence[str], rule: str) -> None:
    if rows.height:
        found = ", ".join(f"{name} {rows[name][0]}" for name in names)
        raise UserError(f"{path}: row {rows['_row'][0]}: {found} {rule}. {_MADE_BY}")


def _run(rows: pl.DataFrame, path: Path) -> str:
    return next((str(rows[name][0]) for name in reversed(id_columns(rows)) if rows[name][0] is not None), str(path))
