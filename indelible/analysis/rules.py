"""The rules behind the claims: each makes a function from a results table to findings, one a scope."""

from collections.abc import Callable
from itertools import pairwise

import polars as pl

from indelible.analysis.arms import plural, word
from indelible.analysis.compare import Comparison, compare_at_equal_loss, compare_at_equal_settings
from indelible.analysis.inference import CONFIDENCE, Paired, equivalence_p, paired
from indelible.analysis.scopes import EXPOSURE, scopes
from indelible.analysis.verdicts import (
    CONTRADICTED,
    INCONCLUSIVE,
    SUPPORTED,
    Finding,
    Rule,
    finding,
    not_tested,
)

FLAT_MARGIN = 0.03  # nats per token: about 3 % of perplexity
_SCOPE = ("scale", "pipeline", "post_tokens")


def ends(loss: str, allocation: str, direction: str) -> Rule:
    """``loss`` is ``lower`` or ``higher`` at the largest lambda than at 0."""

    def judge_scope(scope: str, rows: pl.DataFrame, fractions: list[float]) -> Finding:
        found = _compare(rows, fractions[0], fractions[-1], loss)
        detail = f"{loss} at λ {fractions[-1]:g} minus λ {fractions[0]:g}{_blocks(found)}."
        verdict, reading = _directed(found.result, direction)
        return finding(scope, found.result, verdict=verdict, reading=reading, detail=detail, run_ids=found.finetune_ids)

    return _by_lambda(loss, allocation, 2, judge_scope)


def forgetting(allocation: str) -> Rule:
    """L_ret minus L_im, what the last stage erases, is lower at the largest lambda than at 0."""
    rule = ends("erased", allocation, "lower")

    def judge_table(table: pl.DataFrame) -> list[Finding]:
        return rule(table.with_columns(erased=pl.col("L_ret") - pl.col("L_im")))

    return judge_table


def flat(loss: str, allocation: str, margin: float = FLAT_MARGIN) -> Rule:
    """``loss`` at every lambda is within ``margin`` of that at 0: each whole interval must be inside.

    All must be inside, so no correction is due for support; one outside contradicts, and is Bonferroni-corrected.
    """

    def judge_scope(scope: str, rows: pl.DataFrame, fractions: list[float]) -> Finding:
        found = {fraction: _compare(rows, fractions[0], fraction, loss) for fraction in fractions[1:]}
        known = {fraction: one for fraction, one in found.items() if one.result.effect is not None}
        if not known:
            return _no_pairs(scope, loss)
        widest = max(known, key=lambda fraction: abs(known[fraction].result.effect or 0.0))
        tests = [(one.result, both) for one in known.values() if (both := equivalence_p(one.result, margin))]
        outside = [_times(both[1], len(known)) for one, both in tests if _clearance(one, margin) > 0]
        verdict, p = INCONCLUSIVE, max((both[0] for _, both in tests), default=None)
        if len(tests) == len(found) and all(_is_within(one, margin) for one, _ in tests):
            verdict = SUPPORTED
        elif min(outside, default=1.0) <= 1 - CONFIDENCE:
            verdict, p = CONTRADICTED, min(outside)
        result = known[widest].result
        reading = SUPPORTED if abs(result.effect or 0.0) <= margin else CONTRADICTED
        detail = (
            f"{loss} at λ {widest:g} minus λ {fractions[0]:g}, the farthest of {plural(len(known), 'λ')}, against "
            f"±{margin:g} nats{_blocks(known[widest])}."
        )
        ids = [run_id for one in known.values() for run_id in one.finetune_ids]
        return finding(scope, result, verdict=verdict, reading=reading, detail=detail, run_ids=ids, p=p,
                       distance=abs(margin - abs(result.effect or 0.0)))  # fmt: skip

    return _by_lambda(loss, allocation, 2, judge_scope)


