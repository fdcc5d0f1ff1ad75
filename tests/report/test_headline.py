"""What was found, in plain words."""

from dataclasses import replace

import pytest
from fake_study import FakeStudy, write_fake_study

from indelible.analysis.claims import study_verdicts
from indelible.analysis.runs import read_study_run
from indelible.analysis.table import read_table
from indelible.report.contents import report_contents
from indelible.report.headline import common_parts, headlines, short_scope
from indelible.report.page import report_html


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
