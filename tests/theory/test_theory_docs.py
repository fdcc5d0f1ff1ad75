"""The numbers that docs/theory.md quotes: each sentence is rebuilt from what the code computes and must stand there."""

from functools import cache
from pathlib import Path

import numpy as np
import pytest

from indelible.claims.paper_figures import lambda_curves
from indelible.theory.agreement import compare_flow, compare_full
from indelible.theory.counterexamples import REPAIRED, broken_checks, counterexamples
from indelible.theory.html import facts, greek
from indelible.theory.overview import survey
from indelible.theory.slips import slips
from indelible.theory.tasks import TheorySpec
from indelible.theory.theorems import all_checks, check_no_input_no_change
from indelible.theory.training import run_chain

DOC = (Path(__file__).parents[2] / "docs" / "theory.md").read_text(encoding="utf-8")
SPEC = TheorySpec()


@cache
def retention(spec: TheorySpec) -> dict[str, float]:
    return all_checks(spec)[-1].numbers


def said(sentence: str) -> None:
    """The sentence stands in the document, whatever its line breaks."""
    assert " ".join(sentence.split()) in " ".join(DOC.split()), sentence


def test_default_spec_and_its_stops():
    unmixed, mixed = (run_chain(SPEC, arm).steps[0] for arm in ("unmixed", "mixed"))
    said(
        f"Default spec: n {SPEC.n}, k {SPEC.k}, invariant {SPEC.invariant[0]:g} … {SPEC.invariant[1]:g}, "
        f"σ {SPEC.sigma_pre[0]} / {SPEC.sigma_post[0]} / {SPEC.sigma_ft[0]}, β {SPEC.beta[0]:g}, "
        f"ν {SPEC.post_variance:g}, α {SPEC.alpha}, T {SPEC.T:g}, ρ {SPEC.regularisation}; "
        f"pretraining {unmixed:,} steps unmixed and {mixed} mixed (each at its own rank n − k), "
        f"post-training {SPEC.posttrain_steps}, fine-tuning {SPEC.finetune_steps:,}, η {SPEC.lr}."
    )


def test_what_the_theorem_measures_and_what_early_exposure_protects():
    n = retention(SPEC)
    gap, from_inconsistent = n["Delta unmixed - Delta mixed"], n["the same from the inconsistent features at hand-over"]
    gain, from_special = n["L_ret unmixed - L_ret mixed"], n["the same from the specialised features at hand-over"]
    said(f"Δ gap {gap:.3f} = (6) {from_inconsistent:.3f}; L_ret gain {gain:.2f} = (7) {from_special:.2f}")
    said(f"(L_im {n['L_im unmixed']:.2f} against {n['L_im mixed']:.2f})")


def test_repaired_spec():
    n = retention(REPAIRED)
    c = REPAIRED.sigma_post[0] - max(REPAIRED.sigma_pre[0], REPAIRED.sigma_ft[0])
    said(f"(β {REPAIRED.beta[0]}, c {c:.1f}, ν {REPAIRED.post_variance:g}, α {REPAIRED.alpha})")
    said(
        f"L_im is *worse* with mixing ({n['L_im mixed']:.2f} against {n['L_im unmixed']:.2f}), "
        f"L_ret far better ({n['L_ret mixed']:.2f} against {n['L_ret unmixed']:.2f})"
    )


def test_counterexamples():
    found = counterexamples(SPEC)
    for one in found:
        numbers = f"{one.delta_unmixed:.3f} | {one.delta_mixed:.3f}".replace("-", "−")
        said(f"| {greek(one.dropped)} | {greek(one.change)} | {numbers} | {one.outcome} |")
    by_name = {one.dropped: one for one in found}
    none, long = by_name["long enough a post-training: none at all"], by_name["short post-training"]
    said(f"with no post-training at all the gap is still {none.delta_unmixed - none.delta_mixed:.2f}")
    said(
        f"{long.change.split()[0]} steps: Δ {long.delta_unmixed:.3f} and {long.delta_mixed:.3f}, "
        f"L_ret {long.L_ret_unmixed:.3f} and {long.L_ret_mixed:.3f}"
    )
    end = by_name["stop at rank n - k: pretraining to convergence"]
    said(f"reversed by the regulariser ({end.delta_unmixed:.3f} against {end.delta_mixed:.3f})")
    assert len(broken_checks(SPEC)) == 8
    said("the page lists eight more")


