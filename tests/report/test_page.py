"""The page as text: self-contained, escaped, complete."""

import json
import re

import polars as pl
import pytest
from fake_files import forget, losses_of
from fake_study import FakeStudy, write_fake_study
from markupsafe import escape
from resolved_study import write_resolved_study

from indelible.report import contents as contents_module
from indelible.report.contents import report_contents, table_contents
from indelible.report.cost_summary import study_cost, table_cost
from indelible.report.figure import PLACES, Figure
from indelible.report.page import packed, report_html, shown_columns
from indelible.results.run_folder import read_study_run
from indelible.results.table import results_table

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
    assert table["length"] == len(run.plan.chains)
    assert set(table["columns"]["finetune_id"]["values"]) == {chain.stages["finetune"] for chain in run.plan.chains}


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
    assert cost.trained_tokens == sum(result.train_tokens for result in run.results.values())
    assert cost.trained_tokens < cost.unshared_tokens
    assert cost.saved == 1 - cost.trained_tokens / cost.unshared_tokens


def test_a_study_without_a_finished_chain_still_has_a_page(tmp_path):
    folder = write_fake_study(tmp_path, FakeStudy(seeds=(0,)))
    for result in folder.glob("runs/*/result.json"):
        result.unlink()
    run = read_study_run(folder)
    assert report_contents(run).statuses == {"incomplete": len(run.plan.chains)}
    assert "incomplete" in report_html(report_contents(run))


def test_a_table_alone_has_the_same_page_but_for_what_only_the_folders_know(run, page):
    table = results_table(run)
    whole, part = report_contents(run), table_contents(table)
    assert set(whole.figures) - set(part.figures) == {"curves", "ledger"}
    shown = [set(one.figures["erased"].data["erased"]["loss"]) for one in (whole, part)]
    assert shown == [{"forgotten", "gained"}, {"forgotten", "L_ft"}]  # the loss before a stage is in no column
    for name in set(part.figures) - {"cost", "erased"}:
        assert whole.figures[name].specification() == part.figures[name].specification()
        assert all(frame.equals(part.figures[name].data[key]) for key, frame in whole.figures[name].data.items())
    assert (part.name, part.scale, part.claims, part.noise) == (whole.name, whole.scale, whole.claims, whole.noise)
    assert payload(report_html(part))["datasets"]["table"] == payload(page)["datasets"]["table"]


def test_a_table_tells_the_cost_of_its_runs_with_the_hours_of_training(run):
    whole, part = study_cost(run), table_cost(results_table(run))
    assert (part.num_runs, part.num_done) == (whole.num_runs, whole.num_done)
    assert (part.trained_tokens, part.unshared_tokens) == (whole.trained_tokens, whole.unshared_tokens)
    assert part.trained_flops == pytest.approx(whole.trained_flops, rel=1e-12)
    assert part.hours == pytest.approx(sum(result.trained_seconds for result in run.results.values()) / 3600)
    assert part.hours_of != whole.hours_of


PAPER = {"name": "x", "scale": "pico", "pipeline": {"pre": "general", "post": "music", "ft": "chemistry"},
         "seeds": [0, 1]}  # fmt: skip
GIVEN = PAPER | {"init": {"from": "/models/base", "at": "finetune"}, "finetune": {"lr": [1e-5, 1e-4, 1e-3]}}


@pytest.fixture(scope="module")
def given(tmp_path_factory):
    return read_study_run(write_resolved_study(tmp_path_factory.mktemp("given"), GIVEN, is_traced=True))


def test_a_given_checkpoint_has_a_page_with_what_each_rate_erased_and_gained(given):
    contents = report_contents(given)
    page = report_html(contents)
    assert not contents.has_exposure
    assert "retention" not in contents.figures
    figure = contents.figures["erased"]
    assert (figure.place, figure.title) == ("summary", "What did each stage-3 LR erase and gain?")
    start = losses_of(given.root, given.plan.chains[0].start)
    rows = figure.data["erased"].filter(text="0.001")
    chains = [chain for chain in given.plan.chains if chain.columns["finetune_lr"] == 1e-3]
    after = [losses_of(given.root, chain.stages["finetune"]) for chain in chains]
    means = dict(rows.select("loss", "mean").iter_rows())
    assert means["forgotten"] == pytest.approx(sum(one["music"] - start["music"] for one in after) / 2)
    assert means["gained"] == pytest.approx(sum(start["chemistry"] - one["chemistry"] for one in after) / 2)
    assert rows["n"].to_list() == [2, 2]
    summary = page[page.index('id="section-summary"') : page.index('id="section-tradeoff"')]
    assert 'id="chart-erased"' in summary
    assert f"{means['forgotten']:+.3f}" in summary
    assert 'id="section-verdicts"' not in page  # the paper's claims are about exposure
    assert "exposure are finished yet" not in page
    assert "· from base</p>" in page
    assert "scale pico" not in page


def test_a_given_checkpoint_with_three_seeds_has_intervals(tmp_path):
    run = read_study_run(write_resolved_study(tmp_path, GIVEN | {"seeds": [0, 1, 2]}))
    row = report_contents(run).figures["erased"].rows[-1]
    assert row["stage-3 LR"] == "0.001"
    assert re.fullmatch(r"\+\d\.\d{3} \[\+\d\.\d{3}, \+\d\.\d{3}\]", row["erased (L_ret - L_im)"])


def test_the_noise_floor_of_a_loss_that_cannot_vary_is_zero_and_of_one_that_is_not_there_is_none(given):
    noise = report_contents(given).noise
    assert [row["L_im sd"] for row in noise] == ["0.0000"]  # the given checkpoint, whatever the seed
    assert float(noise[0]["L_ret sd"]) > 0
    bare = results_table(given).with_columns(pl.lit(None, pl.Float64).alias("L_im"))
    assert [row["L_im sd"] for row in table_contents(bare).noise] == ["-"]


