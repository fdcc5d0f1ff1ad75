"""The rules over made-up studies with a known answer, and over the paper's own values."""

import re

import polars as pl
import pytest
from fake_study import FakeStudy, write_fake_study
from scipy import stats

from indelible.claims.paper_claims import CLAIMS, paper_verdicts, study_verdicts
from indelible.claims.rules import ends, flat, interior, monotone
from indelible.claims.verdicts import VERDICTS, family, judge
from indelible.results.table import read_table
from indelible.statistics.inference import FLAT_MARGIN, Inference, holm
from indelible.statistics.planning import detectable_effect, new_seeds, part_power


def table_of(tmp_path, **settings):
    settings = {"fractions": (0.0, 0.25, 0.5, 1.0), "is_traced": False, "noise": 0.002, "seeds": range(5)} | settings
    return read_table(write_fake_study(tmp_path, FakeStudy(**settings)))


def judged(rule, table, **settings):
    """The findings of one rule, each by itself."""
    inference = Inference(**settings)
    return family(rule(table, inference), inference, is_corrected=False)


def by_claim(verdicts):
    found = {}
    for verdict in verdicts:
        found.setdefault(verdict.claim, []).append(verdict.finding)
    return found


# ---- studies with a known answer


def test_a_study_with_the_effect(tmp_path):
    found = by_claim(study_verdicts(table_of(tmp_path)))
    assert set(found) == {claim.name for claim in CLAIMS}
    for claim in ("retained-lower", "less-erased", "retained-falls-steadily", "hand-over-flat"):
        assert [one.verdict for one in found[claim]] == ["supported", "supported"]  # one for each |D_post|
    assert [one.verdict for one in found["frontier-retained"]] == ["supported", "supported"]
    assert [one.verdict for one in found["equal-ft"]] == ["supported"]
    assert [one.verdict for one in found["equal-im"]] == ["supported"]
    for claim in ("matched-best-inside", "mixing-helps-lora", "replay-adds-ft"):
        assert [one.verdict for one in found[claim]] == ["not tested"]
    one = found["retained-lower"][0]
    assert one.scope == "pico · general>music>chemistry · |D_post| 10k"
    assert one.low < one.effect < one.high < 0
    assert one.num_seeds == 5
    assert abs(one.effect) > one.detectable
    assert one.num_same_sign == 5
    assert len(one.run_ids) == 2 * 3 * 5


def test_a_study_with_the_opposite_effect(tmp_path):
    found = by_claim(study_verdicts(table_of(tmp_path, benefit=-0.4)))
    for claim in ("retained-lower", "less-erased", "retained-falls-steadily", "frontier-retained", "equal-ft"):
        assert {one.verdict for one in found[claim]} == {"contradicted"}


def test_noise_above_the_effect_is_inconclusive(tmp_path):
    found = by_claim(study_verdicts(table_of(tmp_path, benefit=0.01, noise=0.05, seeds=range(3))))
    for claim in ("retained-lower", "retained-falls-steadily", "frontier-retained"):
        assert {one.verdict for one in found[claim]} == {"inconclusive"}


def test_what_is_left_open_says_how_many_new_seeds_would_settle_it(tmp_path):
    verdicts = study_verdicts(table_of(tmp_path, benefit=0.03, noise=0.05, seeds=range(3)), is_corrected=False)
    found = by_claim(verdicts)
    assert all((one.finding.new_seeds is None) == (one.finding.verdict != "inconclusive")
               for one in verdicts if one.finding.verdict != "not tested")  # fmt: skip
    directed = [one for name in ("retained-lower", "less-erased", "frontier-general") for one in found[name]]
    one = next(one for one in directed if one.verdict == "inconclusive")
    assert one.new_seeds == new_seeds(abs(one.effect), one.detectable / detectable_effect(1.0, 3), 3)
    assert one.new_seeds.low >= 1
    for one in found["hand-over-flat"]:  # its distance is that from the margin, all λ must hold, each with more power
        level, power = (0.05, part_power(0.8, 3, 0.25)) if abs(one.effect) < 0.03 else (0.05 / 3, 0.8)
        sd = (one.high - one.low) / 2 / float(stats.t.ppf(1 - level / 2, 2)) * 3**0.5
        assert one.new_seeds == new_seeds(abs(0.03 - abs(one.effect)), sd, 3, level, power)


