"""What was found, in plain words."""

from dataclasses import replace

import polars as pl
import pytest
from fake_study import FakeStudy, write_fake_study

from indelible.claims.looks import replay, write_looks
from indelible.claims.paper_claims import claim_named, study_verdicts
from indelible.report.contents import report_contents
from indelible.report.headline import common_parts, first_sentence, headlines, short_scope
from indelible.report.page import report_html
from indelible.report.seed_cost import hours_per_seed, hours_text
from indelible.report.summaries import error_note
from indelible.results.run_folder import read_study_run
from indelible.results.table import read_table
from indelible.statistics.planning import NewSeeds
from indelible.statistics.sequential import sequential_design


def found_in(folder, **settings):
    settings = {"fractions": (0.0, 0.5, 1.0), "is_traced": False, "noise": 0.002, "seeds": range(5)} | settings
    return headlines(study_verdicts(read_table(write_fake_study(folder, FakeStudy(**settings)))))


@pytest.mark.parametrize(
    ("settings", "verdict", "words"),
    [
        ({}, "supported", "exposure pays: L_ret is lower"),
        ({"benefit": -0.4}, "contradicted", "exposure has cost: L_ret is higher"),
        ({"benefit": 0.0}, "inconclusive", "not settled whether exposure lowers L_ret"),
        ({"seeds": (0,)}, "inconclusive", "not settled whether exposure lowers L_ret"),
    ],
)
def test_the_first_sentence_says_what_the_verdict_is(tmp_path, settings, verdict, words):
    first = found_in(tmp_path, **settings)[0]
    assert first.verdict == verdict
    assert words in first.sentence
    assert [where for where, _ in first.points] == ["|D_post| 10k", "|D_post| 100k"]


def test_scopes_of_different_verdicts_get_a_sentence_each(tmp_path):
    verdicts = study_verdicts(read_table(write_fake_study(tmp_path, FakeStudy(is_traced=False, noise=0.002))))
    own = [one for one in verdicts if one.claim == "retained-lower"]
    other = replace(own[1], finding=replace(own[1].finding, verdict="inconclusive"))
    assert [one.verdict for one in headlines([own[0], other])] == ["supported", "inconclusive"]


def test_claims_without_an_effect_are_not_headlines(tmp_path):
    assert found_in(tmp_path, fractions=(0.0,)) == []


def test_what_every_scope_names_goes_without_saying():
    everywhere = common_parts(["pico · a>b>c · x 1", "pico · a>b>c · x 2"])
    assert short_scope("pico · a>b>c · x 1", everywhere) == "x 1"
    assert common_parts(["pico · a>b>c"]) == set()


def test_the_page_begins_with_the_sentences_their_numbers_and_seeds(tmp_path):
    page = report_html(report_contents(read_study_run(write_fake_study(tmp_path, FakeStudy(noise=0.002)))))
    summary = page[page.index('id="section-summary"') : page.index('id="section-verdicts"')]
    assert "exposure pays: L_ret is lower than without it." in summary
    assert "3 seeds" in summary
    assert 'id="chart-retention"' in summary
    assert page.index('id="section-summary"') < page.index('id="section-lambda"')


def test_one_sentence_says_what_is_settled_and_what_the_rest_would_cost(tmp_path):
    table = read_table(write_fake_study(tmp_path, FakeStudy(is_traced=False, noise=0.01)))
    verdicts = study_verdicts(table)
    shown = headlines(verdicts)
    sentence = first_sentence(shown, table)
    retained = next(one.finding for one in verdicts if one.claim == "retained-lower")
    interval = f"{retained.effect:+.3f} [{retained.low:+.3f}, {retained.high:+.3f}] nats"
    assert sentence.startswith("Settled: after the later fine-tune exposure pays")
    assert interval in sentence
    still = next(one for one in shown if one.verdict == "inconclusive").points[0][1]
    assert f"which would take {still.new_seeds.text}{hours_text(still, table)}." in sentence
    assert "hours of training" in sentence
    assert sentence.count(". ") == 0


def judged(folder, early, benefit=0.0):
    """A study where exposure moves L_im by ``early`` at λ 1, and L_ret by as much and what is saved."""
    study = FakeStudy(is_traced=False, noise=0.002, benefit=benefit, post_tokens=(100_000,), seeds=range(5))
    moved = early * pl.col("exposure_fraction")
    table = read_table(write_fake_study(folder, study))
    table = table.with_columns(L_im=pl.col("L_im") + moved, L_ret=pl.col("L_ret") + moved)
    verdicts = study_verdicts(table)
    return first_sentence(headlines(verdicts), table), {one.claim: one.finding for one in verdicts}