def test_columns_that_no_chain_has_are_not_shown(given, run):
    shown = shown_columns(report_contents(given).table)
    assert {"pretrain_id", "posttrain_id", "posttrain_stop_reason"}.isdisjoint(shown)
    assert {"L_im", "forgotten", "finetune_id", "start"} <= set(shown)
    assert {"forgotten", "pretrain_id", "posttrain_stop_reason"} <= set(shown_columns(results_table(run)))
    assert "start" not in shown_columns(results_table(run))
    page = payload(report_html(report_contents(given)))
    assert page["columns"] == shown
    assert set(shown) <= set(page["datasets"]["table"]["columns"])


def test_chains_of_five_stages_have_every_part_of_the_page(tmp_path):
    study = PAPER | {
        "exposure": {"fraction": [0, 1]},
        "stages": {"second": {"corpus": "instruction", "mix": [{"corpus": "music", "fraction": 0.1}]},
                   "relearn": {"corpus": "music", "tokens": "5k"}},
        "views": {"L_relearn": {"after": "relearn", "corpus": "posttrain"}},
    }  # fmt: skip
    run = read_study_run(write_resolved_study(tmp_path, study, is_traced=True))
    contents = report_contents(run)
    report_html(contents)
    assert [stage.stage for stage in contents.cost.stages] == list(run.stages) == list(run.plan.chains[0].stages)
    curves = contents.figures["curves"].data["curves"]
    assert set(curves["stage"]) == set(run.stages)
    last = curves.filter(pl.col("is_result"), run=run.plan.chains[0].stages["relearn"], what="music")
    assert last["value"].to_list() == [losses_of(tmp_path, run.plan.chains[0].stages["relearn"])["music"]]
    assert last["equal"].to_list() == [5.0]
    ledger = contents.figures["ledger"].data["ledger"]
    assert set(ledger["stage"]) == {"pretrain", "second"}
    assert {"pretrain: λ 1", "second: all"} <= set(ledger["label"])
    assert {"L_relearn", "relearn_id", "second_id"} <= set(payload(report_html(contents))["columns"])
    assert table_cost(results_table(run)).trained_tokens == contents.cost.trained_tokens


def test_a_chain_without_the_papers_stages_has_a_page(tmp_path):
    study = {"name": "x", "scale": "pico", "seeds": [0, 1], "stages": {"warm": {"corpus": "general"},
             "tune": {"corpus": "music", "lr": [1e-4, 1e-3]}},
             "views": {"L_kept": {"after": "tune", "corpus": "warm"}}}  # fmt: skip
    contents = report_contents(read_study_run(write_resolved_study(tmp_path, study, is_traced=True)))
    assert contents.statuses == {"done": 4}
    assert {"tradeoff", "erased", "retention"}.isdisjoint(contents.figures)
    assert "L_kept" in shown_columns(contents.table)
    report_html(contents)


def test_curves_are_drawn_as_ways_of_a_stage(tmp_path):
    watch = {"finetune": {"watch": {}}, "second": {"corpus": "instruction", "watch": {"corpora": ["music"]}}}
    study = PAPER | {"exposure": {"fraction": [0, 1]}, "stages": watch}
    run = read_study_run(write_resolved_study(tmp_path, study, is_traced=True))
    figure = report_contents(run).figures["paths"]
    frame = figure.data["paths"]
    assert set(frame["stage"]) == {"finetune"}  # the other one does not watch its own corpus
    chain = run.plan.chains[0]
    way = frame.filter(run=chain.stages["finetune"]).sort("step")
    before, after = (losses_of(tmp_path, chain.stages[stage]) for stage in ("posttrain", "finetune"))
    assert (way["gained"][0], way["kept"][0]) == pytest.approx((before["chemistry"], before["music"]))
    assert (way["gained"][-1], way["kept"][-1]) == pytest.approx((after["chemistry"], after["music"]))
    assert way["is_end"].to_list() == [False] * (way.height - 1) + [True]
    assert frame["run"].n_unique() == 4
    specification = json.dumps(figure.specification())
    assert "loss on chemistry, on which the stage trains" in specification
    study["stages"]["second"]["watch"] = {}
    both = report_contents(read_study_run(write_resolved_study(tmp_path / "both", study, is_traced=True)))
    assert set(both.figures["paths"].data["paths"]["path"]) == {
        "finetune: music against chemistry", "second: music against instruction"
    }  # fmt: skip


def test_a_new_figure_needs_a_line_in_contents_alone(run, monkeypatch):
    figure = report_contents(run).figures["cost"]
    for place in PLACES:
        extra = Figure("extra", "An extra chart", "What it shows.", figure.chart, figure.data, place=place)
        monkeypatch.setattr(contents_module, "cost_figure", lambda cost, extra=extra: extra)
        page = report_html(report_contents(run))
        assert page.count('id="chart-extra"') == 1
        assert "extra" in [one["name"] for one in payload(page)["figures"]]
    with pytest.raises(ValueError, match="figure extra: place 'top' is none of summary, effects"):
        Figure("extra", "", "", figure.chart, place="top")


def test_what_an_unfinished_study_shows_of_its_chains(tmp_path):
    folder = write_fake_study(tmp_path, FakeStudy(seeds=(0,)))
    for name in list(read_study_run(folder).results):
        if not name.startswith("pretrain"):
            forget(folder, name)
    contents = report_contents(read_study_run(folder))
    assert contents.statuses == {"incomplete": 18}
    assert set(contents.figures["curves"].data["curves"]["stage"]) == {"pretrain"}
    assert "No chains with and without exposure are finished yet" in report_html(contents)
