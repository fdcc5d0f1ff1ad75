"""What one setting does: each of its values against a chosen one, at equal other settings, paired over seeds.

For questions that the paper does not ask and `claims` therefore does not judge: placement, repeats, overlap, and every
switch that a study sweeps.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import polars as pl

from indelible.analysis.arms import value_text
from indelible.analysis.columns import setting_columns, varying
from indelible.analysis.compare import Comparison, compare_at_equal_settings
from indelible.errors import UserError

LOSSES = ("L_im", "L_ret", "L_ft", "L_pre")


@dataclass(frozen=True)
class Contrast:
    """One value of a setting against another."""

    within: dict[str, Any]  # the settings that were fixed, one row group at a time
    value: Any
    against: Any
    also: tuple[str, ...]  # other settings that differ between the two: not held equal, for they cannot be
    losses: dict[str, Comparison]  # by loss; value minus against, nats per token


def contrasts(table: pl.DataFrame, by: str, against: str | None = None, within: Sequence[str] = ()) -> list[Contrast]:
    """Compares every value of ``by`` with one of them.

    Args:
        table: results table (`indelible.analysis.table`); only finished chains count.
        by: a setting's column.
        against: the value to compare with, as text; None: the smallest number or the first name in the table.
        within: settings' columns; each combination of their values is compared by itself.

    Raises:
        UserError: a column is no setting, ``by`` has one value, or ``against`` is none of its values.
    """
    for name in (by, *within):
        _check_setting(table, name)
    found = []
    ordered = table.sort(list(within), nulls_last=False, maintain_order=True) if within else table
    groups = ordered.group_by(list(within), maintain_order=True) if within else [((), table)]
    for key, rows in groups:
        values = _values(rows, by)
        first = _chosen(values, by, against)
        if first not in values:
            continue
        for value in values:
            if value != first:
                found.append(_contrast(rows, dict(zip(within, key, strict=True)), by, value, first))
    if not found:
        others = ", ".join(varying(table, setting_columns(table))) or "none"
        raise UserError(
            f"{by}: {_texts(_values(table, by), by)} is all there is{' in each group' if within else ''}, "
            f"and nothing to compare; settings that vary: {others}."
        )
    return found


def _contrast(rows: pl.DataFrame, within: dict[str, Any], by: str, value: Any, against: Any) -> Contrast:
    sides = [pl.col(by).eq_missing(pl.lit(side)) for side in (against, value)]
    also = []
    for name in setting_columns(rows):
        seen = [rows.filter(side)[name].unique().to_list() for side in sides]
        if name != by and all(len(one) == 1 for one in seen) and seen[0] != seen[1]:
            also.append(name)
    losses = {loss: compare_at_equal_settings(rows, sides[0], sides[1], loss, [by, *also, *within]) for loss in LOSSES}
    return Contrast(within, value, against, tuple(also), losses)


def _check_setting(table: pl.DataFrame, name: str) -> None:
    settings = setting_columns(table)
    if name not in settings:
        raise UserError(f"{name} is no setting of this table; those that vary: {', '.join(varying(table, settings))}.")


def _values(table: pl.DataFrame, by: str) -> list[Any]:
    """Numbers in rising order, names as they come."""
    values = table[by].unique(maintain_order=True).to_list()
    return values if table[by].dtype == pl.String else sorted(values, key=lambda value: (value is not None, value or 0))


def _texts(values: Sequence[Any], by: str) -> str:
    return ", ".join(value_text(by, value) for value in values)


def _chosen(values: list[Any], by: str, against: str | None) -> Any:
    if against is None:
        return values[0]
    for value in values:
        if against in (value_text(by, value), str(value)):
            return value
    raise UserError(f"--against {against}: {by} has {_texts(values, by)}.")