def test_one_seed_is_inconclusive_whatever_it_shows(tmp_path):
    verdicts = study_verdicts(table_of(tmp_path, seeds=(0,)))
    found = by_claim(verdicts)
    assert {one.finding.verdict for one in verdicts} == {"inconclusive", "not tested"}
    assert {one.reading for one in found["retained-lower"]} == {"supported"}
    assert all(one.finding.low is None and one.finding.detectable is None for one in verdicts)


def test_compute_matched_claims(tmp_path):
    found = by_claim(study_verdicts(table_of(tmp_path, allocation="matched")))
    assert {one.verdict for one in found["matched-hand-over-higher"]} == {"supported"}
    assert {one.verdict for one in found["retained-lower"]} == {"not tested"}


def test_series_of_other_treatments(tmp_path):
    table = table_of(
        tmp_path, dropouts=(0.0, 0.05), replays=(0.0, 0.01), methods=("full", "lora"), fractions=(0.0, 1.0)
    )
    found = by_claim(study_verdicts(table))
    assert {one.verdict for one in found["mixing-helps-lora"]} == {"supported"}
    assert {one.verdict for one in found["mixing-beats-dropout"]} == {"supported"}
    assert all(one.verdict != "not tested" for name in ("dropout-adds-ft", "replay-adds-ft") for one in found[name])


def test_the_findings_of_a_claim_share_the_level(tmp_path):
    table = table_of(tmp_path, noise=0.008, seeds=range(4), benefit=0.15)
    alone, shared = study_verdicts(table, is_corrected=False), study_verdicts(table)
    counts = [sum(one.finding.verdict == "supported" for one in verdicts) for verdicts in (alone, shared)]
    assert counts[1] < counts[0]
    for claim, group in by_claim(shared).items():
        p_values = [one.p for one in group if one.p is not None]
        for one, adjusted in zip((one for one in group if one.p is not None), holm(p_values), strict=True):
            assert (one.verdict != "inconclusive") == (adjusted <= 0.05), claim
            assert one.family_size == len(set(p_values))


def test_the_interval_in_the_line_is_the_one_that_decides(tmp_path):
    tables = [table_of(tmp_path / str(n), noise=0.02, seeds=range(3 + n), benefit=0.03 * n) for n in range(4)]
    flat_one = table_of(tmp_path / "flat", noise=0.002, benefit=0.01)
    seen = set()
    for table in [*tables, flat_one, flat_one.with_columns(L_im=pl.col("L_im") + 0.1 * pl.col("exposure_fraction"))]:
        for one in (verdict.finding for verdict in study_verdicts(table)):
            if one.p is None:
                continue
            is_inside = one.low >= -FLAT_MARGIN and one.high <= FLAT_MARGIN
            is_outside = one.low > FLAT_MARGIN or one.high < -FLAT_MARGIN
            is_settled = (is_inside or is_outside) if one.is_margin else not one.low <= 0 <= one.high
            assert is_settled == (one.verdict != "inconclusive"), one
            seen.add((one.is_margin, one.verdict))
    assert len(seen) == 2 * 3


def test_the_same_numbers_are_one_hypothesis():
    """Two pipelines that differ in stage 3 have the same L_im: the claim about it is not made twice."""
    table = curve([2.0, 1.995, 2.0])
    twice = pl.concat([table, table.with_columns(pipeline=pl.lit("a>b>d"))])
    once = family(flat("L_ret", "full")(table, Inference()), Inference())
    both = family(flat("L_ret", "full")(twice, Inference()), Inference())
    assert [one.family_size for one in both] == [1, 1]
    assert {one.level for one in both} == {once[0].level} == {0.05}


