"""What is shown is what decides, in the same words on the screen and on the page."""

from dataclasses import replace

import pytest

from indelible.claims.evidence import directed
from indelible.claims.verdicts import decide
from indelible.claims.wording import comparison_text, effect_text, numbers_text, seeds_text, verdicts_footnote
from indelible.statistics.compare import Comparison
from indelible.statistics.inference import Inference, paired

OPEN = decide(directed("x", paired({0: -0.3, 1: 0.1, 2: -0.4}), "lower", "detail", ("a",)), 0.05 / 2, 2)


def test_the_interval_stands_with_its_confidence():
    assert effect_text(-0.31, -0.42, -0.2, 0.9875) == "-0.3100 [-0.4200, -0.2000] (98.75 %)"
    assert effect_text(-0.31, None, None, None) == "-0.3100"
    assert "(97.5 %)" in numbers_text(OPEN)


def test_signs_are_counted_on_both_sides():
    assert seeds_text(2, 1, 1) == "n=2, signs 1 / 1"
    assert seeds_text(1, 1, 0) == "n=1"


def test_what_is_open_says_what_it_would_take_and_how_it_reads():
    text = numbers_text(OPEN)
    assert OPEN.new_seeds.text in text
    assert text.endswith("reads supported")
    mixed = replace(OPEN, reading="mixed", reason="drawn above on 20% of the range")
    assert numbers_text(mixed).endswith("reads mixed: drawn above on 20% of the range")
    neither = numbers_text(replace(OPEN, reading="inconclusive"))
    assert "reads" not in neither
    assert neither.endswith(OPEN.new_seeds.text)


def test_what_is_settled_says_no_more_than_its_numbers():
    settled = decide(directed("x", paired({0: -0.30, 1: -0.31, 2: -0.32}), "lower", "detail", ("a",)), 0.05)
    interval = f"[{settled.low:+.4f}, {settled.high:+.4f}] (95 %)"
    assert numbers_text(settled) == f"-0.3100 {interval}, n=3, signs 3 / 0, detectable {settled.detectable:.4f}"
    assert "reads mixed: why" in numbers_text(replace(settled, reading="mixed", reason="why"))


@pytest.mark.parametrize(
    ("found", "text"),
    [
        (Comparison(paired({}), 0, 0, 0, (), 0, False), "no finished pair at equal settings"),
        (Comparison(paired({0: 0.0, 1: 0.0}), 1, 0, 0, ("a",), 0, True),
         "the same runs (2 seeds): nothing to compare"),
    ],
)  # fmt: skip
def test_what_cannot_be_compared_says_so(found, text):
    assert comparison_text(found) == text


def test_a_comparison_that_is_open_has_its_price_and_its_diverged_chains():
    found = Comparison(paired({0: 0.1, 1: -0.2, 2: 0.3}), 4, 0, 0, ("a",), 2, False)
    text = comparison_text(found)
    assert found.new_seeds().text in text
    assert "2 diverged chains counted as the worst loss, 4 settings: inconclusive" in text


def test_the_footnote_says_whose_risk_it_is():
    assert "findings of one claim share a risk of 1 % (Holm" in verdicts_footnote(
        Inference(level=0.01), is_corrected=True
    )
    assert "each finding by itself has a risk of 5 %" in verdicts_footnote(Inference(), is_corrected=False)
