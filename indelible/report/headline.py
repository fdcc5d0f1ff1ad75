"""What was found, in plain words: one sentence for each main claim and verdict, with its numbers."""

from collections.abc import Sequence
from dataclasses import dataclass

import polars as pl

from indelible.claims.evidence import CONTRADICTED, INCONCLUSIVE, SUPPORTED
from indelible.claims.verdicts import Finding, Verdict
from indelible.claims.wording import confidence_text
from indelible.report.seed_cost import hours_text
from indelible.statistics.inference import FLAT_MARGIN

AT_HAND_OVER, AFTER_FINE_TUNE = "hand-over-flat", "retained-lower"  # the two claims that a page begins with
ERASED = "less-erased"  # and what lies between the two
AT_EQUAL_FT, AT_EQUAL_RET = "frontier-retained", "frontier-general"
# claim -> what is said of it when it is supported, contradicted, and neither
_WORDS = {
    AFTER_FINE_TUNE: (
        "After the later fine-tune exposure pays: L_ret is lower than without it",
        "After the later fine-tune exposure has cost: L_ret is higher than without it",
        "After the later fine-tune: not settled whether exposure lowers L_ret",
    ),
    AT_HAND_OVER: (
        f"At hand-over exposure does not show: L_im stays within ±{FLAT_MARGIN:g} nats",
        f"At hand-over exposure shows already: L_im moves by more than ±{FLAT_MARGIN:g} nats",
        f"At hand-over: not settled whether L_im stays within ±{FLAT_MARGIN:g} nats",
    ),
    ERASED: (
        "What the later fine-tune erases, L_ret - L_im, is less with exposure",
        "What the later fine-tune erases, L_ret - L_im, is more with exposure",
        "Not settled whether the later fine-tune erases less with exposure (L_ret - L_im)",
    ),
    "matched-hand-over-higher": (
        "Compute-matched, exposure costs at hand-over: L_im is higher with all of D_post early",
        "Compute-matched, exposure helps at hand-over: L_im is lower with all of D_post early",
        "Compute-matched, at hand-over: not settled whether all of D_post early raises L_im",
    ),
    "matched-best-inside": (
        "Compute-matched, part early and part late is best: L_ret is lowest at a λ strictly between 0 and 1",
        "Compute-matched, no λ between 0 and 1 beats both ends in L_ret",
        "Compute-matched: not settled whether a λ between 0 and 1 beats both ends in L_ret",
    ),
    AT_EQUAL_FT: (
        "At equal L_ft the frontier with exposure has the lower L_ret",
        "At equal L_ft the frontier with exposure has the higher L_ret",
        "Frontier: not settled whether exposure lowers L_ret at equal L_ft",
    ),
    AT_EQUAL_RET: (
        "At equal L_ret the frontier with exposure has the lower L_pre",
        "At equal L_ret the frontier with exposure has the higher L_pre",
        "Frontier: not settled whether exposure lowers L_pre at equal L_ret",
    ),
}
_ORDER = (SUPPORTED, CONTRADICTED, INCONCLUSIVE)
MAX_POINTS = 6  # numbers behind one sentence; the rest is under Verdicts


@dataclass(frozen=True)
class Headline:
    """One sentence and the findings behind it."""

    verdict: str
    sentence: str
    points: tuple[tuple[str, Finding], ...]  # where, and what was found there
    num_more: int  # findings left out of ``points``
    aside: str = ""  # how much of the first point's gain was there before the later fine-tune, where that is told