def test_a_family_keeps_what_is_clear(tmp_path):
    table = table_of(tmp_path, noise=0.0005, seeds=range(6))
    for claim in by_claim(study_verdicts(table)).items():
        if claim[0] in ("hand-over-flat", "retained-lower", "frontier-retained", "less-erased"):
            assert {one.verdict for one in claim[1]} == {"supported"}


def test_level_and_margin_are_the_studys(tmp_path):
    table = curve([2.0, 1.995, 2.02])
    assert judged(flat("L_ret", "full"), table)[0].verdict == "supported"
    assert judged(flat("L_ret", "full"), table, flat_margin=0.01)[0].verdict == "contradicted"
    weak = curve([2.0, 1.9999, 1.9998])
    p = judged(ends("L_ret", "full", "lower"), weak)[0].p
    for level, verdict in ((p * 1.01, "supported"), (p * 0.99, "inconclusive")):
        assert judged(ends("L_ret", "full", "lower"), weak, level=level)[0].verdict == verdict


def test_a_mean_within_its_standard_error_reads_as_nothing(tmp_path):
    found = by_claim(study_verdicts(table_of(tmp_path, benefit=0.0, noise=0.05)))
    for one in found["retained-lower"]:
        sd = (one.high - one.low) / 2 / float(stats.t.ppf(0.5 + one.confidence / 2, 4)) * 5**0.5
        assert (one.reading == "inconclusive") == (abs(one.effect) < sd / 5**0.5)


def test_frontiers_that_cross_read_as_mixed_and_are_decided_by_their_score(tmp_path):
    table = table_of(
        tmp_path, fractions=(0.0, 1.0), noise=0.0005, seeds=range(6), finetune_lrs=(1e-4, 3e-4, 1e-3, 3e-3),
        post_tokens=(10_000,),
    )  # fmt: skip
    is_mixed, is_hot = pl.col("exposure_fraction") == 1, pl.col("finetune_lr") >= 1e-3
    for worse, shift, verdict in ((is_mixed & is_hot, 0.45, "supported"), (is_mixed & ~is_hot, 0.8, "contradicted")):
        crossed = table.with_columns(pl.when(worse).then(pl.col("L_ret") + shift).otherwise("L_ret").alias("L_ret"))
        (found,) = by_claim(study_verdicts(crossed))["frontier-retained"]
        assert (found.verdict, found.reading) == (verdict, "mixed")
        assert re.fullmatch(r"mixed is drawn (above|below) unmixed on \d+% of the common range", found.reason)
    (found,) = by_claim(study_verdicts(table))["frontier-retained"]
    assert (found.verdict, found.reading, found.reason) == ("supported", "supported", "")


def test_a_frontier_with_unequal_numbers_of_chains_is_the_best_of_as_many(tmp_path):
    table = table_of(tmp_path, fractions=(0.0, 1.0), dropouts=(0.0, 0.01, 0.05), post_tokens=(10_000,))
    (found,) = by_claim(study_verdicts(table))["dropout-adds-ft"]
    assert "the best of 3 of 6 against the best of 3 of 3" in found.detail
    (equal,) = by_claim(study_verdicts(table))["frontier-retained"]
    assert "the best of" not in equal.detail


def curve(values):
    """A table whose L_ret over lambda is ``values`` (nearly) at each of five seeds."""
    rows = [
        {"status": "done", "seed": seed, "scale": "pico", "pipeline": "a>b>c", "post_tokens": 1, "allocation": "full",
         "exposure_fraction": number / (len(values) - 1), "L_ret": value + 0.1 * seed + 1e-4 * ((seed + number) % 3),
         "posttrain_global_batch_size": 1, "L_im": value, "finetune_id": f"f-{seed}-{number}", "arm": "",
         "exposure_mode": "add", "placement": "uniform"}
        for seed in range(5) for number, value in enumerate(values)
    ]  # fmt: skip
    names = ["posttrain_global_batch_size", "L_im"]
    frame = pl.DataFrame(rows)
    return frame.select(*[name for name in frame.columns if name not in names], *names)


