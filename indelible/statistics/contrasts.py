"""What one setting does: each of its values against a chosen one, at equal other settings, paired over seeds.

For questions that the paper does not ask and `claims` therefore does not judge: placement, repeats, overlap, and every
switch that a study sweeps.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import polars as pl

from indelible.errors import UserError
from indelible.objectives.preference import MEASURES
from indelible.results.columns import setting_columns, varying
from indelible.results.labels import exposure_columns, value_text
from indelible.results.summary import shown_losses
from indelible.statistics.compare import DEFAULT, Comparison, compare_at_equal_settings
from indelible.statistics.divergence import with_worst
from indelible.statistics.inference import Inference
from indelible.study.selection import column_named

_OF_PAIRS = tuple(f"_{measure}" for measure in MEASURES)


@dataclass(frozen=True)
class Contrast:
    """One value of a setting against another."""

    within: dict[str, Any]  # the settings that were fixed, one row group at a time
    value: Any
    against: Any
    also: tuple[str, ...]  # other settings that differ between the two: not held equal, for they cannot be
    losses: dict[str, Comparison]  # by loss; value minus against, nats per token; of accuracies, shares


def contrasts(
    table: pl.DataFrame,
    by: str,
    against: str | None = None,
    within: Sequence[str] = (),
    inference: Inference = DEFAULT,
) -> list[Contrast]:
    """Compares every value of ``by`` with one of them.

    Args:
        table: results table (`indelible.results.table`); finished chains count, and diverged ones as the worst loss.
        by: a setting's column.
        against: the value to compare with, as text; None: the smallest number or the first name in the table.
        within: settings' columns; each combination of their values is compared by itself.
        inference: the level of each comparison by itself, and the worst loss.

    Raises:
        UserError: a column is no setting, ``by`` has one value, or ``against`` is none of its values.
    """
    by, *within = (column_named(name, table.columns) for name in (by, *within))
    for name in (by, *within):
        _check_setting(table, name)
    if table.height == 0:
        raise UserError(f"{by}: the table has no chains, and nothing to compare.")
    found = []
    chosen = None if against is None else _chosen(_values(table, by), by, against, "--against")
    ordered = table.sort(list(within), nulls_last=False, maintain_order=True) if within else table
    groups = ordered.group_by(list(within), maintain_order=True) if within else [((), table)]
    for key, rows in groups:
        values = _values(rows, by)
        first = next(iter(values), None) if against is None else chosen
        for value in values:
            if first in values and value != first:
                found.append(_contrast(rows, dict(zip(within, key, strict=True)), by, value, first, inference))
    if not found:
        others = ", ".join(varying(table, setting_columns(table))) or "none"
        raise UserError(
            f"{by}: {_texts(_values(table, by), by)} is all there is{' in each group' if within else ''}, "
            f"and nothing to compare; settings that vary: {others}."
        )
    return found


def where(table: pl.DataFrame, conditions: Sequence[str]) -> pl.DataFrame:
    """The rows with the chosen values of settings.

    Args:
        table: results table.
        conditions: ``SETTING=VALUE``; several of one setting are alternatives.

    Raises:
        UserError: a condition is no ``SETTING=VALUE``, or the table has no such setting or value.
    """
    chosen: dict[str, list[Any]] = {}
    for condition in conditions:
        name, equals, text = condition.partition("=")
        if not equals:
            raise UserError(f"--where {condition}: expected SETTING=VALUE, e.g. arm=fig2.")
        name = column_named(name, table.columns)
        _check_setting(table, name)
        chosen.setdefault(name, []).append(_chosen(_values(table, name), name, text, "--where"))
    for name, values in chosen.items():
        table = table.filter(pl.any_horizontal(pl.col(name).eq_missing(pl.lit(value)) for value in values))
    return table


def gains(table: pl.DataFrame, inference: Inference = DEFAULT) -> pl.DataFrame:
    """What exposure changes, as a table: each chain's losses minus those of the same seed and settings at lambda 0.

    `contrasts` of it says whether a setting changes what exposure buys. Unfinished chains do not count, diverged ones
    do as the worst loss, and those at lambda 0 have no row.

    Raises:
        UserError: no chain has a partner at lambda 0.
    """
    keys = [name for name in setting_columns(table) if name not in exposure_columns(table)] + ["seed"]
    # A change is filled once, here: it is no loss, and `contrasts` must not fill it again.
    losses = shown_losses(table)
    done = with_worst(table, losses, inference.worst_loss).with_columns(status=pl.lit("done"))
    bare = done.filter(pl.col("exposure_fraction") == 0).group_by(keys).agg(pl.col(losses).mean())
    exposed = done.filter(pl.col("exposure_fraction") > 0)
    joined = exposed.join(bare, on=keys, how="inner", nulls_equal=True, suffix="_at_0", maintain_order="left")
    if joined.height == 0:
        raise UserError("--gain: no finished chain with exposure has a partner at lambda 0 with the same settings.")
    changes = [(pl.col(loss) - pl.col(f"{loss}_at_0")).alias(loss) for loss in losses]
    return joined.with_columns(changes).select(table.columns)


def _contrast(
    rows: pl.DataFrame, within: dict[str, Any], by: str, value: Any, against: Any, inference: Inference
) -> Contrast:
    first, second = (pl.col(by).eq_missing(pl.lit(side)) for side in (against, value))
    parts = [rows.filter(first), rows.filter(second)]
    also = []
    for name in setting_columns(rows):
        seen = [part[name].unique().to_list() for part in parts]
        # One of the two may lack a part altogether: the weight of a guard that is not there.
        is_one_sided = [None] in seen and not (None in seen[0] and None in seen[1])
        if name != by and seen[0] != seen[1] and (is_one_sided or all(len(one) == 1 for one in seen)):
            also.append(name)
    treatment = [by, *also, *within]
    names = [name for name in shown_losses(rows) if not name.endswith(_OF_PAIRS) or _has_both(parts, name)]
    losses = {loss: compare_at_equal_settings(rows, first, second, loss, treatment, inference) for loss in names}
    return Contrast(within, value, against, tuple(also), losses)


def _has_both(parts: Sequence[pl.DataFrame], loss: str) -> bool:
    """Whether both sides have a loss that only some chains have: of pairs behind a preference stage."""
    return all(part[loss].drop_nulls().len() for part in parts)


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


def _chosen(values: list[Any], by: str, text: str, option: str) -> Any:
    for value in values:
        if text in (value_text(by, value), str(value)):
            return value
    raise UserError(f"{option} {text}: {by} has {_texts(values, by)}.")
