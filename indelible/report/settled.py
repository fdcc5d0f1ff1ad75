"""What settled looks like: the shipped reference of sixteen seeds, for the page of a small study.

Its numbers are in `reference_values/central.json`; a test holds them equal to what the reference table says, and
``reference_json`` makes the file anew.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cache
from importlib import resources

from indelible.claims.verdicts import Finding, Verdict
from indelible.claims.wording import confidence_text
from indelible.report.headline import AFTER_FINE_TUNE, AT_HAND_OVER

NUM_SEEDS = 8  # studies with fewer are shown the reference
MAX_ROWS = 3  # of the study's own
PIPELINE = "general>music>chemistry"
_CLAIMS = {"L_im": AT_HAND_OVER, "L_ret": AFTER_FINE_TUNE}


@dataclass(frozen=True)
class Effect:
    """Of exposure, on one loss: nats per token at the largest lambda minus lambda 0."""

    effect: float
    low: float
    high: float
    confidence: float  # of the interval
    num_seeds: int


def reference_effects(verdicts: Sequence[Verdict]) -> dict[str, Effect]:
    """The effects of exposure in Music -> Chemistry, by loss.

    Args:
        verdicts: of the reference table `central`.
    """
    found = {}
    for loss, claim in _CLAIMS.items():
        (one,) = (v.finding for v in verdicts if v.claim == claim and PIPELINE in v.finding.scope)
        numbers = {name: round(getattr(one, name), 6) for name in ("effect", "low", "high", "confidence")}
        found[loss] = Effect(**numbers, num_seeds=one.num_seeds)
    return found


def reference_json(verdicts: Sequence[Verdict]) -> str:
    """The text of the shipped file."""
    return json.dumps({loss: asdict(one) for loss, one in reference_effects(verdicts).items()}, indent=1) + "\n"


@cache
def shipped_reference() -> dict[str, Effect]:
    """The shipped numbers, by loss."""
    text = resources.files("indelible").joinpath("reference_values", "central.json").read_text(encoding="utf-8")
    return {loss: Effect(**one) for loss, one in json.loads(text).items()}


def settled_rows(verdicts: Sequence[Verdict], num_seeds: int) -> list[dict[str, str]]:
    """The study's own effects and the reference's; empty where the study has many seeds, or no effects."""
    tested = [verdict for verdict in verdicts if verdict.finding.effect is not None]
    own = {
        loss: {one.finding.scope: one.finding for one in tested if one.claim == claim}
        for loss, claim in _CLAIMS.items()
    }
    scopes = list(dict.fromkeys(scope for found in own.values() for scope in found))
    if num_seeds >= NUM_SEEDS or not scopes:
        return []
    rows = [_row(f"this study, {scope}", {loss: own[loss].get(scope) for loss in own}) for scope in scopes[:MAX_ROWS]]
    return [*rows, _row(f"shipped reference, pico · {PIPELINE}", shipped_reference())]


def _row(name: str, found: "dict[str, Finding | None] | dict[str, Effect]") -> dict[str, str]:
    counts = [one.num_seeds for one in found.values() if one is not None]
    return {"": name, "seeds": str(max(counts)), **{f"{loss} with exposure": _text(one) for loss, one in found.items()}}


def _text(one: "Finding | Effect | None") -> str:
    if one is None or one.effect is None:
        return "not tested"
    if one.low is None or one.high is None or one.confidence is None:
        return f"{one.effect:+.3f}, no interval"
    return f"{one.effect:+.3f} [{one.low:+.3f}, {one.high:+.3f}] ({confidence_text(one.confidence)})"