@pytest.mark.parametrize(
    ("values", "steady", "inside"),
    [
        ([2.0, 1.8, 1.6, 1.4], "supported", "contradicted"),
        ([2.0, 1.6, 1.5, 1.8], "contradicted", "supported"),
        ([1.4, 1.6, 1.8, 2.0], "contradicted", "contradicted"),
        ([2.0, 1.5, 1.5, 1.5], "inconclusive", "inconclusive"),
    ],
)
def test_shapes_over_lambda(values, steady, inside):
    table = curve(values)
    assert judged(monotone("L_ret", "full"), table)[0].verdict == steady
    assert judged(interior("L_ret", "full"), table)[0].verdict == inside


@pytest.mark.parametrize(
    ("values", "verdict", "effect"),
    [
        ([2.0, 1.995, 2.01], "supported", 0.01),
        ([2.0, 1.995, 2.1], "contradicted", 0.1),
        ([2.0, 1.995, 2.03], "inconclusive", 0.03),
        ([2.0, 1.9, 2.0], "contradicted", -0.1),  # between the ends, too
    ],
)
def test_flat_needs_the_whole_interval_of_every_lambda_within_the_margin(values, verdict, effect):
    found = judged(flat("L_ret", "full"), curve(values))[0]
    assert found.verdict == verdict
    assert found.effect == pytest.approx(effect, abs=2e-4)
    assert (found.p <= 0.05) == (verdict != "inconclusive")


def test_a_claim_on_every_step_is_no_surer_than_its_weakest_step():
    found = judged(monotone("L_ret", "full"), curve([2.0, 1.5, 1.5, 1.0]))[0]
    assert found.verdict == "inconclusive"
    assert found.p > 0.05
    rising = judged(monotone("L_ret", "full", "higher"), curve([1.0, 1.2, 1.3]))[0]
    assert (rising.verdict, rising.p <= 0.05) == ("supported", True)
    assert judged(monotone("L_ret", "full", "higher"), curve([1.0, 1.2, 1.1]))[0].verdict == "contradicted"


def test_a_step_without_pairs_is_not_passed_over():
    alone = curve([2.0, 1.5, 1.0]).with_columns(
        pl.when(pl.col("exposure_fraction") == 1).then(pl.col("seed") + 9).otherwise("seed").alias("seed")
    )
    found = judged(monotone("L_ret", "full"), alone)[0]
    assert (found.verdict, found.reading) == ("inconclusive", "supported")


def test_an_arm_that_sweeps_lambda_is_judged_by_itself():
    falling, rising = curve([2.0, 1.8, 1.6]), curve([1.6, 1.8, 2.0])
    both = pl.concat([falling.with_columns(arm=pl.lit("a")), rising.with_columns(arm=pl.lit("b"), seed="seed")])
    found = judged(ends("L_ret", "full", "lower"), both)
    assert [(one.scope.split(" · ")[0], one.verdict) for one in found] == [("a", "supported"), ("b", "contradicted")]
    hand_picked = falling.with_columns(arm=pl.format("x{}", pl.col("exposure_fraction")))
    assert [one.verdict for one in judged(ends("L_ret", "full", "lower"), hand_picked)] == ["supported"]


def test_ways_of_exposure_are_judged_apart_and_repeats_not_at_all():
    table = curve([2.0, 1.8, 1.6])
    early = table.filter(pl.col("exposure_fraction") > 0).with_columns(
        placement=pl.lit("early"), L_ret=pl.col("L_ret") + 1
    )
    found = judged(ends("L_ret", "full", "lower"), pl.concat([table, early]))
    assert [(one.scope.split(" · ")[-1], one.verdict) for one in found] == [
        ("early", "contradicted"), ("uniform", "supported"),
    ]  # fmt: skip
    repeats = table.with_columns(exposure_fraction=pl.col("exposure_fraction") * 4)
    assert [one.verdict for one in judged(ends("L_ret", "full", "lower"), repeats)] == ["not tested"]