def test_a_gain_that_was_there_at_hand_over_is_not_told_as_one_of_the_later_fine_tune(tmp_path):
    sentence, found = judged(tmp_path, early=-0.25)
    retained, erased = found["retained-lower"], found["less-erased"]
    assert (retained.verdict, found["hand-over-flat"].verdict) == ("supported", "contradicted")
    assert sentence.startswith("Settled: after the later fine-tune exposure pays")
    assert f"of which {retained.effect - erased.effect:+.3f} was there at hand-over; what is erased" in sentence
    assert f"changes by {erased.effect:+.3f} [{erased.low:+.3f}, {erased.high:+.3f}])" in sentence
    assert retained.effect - erased.effect == pytest.approx(-0.25, abs=0.01)


@pytest.mark.parametrize(("early", "benefit"), [(0.0, 0.4), (0.1, 0.8)])
def test_where_l_im_is_not_lower_nothing_was_there_at_hand_over(tmp_path, early, benefit):
    sentence, found = judged(tmp_path, early, benefit)
    assert found["retained-lower"].verdict == "supported"
    assert "at hand-over;" not in sentence


@pytest.mark.parametrize(
    ("benefit", "verdict", "words"),
    [(0.4, "supported", "is less with"), (-0.4, "contradicted", "is more with"), (0.0, "inconclusive", "Not settled")],
)
def test_what_is_erased_has_a_sentence_of_its_own(tmp_path, benefit, verdict, words):
    (one,) = [one for one in found_in(tmp_path, benefit=benefit) if "fine-tune erases" in one.sentence]
    assert one.verdict == verdict
    assert words in one.sentence


def test_nothing_settled_is_said_and_nothing_tested_is_not(tmp_path):
    one_seed = read_table(write_fake_study(tmp_path, FakeStudy(is_traced=False, seeds=(0,))))
    sentence = first_sentence(headlines(study_verdicts(one_seed)), one_seed)
    assert sentence.startswith("Nothing is settled yet; open: ")
    assert sentence.endswith("which would take more than one seed.")
    assert first_sentence([], one_seed) == ""


def test_a_seed_costs_its_stage_runs_each_once(tmp_path):
    table = read_table(write_fake_study(tmp_path, FakeStudy(is_traced=False, fractions=(0.0,), post_tokens=(10_000,))))
    seed = table.filter(seed=0)
    once = seed["pretrain_seconds"][0] + seed["posttrain_seconds"][0] + seed["finetune_seconds"].sum()
    assert hours_per_seed(table, table["finetune_id"]) == pytest.approx(once / 3600)
    verdicts = study_verdicts(read_table(write_fake_study(tmp_path / "b", FakeStudy(is_traced=False, noise=0.05))))
    found = next(one.finding for one in verdicts if one.finding.new_seeds is not None)
    assert hours_text(replace(found, run_ids=()), table) == ""
    some = replace(found, run_ids=tuple(table["finetune_id"]), new_seeds=NewSeeds(2, 4))
    assert hours_text(some, table) == f" ({2 * once / 3600:.2g} to {4 * once / 3600:.2g} hours of training)"
    more = replace(some, new_seeds=NewSeeds(2, None))
    assert hours_text(more, table) == f" (at least {2 * once / 3600:.2g} hours of training)"


def test_the_page_says_whether_looks_were_planned(tmp_path):
    root = write_fake_study(tmp_path, FakeStudy(noise=0.002, is_traced=False))
    assert "No looks were planned" in report_html(report_contents(read_study_run(root)))
    looks = replay(claim_named("retained-lower"), read_table(root), sequential_design((2, 3)), [0, 1, 2])
    write_looks(root, looks)
    page = report_html(report_contents(read_study_run(root)))
    assert "retained-lower was looked at" in page
    assert "No looks were planned" not in page


def test_the_page_says_what_to_buy_where_the_table_knows_the_error_of_evaluation(tmp_path):
    table = read_table(write_fake_study(tmp_path, FakeStudy(is_traced=False, benefit=0.0, noise=0.01)))
    assert error_note(table.drop("L_ret_se")) == "", "a table that does not know it says nothing"
    for error, advice in ((0.0001, "Buy seeds"), (1.0, "Buy evaluation windows")):
        assert advice in error_note(table.with_columns(L_ret_se=pl.lit(error)))
