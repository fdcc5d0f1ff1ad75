"""No silent pooling: chains that no column tells apart are refused, never averaged as if they were seeds."""

from collections.abc import Mapping, Sequence
from typing import Any

import polars as pl

from indelible.errors import UserError
from indelible.results.columns import id_columns, setting_columns, stages_of

PLACE = "_place"  # column: the table that a row comes from, while tables are being joined
MAX_SHOWN = 6  # differences in one message


def refuse_pooling(table: pl.DataFrame, place: str, specs: Mapping[str, Mapping[str, Any]] | None = None) -> None:
    """Refuses chains with equal settings and seeds and other run ids.

    Something that no column shows is different between them; every comparison would take them for one setting.

    Args:
        table: results table; with a column `PLACE`, rows say by it where they come from.
        place: where the table comes from.
        specs: canonical specs by run id, as far as they are known; the message says in what they differ.

    Raises:
        UserError: there are such chains, or one run stands under two seeds.
    """
    ids = id_columns(table)
    if table.height == 0 or not ids:
        return
    _refuse_shared_seeds(table, [name for name in reversed(ids) if name != "start"], place)
    keys = [*setting_columns(table), "seed"]
    groups = table.group_by(keys, maintain_order=True).agg(pl.struct(ids).n_unique().alias("_chains"))
    several = groups.filter(pl.col("_chains") > 1).head(1)
    if several.height:
        found = table.join(several, on=keys, how="inner", nulls_equal=True, maintain_order="left")
        rows = found.select(*ids, pl.col(PLACE) if PLACE in table.columns else pl.lit(place).alias(PLACE)).to_dicts()
        other = next(row for row in rows if any(row[name] != rows[0][name] for name in ids))
        raise UserError(_message(rows[0], other, stages_of(table), specs or {}))


def _refuse_shared_seeds(table: pl.DataFrame, ids: list[str], place: str) -> None:
    """A run has one seed: under two of them it is a copied row, and would count as another seed."""
    seeds = ["seed", *(name for name in setting_columns(table) if name.endswith("_seed"))]
    last = pl.coalesce(ids).alias("_run") if ids else pl.lit(None, pl.String).alias("_run")
    runs = table.select(last, *seeds).drop_nulls("_run").unique(maintain_order=True)
    shared = runs.filter(pl.col("_run").is_duplicated())
    if shared.height:
        own = shared.filter(pl.col("_run") == shared["_run"][0]).drop("_run").rows()
        found = " and ".join("/".join(map(str, row)) for row in own[:2])
        raise UserError(
            f"{place}: run {shared['_run'][0]} stands under seeds {found}; a run has one seed, and a copied row "
            "would count as another. Remove the rows of one of them."
        )


def _message(
    first: Mapping[str, Any], other: Mapping[str, Any], stages: Sequence[str], specs: Mapping[str, Mapping[str, Any]]
) -> str:
    """Which two chains cannot be told apart, in what they differ, and what to do."""
    # the first stage whose run differs: later ones differ because of it
    stage = next((one for one in stages if first[f"{one}_id"] != other[f"{one}_id"]), stages[-1])
    ids = [row[f"{stage}_id"] or f"none of {stage}" for row in (first, other)]
    differing = spec_differences(specs.get(ids[0]), specs.get(ids[1]))
    why = (
        f"Their specs differ in {'; '.join(differing)}"
        if differing
        else "`indelible diff` shows in what two stage runs differ"
    )
    if first[PLACE] == other[PLACE]:
        sides = f"{first[PLACE]}: two chains have the same settings and seed, and are other runs: {ids[0]} and {ids[1]}"
        fix = "Name the difference in the study file: give each an arm of its own"
    else:
        sides = (
            f"{other[PLACE]}: the chain of {ids[1]} has the settings and the seed of {ids[0]} in {first[PLACE]}, "
            "and is another run"
        )
        fix = "Joined tables must be parts of one study; read these by themselves"
    return f"{sides}. {why}. They would be averaged as if they were one setting. {fix}."


def spec_differences(first: Mapping[str, Any] | None, other: Mapping[str, Any] | None) -> list[str]:
    """In what two canonical specs differ: ``training.weight_decay: 0 and 0.1``; empty where one is not known."""
    if first is None or other is None:
        return []
    sides = [leaves(first), leaves(other)]
    names = [name for name in dict.fromkeys((*sides[0], *sides[1])) if name != "parent"]
    differing = [name for name in names if sides[0].get(name) != sides[1].get(name)]
    texts = [f"{name}: {_text(sides[0].get(name))} and {_text(sides[1].get(name))}" for name in differing[:MAX_SHOWN]]
    return texts + ([f"{len(differing) - MAX_SHOWN} more"] if len(differing) > MAX_SHOWN else [])


def leaves(value: Any, prefix: str = "") -> dict[str, Any]:
    """Nested mappings as one with dotted keys; class tags are left out."""
    if not isinstance(value, Mapping):
        return {prefix: value}
    found: dict[str, Any] = {}
    for key, child in value.items():
        if key != "class":
            found |= leaves(child, f"{prefix}.{key}" if prefix else str(key))
    return found


def _text(value: Any) -> str:
    return "none" if value is None else str(value)