def test_a_frontier_gains_nothing_from_chains_that_the_other_arm_still_lacks(tmp_path):
    table = table_of(tmp_path, fractions=(0.0, 1.0), posttrain_lrs=(1e-3, 1e-1), seeds=range(4), benefit=0.0,
                     post_tokens=(100_000,))  # fmt: skip
    best = (pl.col("exposure_fraction") == 0) & (pl.col("posttrain_lr") == 1e-3)
    status = pl.when(best).then(pl.lit("{}")).otherwise("status")

    def judged(word):
        changed = table.with_columns(pl.when(status == "{}").then(pl.lit(word)).otherwise(status).alias("status"))
        return by_claim(study_verdicts(changed))["frontier-retained"][0]

    assert judged("incomplete").effect == pytest.approx(judged("done").effect, abs=0.02)
    assert judged("diverged").effect < judged("done").effect - 0.03  # that an arm diverges is a result


def test_a_single_point_that_beats_a_whole_frontier_is_no_empty_comparison(tmp_path):
    table = table_of(tmp_path, fractions=(0.0, 1.0), post_tokens=(10_000,))
    is_mixed = pl.col("exposure_fraction") == 1
    table = table.with_columns(
        L_pre=pl.when(is_mixed).then(pl.col("L_ret")).otherwise(pl.lit(20.0) - pl.col("L_ret")),
        L_ret=pl.when(is_mixed).then(pl.col("L_ret")).otherwise(pl.col("L_ret") + 50),
    )
    (found,) = by_claim(study_verdicts(table))["frontier-general"]
    assert (found.verdict, found.num_seeds) == ("supported", 5)
    assert found.effect < -1
    assert found.detail.endswith("The drawn hulls share no range.")


def test_frontiers_of_different_seeds_are_not_compared(tmp_path):
    table = table_of(tmp_path, fractions=(0.0, 1.0), post_tokens=(10_000,))
    table = table.filter((pl.col("exposure_fraction") == 1) == (pl.col("seed") >= 2))
    (found,) = by_claim(study_verdicts(table))["frontier-general"]
    assert (found.verdict, found.num_seeds) == ("inconclusive", 0)
    assert found.detail == "No seed has finished chains of both mixed and unmixed."


def test_no_claim_is_judged_twice_or_named_twice():
    names = [claim.name for claim in CLAIMS]
    assert len(set(names)) == len(names)
    assert all(re.fullmatch(r"[a-z-]+", name) for name in names)
    assert all(claim.text.endswith(".") and claim.source for claim in CLAIMS)


def test_verdicts_have_the_same_bits_in_whatever_order_the_rows_come(tmp_path):
    table = table_of(tmp_path, posttrain_lrs=(5e-4, 1e-3, 2e-3), methods=("full", "lora"), dropouts=(0.0, 0.05))
    numbers = [numbers_of(table.sample(fraction=1, shuffle=True, seed=seed)) for seed in range(3)]
    assert sum(one[3] is not None for one in numbers[0]) > 10  # findings with an effect
    assert numbers[0] == numbers[1] == numbers[2] == numbers_of(table)


def numbers_of(table):
    found = [(one.claim, one.finding) for one in study_verdicts(table)]
    return [(claim, f.scope, f.verdict, f.effect, f.low, f.high, f.detectable, sorted(f.run_ids)) for claim, f in found]


def test_an_empty_table_tests_nothing(tmp_path):
    table = table_of(tmp_path, seeds=(0,)).clear()
    assert {one.finding.verdict for one in study_verdicts(table)} == {"not tested"}
    assert judge([], table) == []


# ---- the paper's own values


