"""Durable, not durable, or cannot tell: one number, its interval, and the bar."""

from dataclasses import dataclass

from indelible.durability.card import CustomerRow, Kept, Number, Unit, Verdict
from indelible.durability.request import NATS_REQUIRED, SHARE_REQUIRED, AuditRequest


@dataclass(frozen=True)
class Judged:
    """The verdict and what it rests on."""

    verdict: Verdict
    reason: str
    kept: Kept | None
    require: float


def judge(request: AuditRequest, rows: list[CustomerRow], unfinished: int, *, has_base: bool) -> Judged:
    """Judges the chosen customer at the chosen part of the gain, over all new corpora.

    Durable: the whole interval is on the good side of the bar (a share above it, a loss below it). Not durable: the
    whole interval is on the other side. Else nobody can tell, and the reason says what would help.

    Args:
        request: the audit.
        rows: every customer at every part of the gain.
        unfinished: trials that are not done.
        has_base: whether shares are there.
    """
    asked = request.require
    unit: Unit = asked.unit if asked is not None else "share" if has_base else "nats"
    bar = asked.value if asked is not None else SHARE_REQUIRED if unit == "share" else NATS_REQUIRED
    row = next(
        (one for one in rows if (one.later, one.gain, one.customer) == ("all", request.gain, request.customer)), None
    )
    found = None if row is None else row.share if unit == "share" else row.lost
    if row is not None and found is None:
        return Judged("cannot_tell", "there is no share of a capability that the base has as well", None, bar)
    if found is None:
        why = "no trial gains anything on the new data, so there is no equal gain at which to compare"
        return Judged("cannot_tell", f"{why}; raise the learning rates or the updates of the battery", None, bar)
    kept = Kept(**found.model_dump(), unit=unit)
    if unfinished:
        return Judged("cannot_tell", f"{unfinished} trials are not done; the same command goes on", kept, bar)
    if found.low is None or found.high is None:
        why = "one unit has no interval; a larger budget adds seeds"
        if found.n > 1:
            why = "all units have one and the same value, which says nothing of the noise between them"
        return Judged("cannot_tell", why, kept, bar)
    return Judged(*_against_the_bar(found, bar, is_share=unit == "share"), kept, bar)


def _against_the_bar(found: Number, bar: float, *, is_share: bool) -> tuple[Verdict, str]:
    low, high = (found.low, found.high) if is_share else (_negative(found.high), _negative(found.low))
    bar = bar if is_share else -bar
    assert low is not None
    assert high is not None
    if low > bar:
        return "durable", "the whole interval is on the good side of the bar"
    if high < bar:
        return "not_durable", "the whole interval is on the bad side of the bar"
    return "cannot_tell", "the bar is inside the interval; more seeds (--budget) or held-out text narrow it"


def _negative(value: float | None) -> float | None:
    return None if value is None else -value
