"""Rows and runs as people name them: by settings, or by the beginning of an id."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from indelible.errors import UserError

if TYPE_CHECKING:
    import polars as pl


@dataclass(frozen=True)
class _Row:
    """A row of the results table as a chain."""

    number: int
    columns: dict[str, Any]


def chosen_rows(table: "pl.DataFrame", arms: Sequence[str]) -> "pl.DataFrame":
    """The rows of chains with these numbers, arm names or ``column=value``; all of them where none is named."""
    from indelible.study.selection import chosen_chains

    if not arms:
        return table
    rows = [_Row(number, columns) for number, columns in enumerate(table.iter_rows(named=True))]
    return table[[row.number for row in chosen_chains(rows, arms)]]


def planned_id(known: Sequence[str], text: str, where: str) -> str:
    """The one of the known ids that is, or begins with, ``text``.

    Raises:
        UserError: there is none, or several; says ``where`` it was read.
    """
    found = [text] if text in known else [name for name in known if name.startswith(text)]
    if len(found) != 1:
        what = f"{len(found)} stage runs begin so: {', '.join(found[:5])}" if found else "no stage run of this plan"
        raise UserError(f"{where} {text!r}: {what}; the ids stand in results(), columns <stage>_id.")
    return found[0]
