"""Looks at a claim while seeds are added: judged by a sequential design, recorded, and replayed on a finished table.

What runs a study until a claim is settled needs three calls, and keeps nothing but the record::

    design = sequential_design()
    looks = read_looks(folder)                                # empty at first
    while (count := seeds_wanted_by(design, looks)) is not None:
        ...                                                   # run the study with `count` seeds, read its table
        looks += look(claim, table, design, looks)
        write_looks(folder, looks)

The record is ``looks.json`` in the folder of the study run. A table that was looked at without one is not corrected for
it, and the page says so.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path

import polars as pl
from pydantic import ConfigDict, NonNegativeInt, TypeAdapter, ValidationError

from indelible.claims.evidence import Evidence
from indelible.claims.verdicts import Claim, LevelOf
from indelible.claims.wording import effect_text
from indelible.errors import UserError
from indelible.files import write_json
from indelible.results.labels import plural
from indelible.statistics.inference import Inference, holm_levels
from indelible.statistics.sequential import (
    FUTILE,
    FUTILE_BELOW,
    MAX_SEEDS,
    OPEN,
    Design,
    decide,
    seeds_wanted,
    sequential_design,
)

RECORD = "looks.json"
MAX_LOOKS, MIN_LEVEL = 100, 1e-9  # of a design that is read


@dataclass(frozen=True)
class Look:
    """What one look said of one scope of a claim."""

    claim: str
    scope: str
    number: NonNegativeInt  # of the look, from 0
    num_seeds: int
    planned: tuple[int, ...]  # seeds at all looks of the design, rising from 2 or more
    level: float  # of the design, two-sided, all looks and scopes together
    nominal: float  # what p was compared with
    effect: float | None  # nats per token, of the comparison that decides
    low: float | None  # interval at the nominal level: the intervals of all looks together cover with 1 - level
    high: float | None
    p_support: float | None
    p_against: float | None
    decision: str  # supported, contradicted, futile or open


_LOOKS = TypeAdapter(list[Look], config=ConfigDict(allow_inf_nan=False))


def look(
    claim: Claim, table: pl.DataFrame, design: Design, past: Sequence[Look] = (), inference: Inference | None = None
) -> list[Look]:
    """Judges a claim at the look that follows ``past``: one record for each scope that is not closed yet.

    The scopes share the design's level (Holm at each look; a scope that was settled leaves its share to the others).

    Args:
        claim: e.g. `indelible.claims.paper_claims.claim_named`.
        table: results table with the seeds of this look.
        design: the plan.
        past: all records so far.
        inference: margin of "flat", worst loss; its level is not used, the design has its own.
    """
    number = num_looks(past)
    closed = {one.scope for one in past if one.decision != OPEN}
    still = [one for one in claim.rule(table, inference or Inference()) if one.is_tested and one.scope not in closed]
    p_values = {one.key: one.p for one in still if one.p is not None}
    levels = holm_levels(p_values, level_of(design, number))
    return [_record(claim, one, design, number, levels.get(one.key, design.nominal[number])) for one in still]


def num_looks(past: Sequence[Look]) -> int:
    """Looks done so far."""
    return 1 + max((one.number for one in past), default=-1)


def seeds_wanted_by(design: Design, past: Sequence[Look]) -> int | None:
    """Seeds that the next look needs; None when every scope is closed or the last look is done."""
    last = [one for one in past if one.number == num_looks(past) - 1]
    if past and all(one.decision != OPEN for one in last):
        return None
    return seeds_wanted(design, num_looks(past))


def level_of(design: Design, number: int) -> LevelOf:
    """The nominal level at a look of one of m hypotheses: that of the design for level / m."""
    return lambda members: sequential_design(design.looks, design.level / members).nominal[number]


def replay(
    claim: Claim, table: pl.DataFrame, design: Design, order: Sequence[int], inference: Inference | None = None
) -> list[Look]:
    """The looks that would have been had at a finished table whose seeds had come in ``order``.

    Stops where the seeds end. The seeds that it would have bought: ``num_seeds`` of the last record.
    """
    past: list[Look] = []
    while (count := seeds_wanted_by(design, past)) is not None and count <= len(order):
        found = look(claim, table.filter(pl.col("seed").is_in(order[:count])), design, past, inference)
        if not found:
            break
        past += found
    return past


def write_looks(folder: Path, looks: Sequence[Look]) -> None:
    """Writes the record of a study run."""
    write_json(folder / RECORD, [asdict(one) for one in looks])


def read_looks(folder: Path) -> list[Look]:
    """The record of a study run; empty when it was not looked at by a design.

    Raises:
        UserError: the file is not such a record.
    """
    path = folder / RECORD
    if not path.exists():
        return []
    try:
        looks = _LOOKS.validate_json(path.read_bytes())
    except ValidationError as error:
        first = error.errors()[0]
        raise _not_looks(path, f"{'.'.join(map(str, first['loc']))}: {first['msg']}") from None
    for one in looks:
        rises = all(before < after for before, after in pairwise((1, *one.planned)))
        if not (rises and len(one.planned) <= MAX_LOOKS and one.planned[-1] <= MAX_SEEDS):
            raise _not_looks(path, f"planned is {one.planned!r:.60}; seeds rise from 2 on, up to {MAX_SEEDS:,}")
        if one.number >= len(one.planned) or not MIN_LEVEL <= one.level < 1:
            raise _not_looks(path, f"look {one.number} of {len(one.planned)} at level {one.level:g}")
    return looks


def _not_looks(path: Path, why: str) -> UserError:
    return UserError(
        f"{path}: not a record of looks ({why}); it is written by `indelible run`. Put it back as it was: "
        "without it the looks that were taken would not be accounted for."
    )


def planned_levels(looks: Sequence[Look]) -> dict[str, LevelOf]:
    """For `indelible.claims.verdicts.judge`: by claim, the nominal levels of its last look."""
    return {one.claim: level_of(sequential_design(one.planned, one.level), one.number) for one in looks}


def look_text(one: Look) -> str:
    """One look at one scope, in one line: the effect with the interval at its nominal level, and what follows."""
    further = [count for count in one.planned if count > one.planned[one.number]]
    follows = {
        OPEN: f"the next look is at {further[0]} seeds" if further else "not settled, and this was the last look",
        FUTILE: f"up to {one.planned[-1]} seeds would settle it with a probability below {FUTILE_BELOW:g}",
    }
    effect = effect_text(one.effect, one.low, one.high, None if one.low is None else 1 - one.nominal)
    return (
        f"{one.claim}, look {one.number + 1} of {len(one.planned)}, {plural(one.num_seeds, 'seed')}, {one.scope}: "
        f"{effect or 'no seed with both arms'}, {one.decision}"
        + (f" ({follows[one.decision]})" if one.decision in follows else "")
    )


def looks_text(looks: Sequence[Look]) -> str:
    """One sentence for the page."""
    if not looks:
        return (
            "No looks were planned: the risk holds if the number of seeds was fixed before the first verdict was read."
        )
    said = []
    for claim in dict.fromkeys(one.claim for one in looks):
        own = [one for one in looks if one.claim == claim]
        done, last = num_looks(own), own[-1]
        said.append(
            f"{claim} was looked at {plural(done, 'time')} (planned at {', '.join(map(str, last.planned))} seeds, a "
            f"risk of {last.level:g} in all): {', '.join(dict.fromkeys(one.decision for one in _latest(own)))} at "
            f"{plural(last.num_seeds, 'seed')}"
        )
    return "; ".join(said) + ". Of the other claims no looks were planned."


def _latest(looks: Sequence[Look]) -> list[Look]:
    return list({one.scope: one for one in looks}.values())


def _record(claim: Claim, evidence: Evidence, design: Design, number: int, nominal: float) -> Look:
    support, against = evidence.support, evidence.against
    decision = _decision(design, number, nominal, evidence)
    part = evidence.shown(decision)
    result = part.result.at(nominal / part.num_looks)
    return Look(
        claim=claim.name, scope=evidence.scope, number=number, num_seeds=result.n, planned=design.looks,
        level=design.level, nominal=nominal, effect=result.effect, low=result.low, high=result.high,
        p_support=support.p, p_against=against.p, decision=decision,
    )  # fmt: skip


def _decision(design: Design, number: int, nominal: float, evidence: Evidence) -> str:
    """As `decide`, at the nominal level that Holm leaves; futility is the whole design's, for it costs no risk."""
    verdict = evidence.verdict(nominal)
    if verdict in ("supported", "contradicted"):
        return verdict
    found = decide(design, number, evidence.support.p, evidence.against.p)
    return found if found not in ("supported", "contradicted") else OPEN
