"""The rules behind the claims: each makes a function from a results table to evidence, one a scope."""

from collections.abc import Callable
from itertools import pairwise

import polars as pl

from indelible.claims.evidence import (
    CONTRADICTED,
    INCONCLUSIVE,
    SUPPORTED,
    Evidence,
    Part,
    directed,
    face_value,
    not_tested,
)
from indelible.claims.scopes import scopes
from indelible.claims.verdicts import Rule
from indelible.results.labels import differing_columns, plural, word
from indelible.statistics.compare import Comparison, compare_at_equal_loss, compare_at_equal_settings
from indelible.statistics.inference import Inference, equivalence_p, paired

_SCOPE = ("scale", "pipeline", "post_tokens")
_COMMON_ARM = 0.5  # correlation of two differences that have one of their arms in common; of their squares 0.25
_JudgeScope = Callable[[str, pl.DataFrame, list[float], Inference], Evidence]


def ends(loss: str, allocation: str, direction: str) -> Rule:
    """``loss`` is ``lower`` or ``higher`` at the largest lambda than at 0."""

    def judge_scope(scope: str, rows: pl.DataFrame, fractions: list[float], inference: Inference) -> Evidence:
        found = _compare(rows, fractions[0], fractions[-1], loss, inference)
        detail = f"{loss} at λ {fractions[-1]:g} minus λ {fractions[0]:g}{_blocks(found)}."
        return directed(scope, found.result, direction, detail, found.finetune_ids)

    return _by_lambda(loss, allocation, 2, judge_scope)


def forgetting(allocation: str) -> Rule:
    """L_ret minus L_im, what the last stage erases, is lower at the largest lambda than at 0."""
    rule = ends("erased", allocation, "lower")

    def judge_table(table: pl.DataFrame, inference: Inference) -> list[Evidence]:
        return rule(table.with_columns(erased=pl.col("L_ret") - pl.col("L_im")), inference)

    return judge_table


def flat(loss: str, allocation: str) -> Rule:
    """``loss`` at every lambda is within the margin (`Inference.flat_margin`) of that at 0: each whole interval is.

    All must be inside, so no correction is due for support; one outside contradicts, and is Bonferroni-corrected.
    """

    def judge_scope(scope: str, rows: pl.DataFrame, fractions: list[float], inference: Inference) -> Evidence:
        margin = inference.flat_margin
        found = {one: _compare(rows, fractions[0], one, loss, inference) for one in fractions[1:]}
        known = {one: compared for one, compared in found.items() if compared.result.effect is not None}
        if not known:
            return _no_pairs(scope, loss)
        both = {one: equivalence_p(compared.result, margin) or (None, None) for one, compared in known.items()}
        farthest = max(known, key=lambda one: abs(known[one].result.effect or 0.0))
        # With one seed there is no p: then both sides show the mean that lies farthest out.
        weakest = max(known, key=lambda one: (_or_one(both[one][0]), one == farthest))
        outermost = min(known, key=lambda one: (_or_one(both[one][1]), one != farthest))
        is_out = abs(known[farthest].result.effect or 0.0) > margin

        def part(fraction: float, p: float | None, num_looks: int, num_parts: int) -> Part:
            among = f", which decides among {plural(len(known), 'λ')}" if len(known) > 1 else ""
            where = f"{loss} at λ {fraction:g} minus λ {fractions[0]:g}{among}"
            detail = f"{where}, against ±{margin:g} nats{_blocks(known[fraction])}."
            return Part(known[fraction].result, p, detail, num_looks, num_parts, _COMMON_ARM**2, margin)

        # Two chains that both diverged do not differ, and are no evidence that exposure leaves L_im as it is.
        is_whole = len(known) == len(found) and not any(one.num_diverged for one in known.values())
        p_inside = both[weakest][0]
        support = part(weakest, p_inside if is_whole or p_inside is None else 1.0, 1, len(known))
        against = part(outermost, both[outermost][1], len(known), 1)
        ids = [run_id for one in known.values() for run_id in one.finetune_ids]
        reading = CONTRADICTED if is_out else SUPPORTED
        return Evidence(scope, support, against, reading, tuple(ids), is_against=is_out)

    return _by_lambda(loss, allocation, 2, judge_scope)


