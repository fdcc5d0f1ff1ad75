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

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import Annotated

import polars as pl
from pydantic import ConfigDict, Field, NonNegativeInt, TypeAdapter, ValidationError

from indelible.claims.evidence import Evidence
from indelible.claims.verdicts import Claim, LevelOf
from indelible.claims.wording import effect_text
from indelible.errors import UserError
from indelible.files import write_json
from indelible.records import Amount, Signed
from indelible.results.labels import plural
from indelible.statistics.inference import Inference, holm_levels
from indelible.statistics.sequential import (
    FUTILE,
    FUTILE_BELOW,
    MAX_SEEDS,
    OPEN,
    Design,
    is_hopeless,
    seeds_wanted,
    sequential_design,
)
from indelible.statistics.sequential_power import Shape, detectable_in_looks

RECORD = "looks.json"
Probability = Annotated[float, Field(ge=0, le=1)]
MAX_LOOKS, MIN_LEVEL = 100, 1e-9  # of a design that is read


@dataclass(frozen=True)
class Look:
    """What one look said of one scope of a claim."""

    claim: str
    scope: str
    number: NonNegativeInt  # of the look, from 0
    num_seeds: Annotated[int, Field(ge=0, le=MAX_SEEDS)]
    planned: tuple[int, ...]  # seeds at all looks of the design, rising from 2 or more
    level: float  # of the design, two-sided, all looks and scopes together
    nominal: Probability  # what p was compared with
    effect: Signed | None  # nats per token, of the comparison that decides
    low: Signed | None  # interval at the nominal level: the intervals of all looks together cover with 1 - level
    high: Signed | None
    p_support: Probability | None
    p_against: Probability | None
    decision: str  # supported, contradicted, futile or open
    detectable: Amount | None = None  # nats: what all looks find at this spread
    is_margin: bool = False  # whether that is a margin which they show rather than an effect


_LOOKS = TypeAdapter(list[Look], config=ConfigDict(allow_inf_nan=False))


def look(
    claim: Claim, table: pl.DataFrame, design: Design, past: Sequence[Look] = (), inference: Inference | None = None
) -> list[Look]:
    """Judges a claim at the look that follows ``past``: one record for each scope that is not closed yet.

    The scopes share the design's level (Holm at each look). A scope that was supported or contradicted leaves its share
    to the others. One that was given up as futile keeps it: were it free, those that are left, which are those with
    the smallest p, would be judged as if nobody had chosen them.

    Args:
        claim: e.g. `indelible.claims.paper_claims.claim_named`.
        table: results table with the seeds of this look.
        design: the plan.
        past: all records so far.
        inference: margin of "flat", worst loss; its level is not used, the design has its own.
    """
    number = num_looks(past)
    inference = inference or Inference()
    closed = {one.scope: one.decision for one in past if one.decision != OPEN}
    found = [one for one in claim.rule(table, inference) if one.is_tested]
    given_up = {one.key: 1.0 for one in found if closed.get(one.scope) == FUTILE}
    still = [one for one in found if one.scope not in closed]
    p_values = given_up | {one.key: one.p for one in still if one.p is not None}
    levels = holm_levels(p_values, level_of(design, number))
    return [
        _record(claim, one, design, number, levels.get(one.key, design.nominal[number]),
                _detectable(one, design, max(1, len(p_values)), inference))
        for one in still
    ]  # fmt: skip


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
    what = "show a margin of" if one.is_margin else "detect"
    found = "" if one.detectable is None else f"; all looks together {what} {one.detectable:.4f}"
    follows = {
        OPEN: f"the next look is at {further[0]} seeds{found}"
        if further
        else "not settled, and this was the last look",
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


def _detectable(evidence: Evidence, design: Design, members: int, inference: Inference) -> float | None:
    """The planning number of one of ``members`` scopes that share the level; None without a spread."""
    part = evidence.support
    if part.result.sd is None:
        return None
    # A margin's correlation is that of squared differences.
    correlation = math.sqrt(part.correlation) if part.margin else part.correlation
    shape = Shape(part.num_parts, part.num_looks, correlation, part.margin > 0)
    return part.result.sd * detectable_in_looks(design, shape, inference.power, members)


def _record(
    claim: Claim, evidence: Evidence, design: Design, number: int, nominal: float, detectable: float | None
) -> Look:
    support, against = evidence.support, evidence.against
    decision = _decision(design, number, nominal, evidence)
    part = evidence.shown(decision)
    result = part.result.at(nominal / part.num_looks)
    return Look(
        claim=claim.name, scope=evidence.scope, number=number, num_seeds=result.n, planned=design.looks,
        level=design.level, nominal=nominal, effect=result.effect, low=result.low, high=result.high,
        p_support=support.p, p_against=against.p, decision=decision, detectable=detectable,
        is_margin=support.margin > 0,
    )  # fmt: skip


def _decision(design: Design, number: int, nominal: float, evidence: Evidence) -> str:
    """As `decide`, at the nominal level that Holm leaves; futility is the whole design's, for it costs no risk."""
    verdict = evidence.verdict(nominal)
    if verdict in ("supported", "contradicted"):
        return verdict
    sides = [part for part in (evidence.support, evidence.against) if part.own_p is not None]
    are_hopeless = [is_hopeless(design, number, part.own_p or 0.0, part.num_looks) for part in sides]
    return FUTILE if are_hopeless and all(are_hopeless) else OPEN
