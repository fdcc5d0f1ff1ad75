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
    "frontier-retained": (
        "At equal L_ft the frontier with exposure has the lower L_ret",
        "At equal L_ft the frontier with exposure has the higher L_ret",
        "Frontier: not settled whether exposure lowers L_ret at equal L_ft",
    ),
    "frontier-general": (
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
                shown.append(Headline(verdict, sentence, tuple(group[:MAX_POINTS]), len(group[MAX_POINTS:])))
    return shown


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
        parts.append(f"Settled: {_lower_first(settled[0].sentence)} ({_interval(settled[0].points[0])}){more}")
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
    between = "" if found.low is None else f" [{found.low:+.3f}, {found.high:+.3f}]"
    level = "" if found.confidence is None else f" at {confidence_text(found.confidence)}"
    return f"{where}{': ' if where else ''}{found.effect:+.3f}{between} nats{level}"


def _lower_first(text: str) -> str:
    return text[:1].lower() + text[1:]


def common_parts(scopes: Sequence[str]) -> set[str]:
    """The parts that every scope names: they go without saying. None when there is but one scope."""
    parts = [set(scope.split(" · ")) for scope in scopes]
    return set.intersection(*parts) if len(parts) > 1 else set()


def short_scope(scope: str, everywhere: set[str]) -> str:
    """The scope without the parts in ``everywhere``."""
    return " · ".join(part for part in scope.split(" · ") if part not in everywhere)
