"""Bad requests: one message each, before anything is trained."""

import json

import pytest

from indelible.durability.battery import Battery
from indelible.durability.budget import parse_budget
from indelible.durability.request import init_of, make_request
from indelible.errors import UserError


def refused(**more) -> str:
    settings = {"models": ["a"], "keep": "instruction", "later": ["chemistry"], "battery": Battery(), **more}
    with pytest.raises(UserError) as found:
        make_request(**settings)
    return str(found.value)


def test_what_is_missing_or_named_twice():
    assert "name at least one checkpoint" in refused(models=[])
    assert "--later is missing" in refused(later=[])
    assert "'chemistry' is named twice" in refused(later=["chemistry", "chemistry"])
    assert "'instruction' is named twice" in refused(later=["instruction"])
    assert "a is named 2 times" in refused(against=["a"])
    assert "a is named 2 times" in refused(base="a")


def test_sides_of_unlike_kind_are_not_compared():
    assert "compare one file with one file" in refused(models=["a", "b"], against=["c"])


def test_the_bar_is_in_a_unit_that_will_be_measured():
    assert "give --base BEFORE" in refused(require="0.8")
    assert "expected a share such as 0.8" in refused(require="high", base="b")
    assert "expected a share such as 0.8" in refused(require="120%", base="b")
    assert "expected a share such as 0.8" in refused(require="0", base="b")
    settings = {"models": ["a"], "keep": "instruction", "later": ["music"], "battery": Battery()}
    assert make_request(**settings, require="80%", base="b").require.value == pytest.approx(0.8)
    found = make_request(**settings, require="0.1nats").require
    assert (found.value, found.unit) == (0.1, "nats")


def test_customer_and_gain_are_of_the_known_ones():
    assert "--for mean: expected one of careful, typical, careless" in refused(customer="mean")
    assert "--at 0.9: expected one of 0.5, 0.8" in refused(gain=0.9)


def test_text_is_a_name_or_a_file(tmp_path):
    assert "no such file or folder, and no corpus of that name; there are general, music" in refused(
        keep="nowhere.jsonl"
    )
    assert "--keep : no such file or folder" in refused(keep=""), "not the folder that the command runs in"
    (tmp_path / "config.json").write_text("{}")
    assert "this is a model; --keep takes text" in refused(keep=str(tmp_path))


def test_the_columns_of_a_file_are_found_or_named(tmp_path):
    def keep(record):
        file = tmp_path / "refusals.jsonl"
        file.write_text(json.dumps(record) + "\n")
        return make_request(["a"], str(file), ["music"], Battery()).corpora["refusals"]

    assert keep({"prompt": "p", "completion": "c"})["prompt_column"] == "prompt"
    assert make_request(["a"], str(tmp_path / "refusals.jsonl"), ["music"], Battery()).loss_on == "completion"
    assert make_request(["a"], "instruction", ["music"], Battery()).loss_on == "all"
    assert make_request(["a"], "instruction", ["music"], Battery(loss_on="completion")).loss_on == "completion"
    assert keep({"instruction": "p", "output": "c"})["completion_column"] == "output"
    assert "prompt_column" not in keep({"text": "t"})
    with pytest.raises(UserError, match="its columns are body, title; expected `text`, or `prompt` and `completion`"):
        keep({"title": "t", "body": "b"})


def test_a_corpus_of_the_battery_that_nobody_names():
    battery = Battery(corpora={"mine": {"kind": "synthetic", "language": 1}})
    assert "corpora.mine of the battery is named neither by" in refused(battery=battery)


def test_a_revision_stands_behind_an_at_sign(tmp_path):
    assert init_of("owner/name@abc") == {"from": "owner/name", "revision": "abc"}
    folder = tmp_path / "a@b"
    folder.mkdir()
    assert init_of(str(folder)) == {"from": str(folder)}


@pytest.mark.parametrize(("text", "seconds"), [("5m", 300), ("1.5h", 5400), ("90s", 90), ("1d", 86_400), (30, 30)])
def test_times(text, seconds):
    assert parse_budget(text) == seconds


def test_a_budget_that_is_none():
    assert parse_budget("all") is None
    for text in ("soon", "5", "-3m", "0m", "5 weeks"):
        with pytest.raises(UserError, match="expected a time such as 40m"):
            parse_budget(text)