def test_directions_without_input():
    name = "largest change of theta on the specialised directions"
    aligned, identity, sampled = (
        check_no_input_no_change(SPEC, **options).numbers[name]
        for options in ({}, {"start": "identity"}, {"num_samples": 1000})
    )
    assert aligned < 1e-12
    said(f"identity start {identity * 1e4:.1f}·10⁻⁴; 1,000 samples per stage {sampled:.2f}")


def test_formulas_of_the_text():
    update, value, stop, start, exclusion = (slip.numbers for slip in slips(SPEC))
    assert update["error of the derived update, relative to the gradient"] < 1e-9
    said(f"printed {update['error of the printed update']:.1f} (relative to the gradient)")
    said(f"converges to {value['measured']:.3f} (β = {value['beta']:g}, αβ = {value['alpha beta']:g})")
    said(f"share learned at convergence {stop['share of the inconsistent features learned at convergence']:.3f}")
    aligned, identity = start["Delta unmixed - mixed, aligned"], start["Delta unmixed - mixed, identity"]
    said(f"Δ gap {aligned:.2f} aligned, {identity:.2f} identity")
    said(
        f"{exclusion['meet both']:.0f} of {exclusion['random tasks']:,.0f} random tasks "
        f"({exclusion['meet C.4']:,.0f} meet C.4, {exclusion['meet C.6']:,.0f} meet C.6)"
    )
    said(f"{exclusion['meet both with nu in [1, 10]']:,.0f} of the same 400,000 tasks meet both")


def test_solvers():
    relative, absolute, _ = compare_full(SPEC)
    assert relative < 1e-10
    assert absolute < 1e-15
    errors, extrapolated = compare_flow(SPEC)
    said(", ".join(f"{100 * error:.1f} %" for error in errors[:3]) + ", … at η, η/2, η/4, …")
    assert extrapolated < 1e-9


def test_prediction_1_on_the_figures_of_the_paper():
    curves = lambda_curves().pivot("loss", index=["panel", "post_tokens", "exposure_fraction"], values="value")
    best: dict[tuple[str, str], list[str]] = {}
    for panel in ("a", "b"):
        for size in (30_000_000, 150_000_000, 300_000_000):
            rows = [row for row in curves.to_dicts() if (row["panel"], row["post_tokens"]) == (panel, size)]
            by_ret = min(rows, key=lambda row: row["L_ret"])
            by_delta = min(rows, key=lambda row: row["L_ret"] - row["L_im"])
            best.setdefault((panel, "L_ret"), []).append(f"{by_ret['exposure_fraction']:g}")
            best.setdefault((panel, "delta"), []).append(f"{by_delta['exposure_fraction']:g}")
            ends = {row["exposure_fraction"]: row["L_ret"] - row["L_im"] for row in rows}
            assert ends[1.0] < ends[0.0]  # "Δ falls with λ in both panels"
    said(f"| 3a, full | flat | {', '.join(best['a', 'L_ret'])} | {', '.join(best['a', 'delta'])} |")
    said(f"| 3b, matched | rises with λ | {', '.join(best['b', 'L_ret'])} | {', '.join(best['b', 'delta'])} |")


@pytest.mark.slow
def test_maps_allocation_and_samples():
    result = survey(SPEC)
    found = facts(result)
    said(f"The Δ inequality holds in {found['ordered_delta_share']:.0f} % of the cells with ανβ > m and in none of")
    assert found["unordered_delta_share"] == 0
    said(f"holds nowhere on the map by more than {found['equal_time_delta_most']:.3f}")
    said(f"inside its window ({found['equal_time_ret_share']:.0f} % of the cells), and is negative nowhere")
    assert found["equal_time_ret_harm"] == 0
    said(f"with ρ = 0 no cell of the map is interior, with ρ = 0.1 {found['interior_share']:.0f} % of those")
    assert found["interior_share_free"] == 0
    kept = [float(row["L_ret"]) for row in result.tables["samples"] if row["arm"] == "mixed"]
    said(
        f"With 1,000 samples the Δ gap is {found['gap_few_samples']:.1f} (mean of five seeds) instead of 6.4, and "
        f"{found['gap_many_samples']:.1f} at 100,000; the mixed run's L_ret stays between {np.min(kept):.2f} and "
        f"{np.max(kept):.2f} from 100 samples on"
    )
    assert max(result.map_errors.alpha_beta, result.map_errors.times) < 1e-12
    assert result.map_errors.allocation_limit < 1e-7
    said(f"up to {100 * result.map_errors.allocation_at_lr:.1f} % from full matrices at η/2")