def monotone(loss: str, allocation: str, direction: str = "lower") -> Rule:
    """``loss`` goes ``lower`` (or ``higher``) at every step of lambda.

    Supported when every step is found to: all must hold, so no correction is due. Contradicted when one step is found
    to go the other way, Bonferroni-corrected over the steps.
    """
    against = "higher" if direction == "lower" else "lower"
    sign = 1 if direction == "lower" else -1
    verbs = ("falls", "rises") if direction == "lower" else ("rises", "falls")

    def judge_scope(scope: str, rows: pl.DataFrame, fractions: list[float]) -> Finding:
        asked = list(pairwise(fractions))
        steps = {(low, high): _compare(rows, low, high, loss) for low, high in asked}
        steps = {step: found for step, found in steps.items() if found.result.effect is not None}
        if not steps:
            return _no_pairs(scope, loss)
        worst = max(steps, key=lambda step: sign * (steps[step].result.effect or 0.0))
        wrong = [step for step, found in steps.items() if sign * (found.result.effect or 0.0) > 0]
        results = [found.result for found in steps.values()]
        contradicting = [_times(one.p, len(steps)) for one in results if _corrected(one, len(steps)) == against]
        verdict, p = INCONCLUSIVE, max((one.p for one in results if one.p is not None), default=None)
        if contradicting:
            verdict, p = CONTRADICTED, min(contradicting)
        elif len(steps) == len(asked) and all(one.conclusion() == direction for one in results):
            verdict = SUPPORTED
        where = ", ".join(f"{low:g} to {high:g}" for low, high in wrong)
        detail = f"Step of {loss} most against the claim: λ {worst[0]:g} to {worst[1]:g}. " + (
            f"It {verbs[1]} at {len(wrong)} of {len(steps)} steps (λ {where})."
            if wrong else f"It {verbs[0]} at every step."
        )  # fmt: skip
        ids = [run_id for found in steps.values() for run_id in found.finetune_ids]
        return finding(scope, steps[worst].result, verdict=verdict, reading=CONTRADICTED if wrong else SUPPORTED,
                       detail=detail, run_ids=ids, p=p)  # fmt: skip

    return _by_lambda(loss, allocation, 3, judge_scope)


def interior(loss: str, allocation: str) -> Rule:
    """``loss`` is lowest strictly between the ends of lambda: the best inner lambda beats both ends."""

    def judge_scope(scope: str, rows: pl.DataFrame, fractions: list[float]) -> Finding:
        inner = fractions[1:-1]
        to_start = {fraction: _compare(rows, fractions[0], fraction, loss) for fraction in inner}
        to_end = {fraction: _compare(rows, fractions[-1], fraction, loss) for fraction in inner}
        known = [one for one in inner if None not in (to_start[one].result.effect, to_end[one].result.effect)]
        if not known:
            return _no_pairs(scope, loss)
        # The inner lambda whose lead over the better end is largest; it was chosen among several, hence the correction.
        best = min(known, key=lambda one: max(to_start[one].result.effect or 0.0, to_end[one].result.effect or 0.0))
        pair = (to_start[best], to_end[best])
        weaker = max(pair, key=lambda found: found.result.effect or 0.0)
        # Both ends must be beaten, so the choice of the inner lambda is the only look to correct for.
        verdict, p = INCONCLUSIVE, max((_times(one.result.p, len(inner)) for one in pair), default=None)
        above = [_found_above((to_start[one].result, to_end[one].result)) for one in known]
        if all(_corrected(one.result, len(inner)) == "lower" for one in pair):
            verdict = SUPPORTED
        elif len(known) == len(inner) and None not in above:
            verdict, p = CONTRADICTED, max(one for one in above if one is not None)
        end = fractions[0] if weaker is pair[0] else fractions[-1]
        result = weaker.result
        reading = SUPPORTED if (result.effect or 0.0) < 0 else CONTRADICTED
        p = None if result.p is None else p
        detail = f"Best inner λ is {best:g}; {loss} there minus that at the better end, λ {end:g}."
        ids = [*pair[0].finetune_ids, *pair[1].finetune_ids]
        return finding(scope, result, verdict=verdict, reading=reading, detail=detail, run_ids=ids, p=p)

    return _by_lambda(loss, allocation, 3, judge_scope)


