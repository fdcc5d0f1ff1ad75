"""One results table from several: parts of one study that were run in different folders or on different machines."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import polars as pl

from indelible.errors import UserError
from indelible.results.columns import (
    STATUSES,
    column_order,
    derived_settings,
    id_columns,
    loss_columns,
    setting_columns,
    stages_of,
    token_columns,
    view_columns,
)
from indelible.results.pooling import PLACE, refuse_pooling
from indelible.results.run_folder import read_study_run
from indelible.results.table import read_table, results_table
from indelible.study.paper_form import SHORT_STAGES

# The stage run that decides a loss. A run id names everything that goes into a run: equal ids have equal losses.
_DECIDED_BY = {"L_im": "posttrain_id", "L_pre_post": "posttrain_id"} | dict.fromkeys(
    ("L_ret", "L_ft", "L_pre"), "finetune_id"
)


def read_tables(places: Sequence[Path]) -> pl.DataFrame:
    """The results table of one place, or of several joined (see `join_tables`).

    Raises:
        UserError: a place is neither a run folder nor a table, or the places contradict each other.
    """
    named: list[tuple[str, pl.DataFrame]] = []
    specs: dict[str, dict[str, Any]] = {}
    for place in dict.fromkeys(places):  # a place that is named twice is one
        if place.is_file():
            named.append((str(place), read_table(place)))
        else:
            run = read_study_run(place)
            specs |= run.specs
            named.append((str(place), results_table(run)))
    return join_tables(named, specs)


def join_tables(
    named: Sequence[tuple[str, pl.DataFrame]], specs: Mapping[str, Mapping[str, Any]] | None = None
) -> pl.DataFrame:
    """Joins results tables; a chain that stands in several of them is kept once.

    Rows of two tables are one chain if their run ids are equal, and the settings that both tables have. The row that
    got farthest is kept (``done`` before ``diverged`` before ``failed`` before ``incomplete``), at equal status the
    first, and takes from the other what its own table lacks. A setting that no table of a chain has is null.

    Args:
        named: (name for error messages, table), at least one.
        specs: canonical specs by run id, as far as they are known.

    Raises:
        UserError: chains of equal settings and seed have other run ids, or the same run has other losses.
    """
    if len(named) == 1:
        return named[0][1]
    order = _columns([table for _, table in named])
    placed = [table.with_columns(pl.lit(name).alias(PLACE)) for name, table in named]
    joined = pl.concat(placed, how="diagonal_relaxed").select(*order, PLACE)
    _check_losses(joined)
    merged = _merged(joined, {name: frozenset(table.columns) for name, table in named})
    refuse_pooling(merged, named[0][0], specs)
    return merged.drop(PLACE)


def _columns(tables: Sequence[pl.DataFrame]) -> list[str]:
    """Every column of some table, in the order of one table."""
    parts = [
        dict.fromkeys(name for table in tables for name in of(table))
        for of in (derived_settings, view_columns, stages_of, token_columns)
    ]
    settings, views, stages, tokens = parts
    order = column_order(settings, views, (stage for stage in stages if stage not in SHORT_STAGES), tokens)
    present = {name for table in tables for name in table.columns}
    return [name for name in order if name in present]


def _merged(joined: pl.DataFrame, columns: Mapping[str, frozenset[str]]) -> pl.DataFrame:
    """Each chain once. Chains that stand in one table alone stay as they are, however often it has them."""
    ids, settings = id_columns(joined), [*setting_columns(joined), "seed"]
    numbered = joined.with_row_index("_row")
    shared = numbered.filter(pl.col(PLACE).n_unique().over(ids) > 1)
    kept = numbered.filter(pl.col(PLACE).n_unique().over(ids) == 1)
    rows: list[dict[str, Any]] = []
    for _, group in shared.group_by(ids, maintain_order=True):
        rows += _one_chain_each(group.to_dicts(), settings, columns)
    parts = [kept, pl.DataFrame(rows, numbered.schema)] if rows else [kept]
    return pl.concat(parts).sort("_row").drop("_row")


def _one_chain_each(
    rows: Sequence[dict[str, Any]], settings: Sequence[str], columns: Mapping[str, frozenset[str]]
) -> list[dict[str, Any]]:
    """Rows of equal run ids: those of two tables that agree in the settings which both have become one."""
    chains: list[dict[str, Any]] = []
    known: list[set[str]] = []  # the columns of the tables that a chain was found in
    places: list[set[str]] = []
    for row in rows:
        own = columns[row[PLACE]]
        for number, chain in enumerate(chains):
            common = known[number] & own
            if row[PLACE] not in places[number] and all(
                row[name] == chain[name] for name in settings if name in common
            ):
                chains[number] = _farthest(chain, row)
                known[number] |= own
                places[number].add(row[PLACE])
                break
        else:
            chains.append(row)
            known.append(set(own))
            places.append({row[PLACE]})
    return chains


def _farthest(first: dict[str, Any], second: dict[str, Any]) -> dict[str, Any]:
    """The row of a chain that got farther, with the other's values where it has none; the place of the first."""
    rank = {status: number for number, status in enumerate(STATUSES)}
    is_second = rank.get(second["status"], len(rank)) < rank.get(first["status"], len(rank))
    best, other = (second, first) if is_second else (first, second)
    row = {name: other[name] if value is None else value for name, value in best.items()}
    return row | {"_row": first["_row"]}


def _check_losses(joined: pl.DataFrame) -> None:
    """A run that two tables have must have the same bits in both."""
    ids = id_columns(joined)
    for loss in loss_columns(joined):
        present, key = joined.filter(pl.col(loss).is_not_null()), _DECIDED_BY.get(loss)
        if key is None or not _decides(present, key, loss):
            _check_loss(present, ids, loss)
        else:
            _check_loss(present.filter(pl.col(key).is_not_null()), [key], loss)
            _check_loss(present.filter(pl.col(key).is_null()), ids, loss)


def _check_loss(rows: pl.DataFrame, keys: list[str], loss: str) -> None:
    differing = rows.filter(pl.col(loss).n_unique().over(keys) > 1)
    if differing.height == 0:
        return
    one = differing.row(0, named=True)
    same = pl.all_horizontal(pl.col(name).eq_missing(pl.lit(one[name])) for name in keys)
    other = differing.filter(same, pl.col(loss) != one[loss]).row(0, named=True)
    run_id = next(one[name] for name in reversed(keys) if one[name] is not None)
    raise UserError(
        f"{other[PLACE]}: {run_id} has {loss} {other[loss]!r}, and {one[loss]!r} in {one[PLACE]}; a run has the same "
        "losses wherever it was trained on the same kind of processor with the same versions, and evaluated on the "
        "same windows. Leave one of the two tables out, or make its part again."
    )


def _decides(present: pl.DataFrame, key: str, loss: str) -> bool:
    """Whether a stage run has one value of a loss within every table: a study may name its losses anew."""
    by_run = present.filter(pl.col(key).is_not_null()).group_by(PLACE, key).agg(pl.col(loss).n_unique().alias("n"))
    return bool((by_run["n"] <= 1).all())
