"""The page as text: self-contained, escaped, complete."""

import json
import re

import polars as pl
import pytest
from fake_study import FakeStudy, write_fake_study
from markupsafe import escape

from indelible.analysis.runs import read_study_run
from indelible.analysis.table import results_table
from indelible.report.contents import report_contents, table_contents
from indelible.report.cost import study_cost, table_cost
from indelible.report.page import packed, report_html

HOSTILE = "</script><script>window.hacked=1</script><img src=x onerror='window.hacked=1'>"


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return read_study_run(write_fake_study(tmp_path_factory.mktemp("study") / "run"))


@pytest.fixture(scope="module")
def page(run):
    return report_html(report_contents(run))


def payload(page):
    return json.loads(re.search(r'<script type="application/json" id="payload">(.*?)</script>', page, re.S)[1])


def test_nothing_is_loaded_from_elsewhere(page):
    markup = re.sub(r"<script>.*?</script>", "", page, flags=re.S)
    assert not re.search(r'(src|href)="(?!#|data:)', markup)
    assert "default-src 'none'" in markup
    assert len(page) < 8_000_000


def test_every_chain_and_its_ids_are_in_the_page(run, page):
    table = payload(page)["datasets"]["table"]
    assert table["length"] == len(run.plan["chains"])
    assert set(table["columns"]["finetune_id"]["values"]) == {chain["finetune_id"] for chain in run.plan["chains"]}


def test_text_of_the_study_cannot_become_markup(tmp_path):
    study = FakeStudy(name=HOSTILE, seeds=(0,), extra_settings={"note": HOSTILE})
    page = report_html(report_contents(read_study_run(write_fake_study(tmp_path, study))))
    assert HOSTILE not in page
    assert "<img src=x" not in page
    assert page.count(str(escape(HOSTILE))) >= 3  # title, heading, and the note among the switches
    assert len(re.findall(r"<script", re.sub(r"<script>.*?</script>", "<script>", page, flags=re.S))) == 3


def test_packing_keeps_values_and_absence():
    frame = pl.DataFrame({"a": ["x", None, "x"], "b": [1.23456789, None, float("nan")], "c": [1, None, 3]})
    assert packed(frame) == {
        "length": 3,
        "columns": {"a": {"values": ["x", None], "codes": [0, 1, 0]}, "b": [1.234568, None, None], "c": [1, None, 3]},
    }


def test_cost_counts_a_shared_run_once(run):
    cost = study_cost(run)
    assert cost.num_done == cost.num_runs == len(run.results)
    assert cost.trained_tokens == sum(result["train_tokens"] for result in run.results.values())
    assert cost.trained_tokens < cost.unshared_tokens
    assert cost.saved == 1 - cost.trained_tokens / cost.unshared_tokens


def test_a_study_without_a_finished_chain_still_has_a_page(tmp_path):
    folder = write_fake_study(tmp_path, FakeStudy(seeds=(0,)))
    for result in folder.glob("runs/*/result.json"):
        result.unlink()
    run = read_study_run(folder)
    assert report_contents(run).statuses == {"incomplete": len(run.plan["chains"])}
    assert "incomplete" in report_html(report_contents(run))


def test_a_table_alone_has_the_same_page_but_for_what_only_the_folders_know(run, page):
    table = results_table(run)
    whole, part = report_contents(run), table_contents(table)
    assert set(whole.figures) - set(part.figures) == {"curves", "ledger"}
    for name in set(part.figures) - {"cost"}:
        assert whole.figures[name].specification() == part.figures[name].specification()
        assert all(frame.equals(part.figures[name].data[key]) for key, frame in whole.figures[name].data.items())
    assert (part.name, part.scale, part.claims, part.noise) == (whole.name, whole.scale, whole.claims, whole.noise)
    assert payload(report_html(part))["datasets"]["table"] == payload(page)["datasets"]["table"]


def test_a_table_tells_the_cost_of_its_runs_with_the_hours_of_training(run):
    whole, part = study_cost(run), table_cost(results_table(run))
    assert (part.num_runs, part.num_done) == (whole.num_runs, whole.num_done)
    assert (part.trained_tokens, part.unshared_tokens) == (whole.trained_tokens, whole.unshared_tokens)
    assert part.trained_flops == pytest.approx(whole.trained_flops, rel=1e-12)
    assert part.hours == pytest.approx(sum(result["trained_seconds"] for result in run.results.values()) / 3600)
    assert part.hours_of != whole.hours_of
