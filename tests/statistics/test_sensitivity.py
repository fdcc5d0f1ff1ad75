"""Variance shares and marginals, and the words for arms."""

import polars as pl
import pytest

from indelible.results.labels import count_text, label_order, plural, settings_text, value_text, with_labels
from indelible.statistics.sensitivity import marginal_values, variance_shares

TABLE = pl.DataFrame({"a": [0, 0, 1, 1], "b": ["x", "y", "x", "y"], "L_ret": [1.0, 1.0, 3.0, 3.0], "L_im": [2.0] * 4})


def test_variance_shares_by_hand():
    shares = {(row["setting"], row["loss"]): row["share"]
              for row in variance_shares(TABLE, ["b", "a"], ["L_im", "L_ret"]).to_dicts()}  # fmt: skip
    assert shares == {("a", "L_ret"): 1.0, ("b", "L_ret"): 0.0, ("a", "L_im"): None, ("b", "L_im"): None}
    ranks = dict(variance_shares(TABLE, ["b", "a"], ["L_ret"]).select("setting", "rank").iter_rows())
    assert ranks == {"a": 0, "b": 1}


def test_marginals_by_hand():
    rows = marginal_values(TABLE, ["a"], "L_ret").to_dicts()
    assert [(row["value"], row["rank"], row["median"], row["chains"]) for row in rows] == [
        ("0", 0, 1, 2),
        ("1", 1, 3, 2),
    ]


@pytest.mark.parametrize(
    ("count", "text"), [(999, "999"), (1_500, "1.5k"), (30_000_000, "30M"), (8_700_000_000, "8.7B"), (0, "0")]
)
def test_counts_for_people(count, text):
    assert count_text(count) == text
    assert value_text("post_tokens", count) == text


def test_words():
    assert value_text("dropout", None) == "-"
    assert value_text("finetune_lr", 3e-4) == "0.0003"
    row = {"exposure_fraction": 0.5, "post_tokens": 10_000, "arm": "", "method": "lora", "dropout": None}
    assert settings_text(row, list(row)) == "λ 0.5 · |D_post| 10k · lora"
    assert (plural(1, "seed"), plural(2, "seed")) == ("1 seed", "2 seeds")


def labelled():
    names = ["arm", "scale", "pipeline", "allocation", "exposure_fraction", "exposure_mode", "placement", "method",
             "replay_fraction", "dropout", "finetune_lr", "posttrain_global_batch_size", "L_im"]  # fmt: skip
    rows = [("", "pico", "a>b>c", "full", fraction, "add", "uniform", "full", replay, 0.0, 1e-3, 16, 2.0)
            for fraction in (1.0, 0.0) for replay in (0.01, 0.0)]  # fmt: skip
    return with_labels(pl.DataFrame(rows, schema=names, orient="row"))


def test_labels_say_what_varies():
    table = labelled()
    assert table["series"].to_list() == ["λ 1 · replay 0.01", "λ 1 · replay 0", "λ 0 · replay 0.01", "λ 0 · replay 0"]
    assert table["variant"].to_list() == ["replay 0.01", "plain"] * 2
    assert label_order(table, "exposure") == ["λ 0", "λ 1"]
    assert label_order(table, "variant") == ["plain", "replay 0.01"]
    assert label_order(table, "series")[0] == "λ 0 · replay 0"


def test_lambda_is_in_its_own_order_whatever_the_arms_are():
    arms = pl.DataFrame({"arm": ["a", "a", "b", "b"], "exposure_fraction": [0.0, 1.0, 0.0, 0.5]})
    table = with_labels(
        labelled().drop("arm", "exposure_fraction", "series", "exposure", "variant", "settings").hstack(arms)
    )
    assert label_order(table, "exposure") == ["λ 0", "λ 0.5", "λ 1"]
