"""What a rule finds before anything is decided: the comparisons that would support or contradict, with their p."""

from dataclasses import dataclass

from indelible.statistics.inference import Paired, paired
from indelible.statistics.planning import NewSeeds, detectable_margin, new_seeds

SUPPORTED, CONTRADICTED, INCONCLUSIVE, NOT_TESTED = "supported", "contradicted", "inconclusive", "not tested"
MIXED_READING = "mixed"  # a reading: the means say one thing here and another there


@dataclass(frozen=True)
class Part:
    """One comparison that can decide a claim."""

    result: Paired
    own_p: float | None  # of this comparison by itself; None with one seed
    detail: str  # one sentence: what was compared
    num_looks: int = 1  # of several comparisons one is enough: each is judged at a part of the level
    num_parts: int = 1  # comparisons that must all hold; no correction of the level is due, but power is shared
    correlation: float = 0.0  # between these: 0.5 where they have an arm in common
    margin: float = 0.0  # nats; above 0: the whole interval must lie within (or beyond) ± it, else beside zero

    @property
    def p(self) -> float | None:
        """Corrected for ``num_looks`` (Bonferroni); None with one seed."""
        return None if self.own_p is None else min(1.0, self.own_p * self.num_looks)

    def detectable(self, level: float, power: float) -> float | None:
        """The planning number: the true effect found with ``power``, or the margin that no effect stays in."""
        if self.result.sd is None:
            return None
        if self.margin:
            return detectable_margin(self.result.sd, self.result.n, level, power)
        return self.result.at(level, power).detectable

    def new_seeds(self, level: float, power: float) -> NewSeeds | None:
        """How many more would settle it, by the distance of the effect found from zero or from the margin."""
        if self.result.sd is None or self.result.effect is None:
            return None
        distance = abs(self.margin - abs(self.result.effect))
        return new_seeds(distance, self.result.sd, self.result.n, level, power)


@dataclass(frozen=True)
class Drawn:
    """What the drawn lines of a figure say, whose clouds may lack points: for published values alone."""

    effect: float  # mean gap of the lines over the range that both cover, nats per token
    reading: str
    reason: str = ""


@dataclass(frozen=True)
class Evidence:
    """Both sides of a claim in one scope. What is shown is what decides: the part whose interval settles it."""

    scope: str
    support: Part  # the weakest of what must hold
    against: Part  # the strongest of what would contradict
    reading: str
    run_ids: tuple[str, ...]
    reason: str = ""  # of a mixed reading
    is_against: bool = False  # which part is shown while neither decides: the one that the means speak for
    is_tested: bool = True
    drawn: Drawn | None = None

    @property
    def p(self) -> float | None:
        """Of the side that the data speak for; only one of the two can be a mistake. None with one seed."""
        known = [part.p for part in (self.support, self.against) if part.p is not None]
        return min(known, default=None)

    @property
    def key(self) -> tuple[object, ...]:
        """Equal for findings that rest on the same numbers."""
        numbers = [(part.p, tuple(sorted(part.result.differences.items()))) for part in (self.support, self.against)]
        return (*numbers, None if self.p is not None else self.scope)

    def verdict(self, level: float) -> str:
        """What follows at ``level``."""
        if not self.is_tested:
            return NOT_TESTED
        if self.support.p is not None and self.support.p <= level:
            return SUPPORTED
        if self.against.p is not None and self.against.p <= level:
            return CONTRADICTED
        return INCONCLUSIVE

    def shown(self, verdict: str) -> Part:
        """The part that decides, or would."""
        if verdict in (SUPPORTED, CONTRADICTED):
            return self.support if verdict == SUPPORTED else self.against
        return self.against if self.is_against else self.support


def directed(scope: str, result: Paired, direction: str, detail: str, run_ids: tuple[str, ...]) -> Evidence:
    """The evidence of a claim that the second arm is ``lower`` (or ``higher``)."""
    if result.effect is None:
        nothing = Part(result, None, detail)
        return Evidence(scope, nothing, nothing, INCONCLUSIVE, run_ids)
    is_as_claimed = (result.effect < 0) == (direction == "lower") and result.effect != 0
    reading = face_value(result, is_as_claimed=is_as_claimed)
    p = result.p
    support = Part(result, p if is_as_claimed or p is None else 1.0, detail)
    against = Part(result, 1.0 if is_as_claimed and p is not None else p, detail)
    return Evidence(scope, support, against, reading, run_ids, is_against=not is_as_claimed)


def face_value(result: Paired, *, is_as_claimed: bool) -> str:
    """What a mean says by itself: nothing where it lies within one standard error of zero."""
    if result.standard_error is not None and abs(result.effect or 0.0) < result.standard_error:
        return INCONCLUSIVE
    return SUPPORTED if is_as_claimed else CONTRADICTED


def not_tested(reason: str) -> Evidence:
    """Of a rule whose arms are not in the table."""
    nothing = Part(paired({}), None, reason)
    return Evidence("", nothing, nothing, NOT_TESTED, (), is_tested=False)