def monotone(loss: str, allocation: str, direction: str = "lower") -> Rule:
    """``loss`` goes ``lower`` (or ``higher``) at every step of lambda.

    Supported when every step is found to: all must hold, so no correction is due. Contradicted when one step is found
    to go the other way, Bonferroni-corrected over the steps.
    """
    sign = 1 if direction == "lower" else -1
    verbs = ("falls", "rises") if direction == "lower" else ("rises", "falls")

    def judge_scope(scope: str, rows: pl.DataFrame, fractions: list[float], inference: Inference) -> Evidence:
        asked = list(pairwise(fractions))
        steps = {(low, high): _compare(rows, low, high, loss, inference) for low, high in asked}
        steps = {step: found for step, found in steps.items() if found.result.effect is not None}
        if not steps:
            return _no_pairs(scope, loss)
        wrong = [step for step in asked if step in steps and sign * (steps[step].result.effect or 0.0) > 0]
        where = ", ".join(f"{low:g} to {high:g}" for low, high in wrong)
        summary = (f"It {verbs[1]} at {len(wrong)} of {len(steps)} steps (λ {where})."
                   if wrong else f"It {verbs[0]} at every step.")  # fmt: skip
        p_for = {step: _one_way(found, -sign) for step, found in steps.items()}
        p_against = {step: _one_way(found, sign) for step, found in steps.items()}

        def part(step: tuple[float, float], p: float | None, num_looks: int, num_parts: int) -> Part:
            detail = f"Step of {loss} most against the claim: λ {step[0]:g} to {step[1]:g}. {summary}"
            return Part(steps[step].result, p, detail, num_looks, num_parts)

        farthest = max(steps, key=lambda step: sign * (steps[step].result.effect or 0.0))
        weakest = max(steps, key=lambda step: (_or_one(p_for[step]), step == farthest))
        surest = min(steps, key=lambda step: (_or_one(p_against[step]), step != farthest))
        is_whole = len(steps) == len(asked) and None not in p_for.values()
        support = part(weakest, p_for[weakest] if is_whole or p_for[weakest] is None else 1.0, 1, len(steps))
        against = part(surest, p_against[surest], len(steps), 1)
        ids = [run_id for found in steps.values() for run_id in found.finetune_ids]
        return Evidence(scope, support, against, CONTRADICTED if wrong else SUPPORTED, tuple(ids),
                        is_against=bool(wrong))  # fmt: skip

    return _by_lambda(loss, allocation, 3, judge_scope)


def interior(loss: str, allocation: str) -> Rule:
    """``loss`` is lowest strictly between the ends of lambda: the best inner lambda beats both ends.

    Supported when one inner lambda is found below both ends, Bonferroni-corrected over the inner ones. Contradicted
    when every inner lambda is found above an end, Bonferroni-corrected over the two ends.
    """

    def judge_scope(scope: str, rows: pl.DataFrame, fractions: list[float], inference: Inference) -> Evidence:
        inner, borders = fractions[1:-1], (fractions[0], fractions[-1])
        to = {one: [_compare(rows, end, one, loss, inference) for end in borders] for one in inner}
        known = [one for one in inner if all(found.result.effect is not None for found in to[one])]
        if not known:
            return _no_pairs(scope, loss)

        def part(one: float, number: int, p: float | None, num_looks: int, num_parts: int) -> Part:
            detail = (
                f"Inner λ {one:g}: {loss} there minus that at λ {borders[number]:g}; {plural(len(inner), 'inner λ')}."
            )
            return Part(to[one][number].result, p, detail, num_looks, num_parts, _COMMON_ARM)

        def lead(one: float) -> float:
            return max(found.result.effect or 0.0 for found in to[one])

        below = {one: [_one_way(found, -1) for found in to[one]] for one in known}
        above = {one: [_one_way(found, 1) for found in to[one]] for one in known}
        best = min(known, key=lambda one: (max(map(_or_one, below[one])), lead(one)))
        weaker = max((0, 1), key=lambda end: (_or_one(below[best][end]), to[best][end].result.effect or 0.0))
        support = part(best, weaker, below[best][weaker], len(inner), 2)
        lowest = max(known, key=lambda one: (min(map(_or_one, above[one])), -lead(one)))
        nearer = min((0, 1), key=lambda end: (_or_one(above[lowest][end]), -(to[lowest][end].result.effect or 0.0)))
        p_above = above[lowest][nearer]
        is_whole = len(known) == len(inner)
        against = part(lowest, nearer, p_above if is_whole or p_above is None else 1.0, 2, len(inner))
        is_as_claimed = lead(min(known, key=lead)) < 0
        ids = [run_id for found in to[best] for run_id in found.finetune_ids]
        reading = face_value(to[best][weaker].result, is_as_claimed=is_as_claimed)
        return Evidence(scope, support, against, reading, tuple(ids), is_against=not is_as_claimed)

    return _by_lambda(loss, allocation, 3, judge_scope)