@pytest.fixture(scope="module")
def paper():
    return {(one.claim, one.finding.scope): one.finding for one in paper_verdicts()}


FIGURE_3 = "135m · C4>MusicPile>ChemPile · |D_post| {}M"


@pytest.mark.parametrize(
    ("claim", "scope", "verdict"),
    [
        ("matched-retained-falls-steadily", FIGURE_3.format(30), "contradicted"),
        ("matched-retained-falls-steadily", FIGURE_3.format(150), "contradicted"),
        ("matched-retained-falls-steadily", FIGURE_3.format(300), "contradicted"),
        ("matched-hand-over-rises-steadily", FIGURE_3.format(30), "contradicted"),
        ("matched-hand-over-rises-steadily", FIGURE_3.format(300), "supported"),
        ("matched-retained-lower", FIGURE_3.format(30), "contradicted"),
        ("matched-retained-lower", FIGURE_3.format(150), "contradicted"),
        ("matched-retained-lower", FIGURE_3.format(300), "supported"),
        ("matched-best-inside", FIGURE_3.format(30), "supported"),
        ("matched-best-inside", FIGURE_3.format(150), "supported"),
        ("matched-best-inside", FIGURE_3.format(300), "supported"),
        ("retained-falls-steadily", FIGURE_3.format(30), "contradicted"),
        ("retained-falls-steadily", FIGURE_3.format(150), "supported"),
        ("retained-falls-steadily", FIGURE_3.format(300), "supported"),
        ("hand-over-flat", FIGURE_3.format(30), "supported"),
        ("hand-over-flat", FIGURE_3.format(300), "supported"),
        ("frontier-retained", "135m · C4>MusicPile>ChemPile", "supported"),
        ("frontier-retained", "135m · C4>MusicPile>FLAN", "supported"),
        ("frontier-retained", "135m · C4>FLAN>ChemPile", "supported"),
        ("frontier-retained", "135m · C4>FLAN>MusicPile", "supported"),
        ("frontier-retained", "1b · C4>FLAN>ChemPile", "contradicted"),  # Figure 9 left
        ("replay-adds-general", "135m · C4>MusicPile>ChemPile", "contradicted"),  # Figure 5a right
        ("mixing-beats-replay", "135m · C4>MusicPile>FLAN", "contradicted"),  # Figure 6b right
        ("mixing-beats-dropout", "1b · C4>MusicPile>FLAN", "contradicted"),  # Figure 12
    ],
)
def test_the_papers_values_against_its_claims(paper, claim, scope, verdict):
    assert paper[claim, scope].verdict == verdict


def numbers(text):
    return [float(number) for number in re.findall(r"[-+]\d+\.\d+", text)]


def test_the_size_of_the_papers_contradictions(paper):
    steps = paper["retained-falls-steadily", FIGURE_3.format(30)]
    assert "λ 0.5 to 0.75, 0.75 to 1" in steps.detail
    figure_9 = paper["frontier-retained", "1b · C4>FLAN>ChemPile"]
    assert numbers(figure_9.detail)[-1] == pytest.approx(0.318, abs=5e-4)
    replay = paper["replay-adds-general", "135m · C4>MusicPile>ChemPile"]
    assert numbers(replay.detail)[1:] == [pytest.approx(0.305, abs=5e-3), pytest.approx(0.34, abs=5e-3)]
    assert numbers(replay.detail)[0] == pytest.approx(replay.effect, abs=5e-4)
    assert "(1.50 to 1.57)" in replay.detail
    alone = paper["mixing-beats-replay", "135m · C4>MusicPile>FLAN"]
    share = int(re.search(r"lower on (\d+)%", alone.detail)[1])
    assert 100 - share == pytest.approx(74, abs=1)


def test_the_paper_has_one_seed_and_no_interval(paper):
    assert {one.num_seeds for one in paper.values()} <= {0, 1}
    assert all(one.low is None and one.p is None for one in paper.values())
    assert {one.verdict for one in paper.values()} <= set(VERDICTS)
