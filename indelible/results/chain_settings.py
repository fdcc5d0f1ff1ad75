"""The settings of a plan's chains as typed columns."""

import json
from collections.abc import Sequence
from typing import Any

import polars as pl

from indelible.errors import UserError
from indelible.records import PlannedChain
from indelible.results.columns import SCHEMA, SETTINGS


def settings_frame(chains: Sequence[PlannedChain]) -> pl.DataFrame:
    """One row a chain: study, the known settings and ``seed`` in the schema's order, then those of this plan alone."""
    extra = extra_settings(chains)
    known = [name for name in SCHEMA if name in (*SETTINGS, "study", "seed")]
    columns = {name: [chain.columns.get(name) for chain in chains] for name in (*known, *extra)}
    series = [_known_series(name, columns[name]) for name in known]
    return pl.DataFrame([*series, *(typed_series(name, columns[name]) for name in extra)])


def _known_series(name: str, values: list[Any]) -> pl.Series:
    """A column of the schema.

    Raises:
        UserError: a value is not of its type; as null it would be pooled with others.
    """
    try:
        series = pl.Series(name, _plain(values, name), SCHEMA[name], strict=False)
    except (pl.exceptions.PolarsError, TypeError, OverflowError):
        series = pl.Series(name, [None] * len(values), SCHEMA[name])
    for number, (value, read) in enumerate(zip(values, series, strict=True)):
        if value is not None and (read is None or isinstance(value, bool) is not isinstance(read, bool)):
            raise UserError(
                f"plan.json: chain {number}: columns.{name} is {value!r:.60}, and {SCHEMA[name]} is expected; the file "
                "was edited. Put back what it was."
            )
    return series


def extra_settings(chains: Sequence[PlannedChain]) -> list[str]:
    """The settings that the schema does not know, in the order of the plan."""
    names = dict.fromkeys(name for chain in chains for name in chain.columns)
    return [name for name in names if name not in SCHEMA]


def typed_series(name: str, values: Sequence[Any]) -> pl.Series:
    """A column whose type its values show: Boolean, Int64, Float64, else text."""
    present = [value for value in values if value is not None]
    if all(isinstance(value, bool) for value in present):
        return pl.Series(name, values, pl.Boolean)
    if all(isinstance(value, int) and not isinstance(value, bool) for value in present):
        return pl.Series(name, values, pl.Int64)
    if all(isinstance(value, int | float) and not isinstance(value, bool) for value in present):
        return pl.Series(name, values, pl.Float64, strict=False)
    return pl.Series(name, [None if value is None else _text(value) for value in values], pl.String)


def _plain(values: list[Any], name: str) -> list[Any]:
    """Python values that polars can hold in the column's type; a value of another kind becomes text."""
    if SCHEMA[name] is pl.String:
        return [value if value is None or isinstance(value, str) else _text(value) for value in values]
    return values


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, sort_keys=True)