def at_equal_loss(equal: str, loss: str, axes: tuple[str, ...]) -> Rule:
    """At the same ``equal`` loss the largest lambda has the lower ``loss``; curves run along the first swept axis."""

    def judge_table(table: pl.DataFrame, inference: Inference) -> list[Evidence]:
        found = []
        parts = scopes(table, ("scale", "pipeline", "allocation"), [equal, loss], 2, worst_loss=inference.worst_loss)
        for scope, rows, fractions in parts:
            axis = next((name for name in axes if rows[name].drop_nulls().n_unique() >= 2), None)
            if axis is None:
                continue
            low, high = (pl.col("exposure_fraction") == fraction for fraction in (fractions[0], fractions[-1]))
            one = compare_at_equal_loss(
                rows, low, high, differing_columns(rows), equal=equal, loss=loss, axis=axis, inference=inference
            )
            if one.result.effect is None:
                continue
            detail = (f"{loss} at λ {fractions[-1]:g} minus λ {fractions[0]:g} at equal {equal}, along {word(axis)}; "
                      f"{plural(one.num_blocks, 'curve')}, {one.num_left_out} without a common range"
                      f"{_seeds(one)}{_diverged(one.num_diverged)}.")  # fmt: skip
            found.append(directed(scope, one.result, "lower", detail, one.finetune_ids))
        return found or [not_tested(f"No two arms with a swept {' or '.join(word(name) for name in axes)}.")]

    return judge_table


def _by_lambda(loss: str, allocation: str, num_fractions: int, judge_scope: _JudgeScope) -> Rule:
    def judge_table(table: pl.DataFrame, inference: Inference) -> list[Evidence]:
        rows = table.filter(pl.col("allocation") == allocation)
        parts = scopes(rows, _SCOPE, [loss], num_fractions, worst_loss=inference.worst_loss)
        found = [judge_scope(*scope, inference) for scope in parts]
        what = f"λ 0 and {plural(num_fractions - 1, 'other value')} of λ with finished chains, allocation {allocation}"
        return found or [not_tested(f"Needs {what}.")]

    return judge_table


def _compare(rows: pl.DataFrame, low: float, high: float, loss: str, inference: Inference) -> Comparison:
    fraction = pl.col("exposure_fraction")
    arms = (fraction == low, fraction == high)
    return compare_at_equal_settings(rows, *arms, loss, differing_columns(rows), inference)


def _one_way(found: Comparison, sign: int) -> float | None:
    """p of being found on the side of ``sign`` (the two-sided one: the stricter); None with one seed."""
    p, effect = found.result.p, found.result.effect
    if p is None or effect is None:
        return None
    return p if effect * sign > 0 else 1.0


def _or_one(p: float | None) -> float:
    return 1.0 if p is None else p


def _blocks(found: Comparison) -> str:
    seeds = _seeds(found) + _diverged(found.num_diverged)
    if found.num_blocks <= 1 and not found.num_left_out:
        return seeds
    left_out = f", {found.num_left_out} left out" if found.num_left_out else ""
    return f", mean over {plural(found.num_blocks, 'setting')}{left_out}{seeds}"


def _seeds(found: Comparison) -> str:
    return f"; {plural(found.num_seeds_left_out, 'unfinished seed')} left out" if found.num_seeds_left_out else ""


def _diverged(count: int) -> str:
    return f"; {plural(count, 'diverged chain')} counted as the worst loss" if count else ""


def _no_pairs(scope: str, loss: str) -> Evidence:
    detail = f"No seed has finished chains of {loss} at two values of λ and equal settings."
    nothing = Part(paired({}), None, detail)
    return Evidence(scope, nothing, nothing, INCONCLUSIVE, ())
