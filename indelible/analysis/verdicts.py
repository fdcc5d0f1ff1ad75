"""What a rule finds: a verdict with its effect, interval, number of seeds and runs."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

import polars as pl

from indelible.analysis.inference import CONFIDENCE, Paired, holm

SUPPORTED, CONTRADICTED, INCONCLUSIVE, NOT_TESTED = "supported", "contradicted", "inconclusive", "not tested"
VERDICTS = (CONTRADICTED, SUPPORTED, INCONCLUSIVE, NOT_TESTED)


@dataclass(frozen=True)
class Finding:
    """What one rule says about one part of a table."""

    scope: str  # e.g. "135m · C4>FLAN>ChemPile · |D_post| 30M"
    verdict: str  # with the noise between seeds taken into account
    reading: str  # what the means say at face value: supported, contradicted, or inconclusive when they say neither
    effect: float | None  # nats per token
    low: float | None  # 95 % interval of the effect
    high: float | None
    num_seeds: int
    num_same_sign: int  # seeds whose own difference has the sign of the effect
    detectable: float | None  # smallest effect that this design shows with power 0.8
    seeds_to_tell: int | None  # that would settle an inconclusive finding, at the mean and spread found
    p: float | None  # of what the verdict rests on
    p_adjusted: float | None  # Holm, over all findings; None unless asked for
    detail: str  # one sentence: what was compared, and where it holds or fails
    run_ids: tuple[str, ...]  # the chains behind it, by their last run


Rule = Callable[[pl.DataFrame], list[Finding]]


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


def finding(
    scope: str,
    result: Paired,
    *,
    verdict: str,
    reading: str,
    detail: str,
    run_ids: Iterable[str],
    p: float | None = None,
    distance: float | None = None,
) -> Finding:
    """A finding whose effect, interval and detectable effect are those of ``result``.

    ``distance`` is how far the effect lies from what would decide the claim (nats per token), if that is not zero.
    """
    low, high = result.interval or (None, None)
    seeds_to_tell = result.seeds_to_tell(distance) if verdict == INCONCLUSIVE else None
    return Finding(
        scope=scope, verdict=verdict, reading=reading, effect=result.effect, low=low, high=high, num_seeds=result.n,
        num_same_sign=result.num_same_sign, detectable=result.detectable, seeds_to_tell=seeds_to_tell,
        p=result.p if p is None else p, p_adjusted=None, detail=detail,
        run_ids=tuple(dict.fromkeys(run_ids)),
    )  # fmt: skip


def not_tested(reason: str) -> Finding:
    """The finding of a rule whose arms are not in the table."""
    return Finding("", NOT_TESTED, NOT_TESTED, None, None, None, 0, 0, None, None, None, None, reason, ())


def judge(claims: Iterable[Claim], table: pl.DataFrame, *, is_family_wise: bool = False) -> list[Verdict]:
    """Runs every claim's rule over a results table.

    Args:
        claims: e.g. `indelible.analysis.claims.CLAIMS`.
        table: a results table; only finished chains count.
        is_family_wise: adjust the p values of all findings by Holm and take back verdicts whose adjusted p is above
            0.05. Without it each finding has its own 5 % risk.
    """
    verdicts = [Verdict(claim.name, claim.source, claim.text, one) for claim in claims for one in claim.rule(table)]
    return family_wise(verdicts) if is_family_wise else verdicts


def family_wise(verdicts: list[Verdict]) -> list[Verdict]:
    """Adds Holm-adjusted p values; a verdict that they do not carry becomes inconclusive."""
    adjusted = holm([verdict.finding.p for verdict in verdicts])
    result = []
    for verdict, p in zip(verdicts, adjusted, strict=True):
        found = replace(verdict.finding, p_adjusted=p)
        if found.verdict in (SUPPORTED, CONTRADICTED) and p is not None and p > 1 - CONFIDENCE:
            found = replace(found, verdict=INCONCLUSIVE)
        result.append(replace(verdict, finding=found))
    return result


def at_face_value(verdicts: list[Verdict]) -> list[Verdict]:
    """The readings as verdicts: for published values of one seed, which have no error bars and never will."""
    return [replace(one, finding=replace(one.finding, verdict=one.finding.reading)) for one in verdicts]
