"""The rules behind the claims: each makes a function from a results table to findings, one a scope."""

from collections.abc import Callable, Iterable, Iterator
from itertools import pairwise

import polars as pl

from indelible.analysis.arms import plural, settings_text, word
from indelible.analysis.compare import Comparison, compare_at_equal_loss, compare_at_equal_settings
from indelible.analysis.inference import Paired, equivalence_p, paired
from indelible.analysis.verdicts import (
    CONTRADICTED,
    INCONCLUSIVE,
    SUPPORTED,
    Finding,
    Rule,
    finding,
    not_tested,
)

EXPOSURE = ("arm", "exposure_fraction", "exposure_mode", "placement")  # what differs between lambda 0 and more
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
    """``loss`` at the largest lambda is within ``margin`` of that at 0: the whole interval must be inside."""

    def judge_scope(scope: str, rows: pl.DataFrame, fractions: list[float]) -> Finding:
        found = _compare(rows, fractions[0], fractions[-1], loss)
        result, interval = found.result, found.result.interval
        reading = INCONCLUSIVE
        if result.effect is not None:
            reading = SUPPORTED if abs(result.effect) <= margin else CONTRADICTED
        verdict = INCONCLUSIVE
        if interval is not None and -margin <= interval[0] and interval[1] <= margin:
            verdict = SUPPORTED
        elif interval is not None and (interval[0] > margin or interval[1] < -margin):
            verdict = CONTRADICTED
        detail = f"{loss} at λ {fractions[-1]:g} minus λ {fractions[0]:g}, against ±{margin:g} nats{_blocks(found)}."
        both = equivalence_p(result, margin)
        p = None if both is None else both[1 if verdict == CONTRADICTED else 0]
        return finding(scope, result, verdict=verdict, reading=reading, detail=detail, run_ids=found.finetune_ids, p=p)

    return _by_lambda(loss, allocation, 2, judge_scope)


def monotone(loss: str, allocation: str) -> Rule:
    """``loss`` falls at every step of lambda: supported when every step does, contradicted when one rises."""

    def judge_scope(scope: str, rows: pl.DataFrame, fractions: list[float]) -> Finding:
        steps = {(low, high): _compare(rows, low, high, loss) for low, high in pairwise(fractions)}
        steps = {step: found for step, found in steps.items() if found.result.effect is not None}
        if not steps:
            return _no_pairs(scope, loss)
        conclusions = {step: _corrected(found.result, len(steps)) for step, found in steps.items()}
        worst = max(steps, key=lambda step: steps[step].result.effect or 0.0)
        rising = [step for step, found in steps.items() if (found.result.effect or 0.0) > 0]
        verdict = INCONCLUSIVE
        if "higher" in conclusions.values():
            verdict = CONTRADICTED
        elif set(conclusions.values()) == {"lower"}:
            verdict = SUPPORTED
        where = ", ".join(f"{low:g} to {high:g}" for low, high in rising)
        detail = f"Largest step of {loss}: λ {worst[0]:g} to {worst[1]:g}. " + (
            f"It rises at {len(rising)} of {len(steps)} steps (λ {where})." if rising else "It falls at every step."
        )
        result = steps[worst].result
        p = None if result.p is None else min(1.0, result.p * len(steps))
        ids = [run_id for found in steps.values() for run_id in found.finetune_ids]
        return finding(scope, result, verdict=verdict, reading=CONTRADICTED if rising else SUPPORTED,
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
        conclusions = [_corrected(found.result, len(inner)) for found in pair]
        verdict = INCONCLUSIVE
        if conclusions == ["lower", "lower"]:
            verdict = SUPPORTED
        elif all("higher" in (_corrected(to_start[one].result, len(inner)), _corrected(to_end[one].result, len(inner)))
                 for one in known):  # fmt: skip
            verdict = CONTRADICTED
        end = fractions[0] if weaker is pair[0] else fractions[-1]
        result = weaker.result
        reading = SUPPORTED if (result.effect or 0.0) < 0 else CONTRADICTED
        p = None if result.p is None else min(1.0, result.p * len(inner))
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
                      f"{plural(one.num_blocks, 'curve')}, {one.num_left_out} without a common range.")  # fmt: skip
            found.append(finding(scope, one.result, verdict=verdict, reading=reading, detail=detail,
                                 run_ids=one.finetune_ids))  # fmt: skip
        return found or [not_tested(f"No two arms with a swept {' or '.join(word(name) for name in axes)}.")]

    return judge_table


def scopes(
    table: pl.DataFrame, columns: Iterable[str], losses: list[str], num_fractions: int
) -> Iterator[tuple[str, pl.DataFrame, list[float]]]:
    """The parts of a table that a rule judges one by one: name, finished rows, and the swept lambdas.

    Parts with fewer than ``num_fractions`` values of lambda, or without lambda 0, are left out.
    """
    done = table.filter(pl.col("status") == "done").drop_nulls([*losses, "exposure_fraction"])
    names = list(columns)
    for key, rows in done.sort(names).group_by(names, maintain_order=True):
        fractions = sorted(rows["exposure_fraction"].unique().to_list())
        if len(fractions) >= num_fractions and fractions[0] == 0:
            yield settings_text(dict(zip(names, key, strict=True)), names), rows, fractions


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


def _blocks(found: Comparison) -> str:
    if found.num_blocks <= 1 and not found.num_left_out:
        return ""
    left_out = f", {found.num_left_out} left out" if found.num_left_out else ""
    return f", mean over {plural(found.num_blocks, 'setting')}{left_out}"


def _no_pairs(scope: str, loss: str) -> Finding:
    detail = f"No seed has finished chains of {loss} at two values of λ and equal settings."
    return finding(scope, paired({}), verdict=INCONCLUSIVE, reading=INCONCLUSIVE, detail=detail, run_ids=())
