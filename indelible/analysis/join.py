"""One results table from several: parts of one study that were run in different folders or on different machines."""

from collections.abc import Sequence
from pathlib import Path

import polars as pl

from indelible.analysis.columns import LOSSES, SCHEMA, STATUSES, setting_columns
from indelible.analysis.table import read_table
from indelible.errors import UserError

# What a stage run of a chain decides. A run id names everything that goes into a run: equal ids have equal losses.
_LOSSES_OF = {"posttrain_id": ("L_im", "L_pre_post"), "finetune_id": ("L_ret", "L_ft", "L_pre")}
_IDS = ("pretrain_id", "posttrain_id", "finetune_id")
_PLACE = "_place"  # the table a row comes from, until the tables are one


def read_tables(places: Sequence[Path]) -> pl.DataFrame:
    """The results table of one place, or of several joined (see `join_tables`).

    Raises:
        UserError: a place is neither a run folder nor a table, or the places contradict each other.
    """
    return join_tables([(str(place), read_table(place)) for place in places])


def join_tables(named: Sequence[tuple[str, pl.DataFrame]]) -> pl.DataFrame:
    """Joins results tables; a chain that stands in several of them (same settings, same seed) is kept once.

    Of a chain's rows the one that got farthest is kept (``done`` before ``diverged`` before ``failed`` before
    ``incomplete``), at equal status the first. A setting or token count that a table lacks is null in its rows.

    Args:
        named: (name for error messages, table), at least one.

    Raises:
        UserError: the same chain has other run ids in another table, or the same run other losses.
    """
    if len(named) == 1:
        return named[0][1]
    tables = [table.with_columns(pl.lit(name).alias(_PLACE)) for name, table in named]
    joined = pl.concat(tables, how="diagonal_relaxed").select(*_columns(tables), _PLACE)
    chain = [*setting_columns(joined), "seed"]
    _check_ids(joined, chain)
    _check_losses(joined)
    rank = pl.col("status").replace_strict(STATUSES, list(range(len(STATUSES))), default=len(STATUSES))
    order = joined.with_columns(rank.alias("_rank")).with_row_index("_row").sort("_rank", "_row")
    return order.unique([*chain, *_IDS], keep="first", maintain_order=True).sort("_row").drop("_rank", "_row", _PLACE)


def _columns(tables: list[pl.DataFrame]) -> list[str]:
    """Known columns in the schema's order, extra settings before the losses, realised token counts last."""
    known = list(SCHEMA)
    first_loss = known.index(LOSSES[0])
    settings = dict.fromkeys(name for table in tables for name in setting_columns(table) if name not in SCHEMA)
    others = dict.fromkeys(
        name for table in tables for name in table.columns if name not in (*SCHEMA, *settings, _PLACE)
    )
    return [*known[:first_loss], *settings, *known[first_loss:], *others]


def _check_ids(joined: pl.DataFrame, chain: list[str]) -> None:
    """Equal settings with unequal run ids: something that no column shows is different, and pooling would hide it."""
    first: dict[tuple[object, ...], tuple[str, list[str]]] = {}  # chain -> its first table, its run ids there
    for row in joined.select(*chain, *_IDS, _PLACE).iter_rows(named=True):
        ids, place = " ".join(row[name] or "-" for name in _IDS), row[_PLACE]
        known_place, known = first.setdefault(tuple(row[name] for name in chain), (place, []))
        if place == known_place:
            known.append(ids)
        elif ids not in known:
            raise UserError(
                f"{place}: the chain of {row['finetune_id']} has the settings of {known[0].split()[-1]} in "
                f"{known_place}, but other run ids; joined tables must be parts of one study. "
                "`indelible diff` shows in what two stage runs differ."
            )


def _check_losses(joined: pl.DataFrame) -> None:
    """A run that two tables have must have the same bits in both."""
    for name, losses in _LOSSES_OF.items():
        for loss in losses:
            present = joined.filter(pl.col(name).is_not_null() & pl.col(loss).is_not_null())
            differing = present.group_by(name, maintain_order=True).agg(pl.col(loss).n_unique().alias("n"))
            for run_id in differing.filter(pl.col("n") > 1)[name][:1]:
                one, other = _two_that_differ(present.filter(pl.col(name) == run_id), loss)
                raise UserError(
                    f"{other[_PLACE]}: {run_id} has {loss} {other[loss]!r}, and {one[loss]!r} in {one[_PLACE]}; a run "
                    "has the same losses wherever it was trained on the same kind of processor with the same versions. "
                    "Leave one of the two tables out, or train its part again."
                )


def _two_that_differ(rows: pl.DataFrame, column: str) -> tuple[dict[str, object], dict[str, object]]:
    first = rows.row(0, named=True)
    return first, rows.filter(pl.col(column) != first[column]).row(0, named=True)