def at_equal_loss(equal: str, loss: str, axes: tuple[str, ...]) -> Rule:
    """At the same ``equal`` loss the largest lambda has the lower ``loss``; curves run along the first swept axis."""

    def judge_table(table: pl.DataFrame) -> list[Finding]:
        found = []
        for scope, rows, fractions in scopes(table, ("scale", "pipeline", "allocation"), [equal, loss], 2):
            axis = next((name for name in axes if rows[name].drop_nulls().n_unique() >= 2), None)
            if axis is None:
                continue
            low, high = (pl.col("exposure_fraction") == fraction for fraction in (fractions[0], fractions[-1]))
            one = compare_at_equal_loss(rows, low, high, EXPOSURE, equal=equal, loss=loss, axis=axis)
            if one.result.effect is None:
                continue
            verdict, reading = _directed(one.result, "lower")
            detail = (f"{loss} at λ {fractions[-1]:g} minus λ {fractions[0]:g} at equal {equal}, along {word(axis)}; "
                      f"{plural(one.num_blocks, 'curve')}, {one.num_left_out} without a common range"
                      f"{_seeds(one)}.")  # fmt: skip
            found.append(finding(scope, one.result, verdict=verdict, reading=reading, detail=detail,
                                 run_ids=one.finetune_ids))  # fmt: skip
        return found or [not_tested(f"No two arms with a swept {' or '.join(word(name) for name in axes)}.")]

    return judge_table


def _by_lambda(
    loss: str, allocation: str, num_fractions: int, judge_scope: Callable[[str, pl.DataFrame, list[float]], Finding]
) -> Rule:
    def judge_table(table: pl.DataFrame) -> list[Finding]:
        rows = table.filter(pl.col("allocation") == allocation)
        found = [judge_scope(*scope) for scope in scopes(rows, _SCOPE, [loss], num_fractions)]
        what = f"λ 0 and {plural(num_fractions - 1, 'other value')} of λ with finished chains, allocation {allocation}"
        return found or [not_tested(f"Needs {what}.")]

    return judge_table


def _compare(rows: pl.DataFrame, low: float, high: float, loss: str) -> Comparison:
    fraction = pl.col("exposure_fraction")
    return compare_at_equal_settings(rows, fraction == low, fraction == high, loss, EXPOSURE)


def _directed(result: Paired, direction: str) -> tuple[str, str]:
    """Verdict and reading of the claim that the second arm is ``lower`` (or ``higher``)."""
    if result.effect is None:
        return INCONCLUSIVE, INCONCLUSIVE
    conclusion = result.conclusion()
    verdict = INCONCLUSIVE
    if conclusion != "inconclusive":
        verdict = SUPPORTED if conclusion == direction else CONTRADICTED
    is_as_claimed = result.effect < 0 if direction == "lower" else result.effect > 0
    return verdict, SUPPORTED if is_as_claimed else CONTRADICTED


def _corrected(result: Paired, num_looks: int) -> str:
    """The conclusion when this is one of several looks (Bonferroni)."""
    return result.conclusion(p_adjusted=None if result.p is None else min(1.0, result.p * num_looks))


def _found_above(ends: tuple[Paired, Paired]) -> float | None:
    """p (Bonferroni over the two ends) of being found higher than one of them; None when it is not."""
    found = [_times(end.p, len(ends)) for end in ends if _corrected(end, len(ends)) == "higher"]
    return min(found, default=None)


def _times(p: float | None, num_looks: int) -> float:
    return 1.0 if p is None else min(1.0, p * num_looks)


def _clearance(result: Paired, margin: float) -> float:
    """How far the whole interval lies outside of the margin; negative when part of it is inside."""
    low, high = result.interval or (0.0, 0.0)
    return max(low - margin, -margin - high)


def _is_within(result: Paired, margin: float) -> bool:
    interval = result.interval
    return interval is not None and -margin <= interval[0] and interval[1] <= margin


def _blocks(found: Comparison) -> str:
    seeds = _seeds(found)
    if found.num_blocks <= 1 and not found.num_left_out:
        return seeds
    left_out = f", {found.num_left_out} left out" if found.num_left_out else ""
    return f", mean over {plural(found.num_blocks, 'setting')}{left_out}{seeds}"


def _seeds(found: Comparison) -> str:
    return f"; {plural(found.num_seeds_left_out, 'unfinished seed')} left out" if found.num_seeds_left_out else ""


def _no_pairs(scope: str, loss: str) -> Finding:
    detail = f"No seed has finished chains of {loss} at two values of λ and equal settings."
    return finding(scope, paired({}), verdict=INCONCLUSIVE, reading=INCONCLUSIVE, detail=detail, run_ids=())
