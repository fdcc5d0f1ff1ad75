"""A claim's verdict: supported, contradicted, inconclusive or not tested, with its effect, interval, seeds and runs."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

import polars as pl

from indelible.claims.evidence import (
    CONTRADICTED,
    INCONCLUSIVE,
    MIXED_READING,
    NOT_TESTED,
    SUPPORTED,
    Drawn,
    Evidence,
)
from indelible.statistics.inference import Inference, holm_levels
from indelible.statistics.planning import NewSeeds, part_power

VERDICTS = (CONTRADICTED, SUPPORTED, MIXED_READING, INCONCLUSIVE, NOT_TESTED)  # "mixed": at face value alone


@dataclass(frozen=True)
class Finding:
    """What one rule says about one part of a table. All numbers are of the comparison that decides."""

    scope: str  # e.g. "135m · C4>FLAN>ChemPile · |D_post| 30M"
    verdict: str  # with the noise between seeds taken into account
    reading: str  # what the means say at face value: supported, contradicted, mixed, or inconclusive: neither
    reason: str  # why the reading is mixed; else empty
    effect: float | None  # nats per token
    low: float | None  # interval of the effect at the level that decides, all corrections included
    high: float | None
    confidence: float | None  # of that interval, e.g. 0.95
    num_seeds: int
    num_same_sign: int  # seeds whose own difference has the sign of the effect
    num_other_sign: int  # seeds with the other sign
    detectable: float | None  # true effect that this design finds with the stated power; of "flat": the margin it shows
    is_margin: bool  # what ``detectable`` is
    new_seeds: NewSeeds | None  # of an inconclusive finding: how many more seeds would settle it
    p: float | None  # of what the verdict rests on, corrected within the finding
    level: float | None  # what p is compared with: the stated level, or what Holm's procedure leaves of it
    family_size: int  # findings of the claim that share the stated level
    detail: str  # one sentence: what was compared, and where it holds or fails
    run_ids: tuple[str, ...]  # the chains behind it, by their last run
    drawn: Drawn | None = None  # of a frontier: what its drawn lines say


Rule = Callable[[pl.DataFrame, Inference], list[Evidence]]


@dataclass(frozen=True)
class Claim:
    """A claim of the paper as a named rule."""

    name: str
    source: str  # where the paper says it
    text: str  # the claim in our words
    rule: Rule
    is_paired: bool = True  # compares chains of equal settings; False: compares clouds of chains by their frontiers


@dataclass(frozen=True)
class Verdict:
    """A claim and what was found about it in one scope."""

    claim: str
    source: str
    text: str
    finding: Finding

    def as_json(self) -> dict[str, Any]:
        """All of it flat, for machines."""
        return {"claim": self.claim, "source": self.source, "text": self.text, **asdict(self.finding)}


LevelOf = Callable[[int], float]  # the level of one of so many hypotheses


def judge(
    claims: Iterable[Claim],
    table: pl.DataFrame,
    inference: Inference | None = None,
    *,
    is_corrected: bool = True,
    planned: Mapping[str, LevelOf] | None = None,
) -> list[Verdict]:
    """Runs every claim's rule over a results table.

    Args:
        claims: e.g. `indelible.claims.paper_claims.CLAIMS`.
        table: a results table; finished chains count, and diverged ones as the worst loss.
        inference: level, margin of "flat", worst loss; None: the defaults.
        is_corrected: the findings of one claim are a family, whose risk of naming anything wrong is the stated level
            (Holm). False: each finding by itself has it.
        planned: of claims that were looked at by a sequential design, the nominal levels of the last look
            (`indelible.claims.looks.level_of`).
    """
    chosen = inference or Inference()
    verdicts = []
    for claim in claims:
        level_of = (planned or {}).get(claim.name)
        found = family(claim.rule(table, chosen), chosen, is_corrected=is_corrected, level_of=level_of)
        verdicts += [Verdict(claim.name, claim.source, claim.text, one) for one in found]
    return verdicts


def family(
    evidence: list[Evidence], inference: Inference, *, is_corrected: bool = True, level_of: LevelOf | None = None
) -> list[Finding]:
    """Decides the findings of one claim together.

    Findings with the same numbers rest on the same stage runs (two pipelines that differ in a later stage) and are one
    hypothesis, counted once.
    """
    chosen: LevelOf = level_of or (lambda members: inference.level / members)
    p_values = {one.key: one.p for one in evidence if one.p is not None}
    levels = holm_levels(p_values, chosen) if is_corrected else dict.fromkeys(p_values, chosen(1))
    size = len(p_values) if is_corrected else 1
    return [decide(one, levels.get(one.key, chosen(1)), size, inference.power) for one in evidence]


def decide(evidence: Evidence, level: float, family_size: int = 1, power: float = 0.8) -> Finding:
    """The finding of one scope at a level.

    Args:
        evidence: what the rule found.
        level: two-sided; at a look of a sequential design, its nominal level.
        family_size: findings that share the stated level.
        power: of the planning numbers.
    """
    verdict = evidence.verdict(level)
    part = evidence.shown(verdict)
    own_level, own_power = level / part.num_looks, part_power(power, part.num_parts, part.correlation)
    result = part.result.at(own_level, own_power)
    return Finding(
        scope=evidence.scope, verdict=verdict, reading=evidence.reading, reason=evidence.reason,
        effect=result.effect, low=result.low, high=result.high,
        confidence=None if result.low is None else 1 - own_level,
        num_seeds=result.n, num_same_sign=result.num_same_sign, num_other_sign=result.num_other_sign,
        detectable=part.detectable(own_level, own_power), is_margin=part.margin > 0,
        new_seeds=part.new_seeds(own_level, own_power) if verdict == INCONCLUSIVE else None,
        p=evidence.p, level=None if evidence.p is None else level, family_size=family_size, detail=part.detail,
        run_ids=tuple(dict.fromkeys(evidence.run_ids)), drawn=evidence.drawn,
    )  # fmt: skip


def at_face_value(verdicts: list[Verdict]) -> list[Verdict]:
    """The readings as verdicts: for published values of one seed, which have no error bars and never will.

    Frontiers are read as they are drawn: a figure's clouds lack the points that lie outside of its canvas.
    """
    return [replace(one, finding=_read(one.finding)) for one in verdicts]


def _read(found: Finding) -> Finding:
    drawn = found.drawn
    if drawn is None:
        return replace(found, verdict=found.reading)
    return replace(found, verdict=drawn.reading, reading=drawn.reading, reason=drawn.reason, effect=drawn.effect)