def headlines(verdicts: Sequence[Verdict]) -> list[Headline]:
    """The main claims that the study tested, one sentence for each verdict that a claim got."""
    shown = []
    for claim, words in _WORDS.items():
        found = [one.finding for one in verdicts if one.claim == claim and one.finding.effect is not None]
        everywhere = common_parts([one.scope for one in found])
        for verdict in _ORDER:
            group = [(short_scope(one.scope, everywhere), one) for one in found if one.verdict == verdict]
            if group:
                sentence = words[_ORDER.index(verdict)]
                points, num_more = tuple(group[:MAX_POINTS]), len(group[MAX_POINTS:])
                is_gain = claim == AFTER_FINE_TUNE and verdict == SUPPORTED
                aside = _before_the_fine_tune(points[0][1], verdicts) if is_gain else ""
                shown.append(Headline(verdict, sentence, points, num_more, aside))
    return shown


def _before_the_fine_tune(retained: Finding, verdicts: Sequence[Verdict]) -> str:
    """The part of a gain in L_ret that L_im has already, and the rest; empty unless L_im is told to be lower."""
    own = {one.claim: one.finding for one in verdicts if one.finding.scope == retained.scope}
    early, erased = own.get(AT_HAND_OVER), own.get(ERASED)
    if early is None or early.verdict != CONTRADICTED or early.effect is None or early.effect >= -FLAT_MARGIN:
        return ""
    if erased is None or erased.effect is None or retained.effect is None or erased.num_seeds != retained.num_seeds:
        return f"of which {early.effect:+.3f} was there at hand-over"
    # The claim about L_im looks at the λ where it moves most; the difference is at the λ of the gain.
    return (
        f"of which {retained.effect - erased.effect:+.3f} was there at hand-over; what is erased changes by "
        f"{_numbers(erased)}"
    )


def first_sentence(shown: Sequence[Headline], table: pl.DataFrame) -> str:
    """What is settled, with its interval, and what it would cost to settle what is open, in one sentence.

    Args:
        shown: the headlines, the most important first.
        table: results table, for the hours of training that a seed takes.

    Returns:
        empty when no claim was tested.
    """
    settled = [one for one in shown if one.verdict != INCONCLUSIVE]
    unsettled = [one for one in shown if one.verdict == INCONCLUSIVE]
    parts = []
    if settled:
        number = sum(len(one.points) + one.num_more for one in settled) - 1
        more = f", and {number} more finding{'s' if number > 1 else ''}" if number else ""
        aside = f", {settled[0].aside}" if settled[0].aside else ""
        parts.append(f"Settled: {_lower_first(settled[0].sentence)} ({_interval(settled[0].points[0])}{aside}){more}")
    else:
        parts.append("Nothing is settled yet" if shown else "")
    if unsettled:
        one = unsettled[0]
        words = one.sentence.removeprefix("After the later fine-tune: ").removeprefix("At hand-over: ")
        place, found = one.points[0]
        needed = "seeds that differ" if found.num_seeds > 1 else "more than one seed"
        cost = needed if found.new_seeds is None else found.new_seeds.text
        hours = hours_text(found, table)
        place = f" in {place}" if place else ""
        parts.append(f"open: {_lower_first(words)}{place}, which would take {cost}{hours}")
    return "; ".join(part for part in parts if part) + ("." if shown else "")


def _interval(point: tuple[str, Finding]) -> str:
    where, found = point
    level = "" if found.confidence is None else f" at {confidence_text(found.confidence)}"
    return f"{where}{': ' if where else ''}{_numbers(found)} nats{level}"


def _numbers(found: Finding) -> str:
    return f"{found.effect:+.3f}" + ("" if found.low is None else f" [{found.low:+.3f}, {found.high:+.3f}]")


def _lower_first(text: str) -> str:
    return text[:1].lower() + text[1:]


def common_parts(scopes: Sequence[str]) -> set[str]:
    """The parts that every scope names: they go without saying. None when there is but one scope."""
    parts = [set(scope.split(" · ")) for scope in scopes]
    return set.intersection(*parts) if len(parts) > 1 else set()


def short_scope(scope: str, everywhere: set[str]) -> str:
    """The scope without the parts in ``everywhere``."""
    return " · ".join(part for part in scope.split(" · ") if part not in everywhere)
