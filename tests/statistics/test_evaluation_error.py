"""Seeds or evaluation windows: which of the two makes an interval wide."""

import polars as pl
import pytest

from indelible.statistics.evaluation_error import error_sources, evaluation_error
from indelible.statistics.inference import paired

FIRST, SECOND = pl.col("arm") == "a", pl.col("arm") == "b"


def rows(first=0.03, second=0.04):
    return pl.DataFrame({"arm": ["a", "a", "b", "b"], "status": ["done"] * 4, "L_ret_se": [first] * 2 + [second] * 2},
                        schema={"arm": pl.String, "status": pl.String, "L_ret_se": pl.Float64})  # fmt: skip


def test_the_errors_of_both_arms_add_up_at_most_as_if_they_had_nothing_in_common():
    assert evaluation_error(rows(), FIRST, SECOND, "L_ret") == pytest.approx(0.05)


@pytest.mark.parametrize("table", [rows().drop("L_ret_se"), rows(second=None)])
def test_what_the_table_does_not_say_is_unknown(table):
    found = error_sources(table, FIRST, SECOND, "L_ret", paired({0: 0.1, 1: -0.1}))
    assert (found.windows, found.buy) == (None, "unknown")
    assert "not known" in found.text


@pytest.mark.parametrize(
    ("differences", "buy", "text"),
    [
        ([0.5, -0.4, 0.3], "seeds", "Buy seeds (standard error over seeds 0.2728, of the evaluation at most 0.0500"),
        ([0.01, -0.01, 0.012], "windows", "Buy evaluation windows"),
        ([0.5, 0.51, 0.52], "neither", "It is settled: buy neither"),
    ],
)
def test_what_to_buy(differences, buy, text):
    found = error_sources(rows(), FIRST, SECOND, "L_ret", paired(dict(enumerate(differences))))
    assert found.buy == buy
    assert found.text.startswith(text)
