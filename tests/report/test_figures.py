"""The figures: what is drawn when, and the files for a paper."""

import json
import re

import polars as pl
import pytest
from accessible import contrast, luminance
from fake_files import edit_json, merge_studies
from fake_study import FakeStudy, write_fake_study

from indelible.errors import UserError
from indelible.report.charts_retention import BESIDE, LOSSES
from indelible.report.charts_tradeoff import ATTAINED
from indelible.report.contents import Contents, report_contents
from indelible.report.export import PaperStyle, write_figures
from indelible.report.figure import CATEGORY, INK, MUTED, ORDINAL, PAPER, VERDICT_COLORS, theme
from indelible.results.run_folder import read_study_run


def contents_of(folder, **settings):
    return report_contents(read_study_run(write_fake_study(folder, FakeStudy(**settings))))


@pytest.fixture(scope="module")
def contents(tmp_path_factory) -> Contents:
    return contents_of(tmp_path_factory.mktemp("study"))


def test_each_figure_is_written_as_pdf_svg_png_and_csv(contents, tmp_path):
    figures = [contents.figures[name] for name in ("tradeoff", "effects")]
    files = {path.name: path for path in write_figures(figures, tmp_path / "figures")}
    assert {"tradeoff.pdf", "tradeoff.svg", "tradeoff.png", "tradeoff-chains.csv", "tradeoff-frontiers.csv",
            "effects.pdf", "effects.svg", "effects.png", "effects-effects.csv"} == set(files)  # fmt: skip
    assert files["effects.pdf"].read_bytes().startswith(b"%PDF")
    assert files["effects.png"].read_bytes().startswith(b"\x89PNG")
    svg = files["tradeoff.svg"].read_text()
    assert "loss on D_ft" in svg
    assert svg.count("<path") > contents.table.height  # one mark a chain and view, and more
    written = pl.read_csv(files["tradeoff-chains.csv"])
    assert written["L_ret"].to_list() == contents.table["L_ret"].to_list()


def test_page_and_files_come_from_one_definition(contents):
    for name, figure in contents.figures.items():
        assert figure.name == name
        named = {part["name"] for part in find(figure.specification(), "data")}
        assert named == set(figure.data)


def find(value, key):
    if isinstance(value, dict):
        yield from ([value[key]] if key in value and isinstance(value[key], dict) else [])
        for child in value.values():
            yield from find(child, key)
    elif isinstance(value, list):
        for child in value:
            yield from find(child, key)


def test_lambda_means_are_over_seeds(contents):
    data = contents.figures["lambda"].data
    point = {"exposure_fraction": 0.5, "post_tokens": 10_000}
    own = contents.table.filter(**point, finetune_lr=3e-4)
    row = data["lambda_mean"].filter(**point, loss="L_ret", slice="stage-3 LR 0.0003").row(0, named=True)
    assert row["mean"] == pytest.approx(own["L_ret"].mean())
    assert row["n"] == 3
    over_rates = data["lambda_mean"].filter(**point, loss="L_ret", slice="mean over stage-3 LR").row(0, named=True)
    assert over_rates["mean"] == pytest.approx(contents.table.filter(**point)["L_ret"].mean())
    assert data["lambda_paper"].height == 30


def test_a_matched_study_stands_beside_figure_3b(tmp_path):
    figure = contents_of(tmp_path, allocation="matched").figures["lambda"]
    assert figure.data["lambda_paper"]["panel"].unique().to_list() == ["b"]
    assert "Figure 3b" in figure.caption


def test_differences_are_paired(contents):
    data = contents.figures["retention"].data["retention"]
    point = {"loss": "L_ret", "post_tokens": 10_000, "exposure_fraction": 1.0}
    row = data.filter(**point, slice="mean over stage-3 LR").row(0, named=True)
    table = contents.table.filter(post_tokens=10_000)
    arms = [table.filter(exposure_fraction=value).sort("seed", "finetune_lr")["L_ret"] for value in (1.0, 0.0)]
    assert row["effect"] == pytest.approx((arms[0] - arms[1]).mean())
    assert row["low"] < row["effect"] < row["high"]
    one_rate = data.filter(**point, slice="stage-3 LR 0.001").row(0, named=True)
    arms = [table.filter(exposure_fraction=value, finetune_lr=1e-3).sort("seed")["L_ret"] for value in (1.0, 0.0)]
    assert one_rate["effect"] == pytest.approx((arms[0] - arms[1]).mean())


def test_the_papers_differences_stand_beside_ours(contents):
    papers = contents.figures["retention"].data["retention_paper"]
    last = papers.filter(panel="a", loss="L_ret", post_tokens=300_000_000, exposure_fraction=1.0)["effect"].item()
    assert last == pytest.approx(1.6824 - 1.8071, abs=1e-4)


def report_of_all(roots):
    """The report of several studies as if one plan had them all."""
    return report_contents(read_study_run(merge_studies(roots)))


def two_designs(folder):
    """A plan with the arms fig3a (full) and fig3b (matched, another answer), and one of another pipeline."""
    roots = [write_fake_study(folder / name, FakeStudy(**settings)) for name, settings in {
        "fig3a": {"name": "a", "finetune_lrs": (1e-3,)},
        "fig3b": {"name": "b", "finetune_lrs": (1e-3,), "allocation": "matched", "benefit": -0.4, "dropouts": (0.01,)},
        "other": {"name": "c", "finetune_lrs": (1e-4, 3e-4, 1e-3), "pipeline": ("general", "music", "instruction"),
                  "post_tokens": (30_000,)},
        "sweep": {"name": "d", "finetune_lrs": (1e-4, 3e-4, 1e-3), "post_tokens": (20_000,)},
    }.items()]  # fmt: skip
    for root in roots:
        edit_json(root / "plan.json", lambda plan, arm=root.name: [
            chain["columns"].update(arm=arm) for chain in plan["chains"]])  # fmt: skip
    return report_of_all(roots)


@pytest.fixture(scope="module")
def designs(tmp_path_factory):
    return two_designs(tmp_path_factory.mktemp("designs"))


def test_designs_in_one_plan_are_drawn_apart_each_beside_its_figure(designs):
    data = designs.figures["retention"].data
    found = data["retention"]["slice"].unique(maintain_order=True).to_list()
    assert found[0] == "fig3a"  # full allocation first
    assert found[-1] == "fig3b"
    ends = data["retention"].filter(exposure_fraction=1.0, loss="L_ret", post_tokens=10_000)
    effects = dict(ends.select("slice", "effect").iter_rows())
    assert effects["fig3a"] < 0 < effects["fig3b"]
    assert data["retention_paper"]["panel"].unique().sort().to_list() == ["a", "b"]
    slices = designs.figures["lambda"].data["lambda_mean"]["slice"].unique(maintain_order=True).to_list()
    assert slices[:3] == ["fig3a", "fig3b", "other · mean over stage-3 LR"]
    specification = json.dumps(designs.figures["lambda"].specification(), ensure_ascii=False)
    assert "indexof([\\\"fig3b\\\"], slice) >= 0 ? 'b' : 'a'" in specification


def test_losses_of_two_pipelines_are_not_put_on_one_frontier(designs):
    rows = designs.frontiers
    assert {row["pipeline"] for row in rows} == {"general>music>chemistry", "general>music>instruction"}
    assert {row["settings"] for row in rows} == {"3"}  # a design with one setting has no frontier
    firsts = [row for row in rows if row["ε to first arm"] == "+0.0000"]
    assert {row["pipeline"] for row in firsts} == {row["pipeline"] for row in rows}
    names = [one["name"] for one in designs.figures["tradeoff"].specification()["params"]]
    assert {"pipeline", "frontier"} <= set(names)


def test_the_shown_pipeline_is_in_the_menu_and_not_in_the_legend(tmp_path):
    root = write_fake_study(tmp_path / "one")
    other = write_fake_study(tmp_path / "two", FakeStudy(name="b", pipeline=("general", "music", "instruction")))
    figure = report_of_all([root, other]).figures["tradeoff"]
    assert figure.data["chains"]["pipeline"].n_unique() == 2
    assert figure.data["chains"]["variant"].unique().to_list() == ["plain"]
    domains = {tuple(scale["domain"]) for scale in find(figure.specification(), "scale") if "domain" in scale}
    assert domains == {("λ 0", "λ 0.5", "λ 1")}


def test_the_main_figure_has_a_stable_file_name(designs, tmp_path):
    names = {path.name for path in write_figures([designs.figures["retention"]], tmp_path)}
    assert names == {"retention.pdf", "retention.svg", "retention.png", "retention-retention.csv",
                     "retention-retention_paper.csv"}  # fmt: skip
    svg = (tmp_path / "retention.svg").read_text()
    assert "This study: fig3a · 3 seeds" in svg
    assert "The paper: Figure 3a" in svg


def test_attainment_surfaces_over_seeds_can_be_chosen(contents):
    lines = contents.figures["tradeoff"].data["frontiers"].filter(plane="L_ft_L_ret", series="λ 1")
    heights = {kind: lines.filter(kind=kind).sort("x")["y"] for kind in ATTAINED}
    assert heights[ATTAINED[0]].min() <= heights[ATTAINED[1]].min() <= heights[ATTAINED[2]].min()
    assert all(len(values) >= 1 for values in heights.values())


def test_no_bars_below_three_seeds(tmp_path):
    two = contents_of(tmp_path, seeds=(0, 1)).figures
    three_bars = [json.dumps(two[name].specification()).count('"low"') for name in ("lambda", "retention")]
    assert all(count <= 4 for count in three_bars)  # in tooltips only
    assert "Bars: 95" not in two["lambda"].caption


def test_curves_show_stage_results_and_the_ledger_its_tokens(contents):
    curves = contents.figures["curves"].data["curves"]
    results = curves.filter(pl.col("is_result"))
    row = contents.table.row(0, named=True)
    own = results.filter(pl.col("run") == row["finetune_id"], pl.col("what") == "music").row(0, named=True)
    assert own["value"] == row["L_ret"]
    assert own["equal"] == 3.0
    ledger = contents.figures["ledger"].data["ledger"]
    assert {"λ 0.5 · |D_post| 10k", "λ 1 · |D_post| 10k"} <= set(ledger["label"])
    arm = ledger.filter(pl.col("label") == "λ 1 · |D_post| 100k")
    assert arm.height == 50
    assert arm["tokens"].sum() == 100_000
    assert arm["share"].to_list() == pytest.approx([2_000 / 42_000] * 50)


def test_figures_without_their_data_are_left_out(tmp_path):
    bare = contents_of(tmp_path, is_traced=False, fractions=(0.0,), post_tokens=(10_000,), finetune_lrs=(1e-3,))
    assert set(bare.figures) == {"tradeoff", "erased", "curves", "cost"}
    assert bare.verdicts == {"not tested": len(bare.claims)}


def test_frontier_measures_and_noise_by_arm(contents):
    assert [row["arm"] for row in contents.frontiers] == ["λ 0", "λ 0.5", "λ 1"] * 2  # for each |D_post|
    volumes = [float(row["hypervolume"]) for row in contents.frontiers[:3]]
    assert volumes == sorted(volumes)
    assert "best L_ret at the smallest stage-3 LR" in contents.frontiers[0]["ends at the edge of the grid"]
    assert [row["arm"] for row in contents.noise] == ["λ 0", "λ 0.5", "λ 1"]
    assert all(float(row["L_ret sd"]) > 0 for row in contents.noise)


@pytest.mark.parametrize("mode", ["light", "dark"])
def test_marks_and_text_stand_out_from_the_background(mode):
    for color in [*CATEGORY[mode], *ORDINAL[mode], *VERDICT_COLORS.values()]:
        assert contrast(color, PAPER[mode]) >= 3
    for color in (INK[mode], MUTED[mode]):
        assert contrast(color, PAPER[mode]) >= 4.5
    ramp = [luminance(color) for color in ORDINAL[mode]]
    assert ramp == sorted(ramp, reverse=True)
    assert theme(mode)["range"]["category"] == CATEGORY[mode]


def test_a_column_of_a_paper_gets_a_chart_of_its_width_without_the_papers_panel(contents, tmp_path):
    style = PaperStyle(names=("retention", "effects"), width=240, has_paper=False)
    written = write_figures(list(contents.figures.values()), tmp_path, style)
    assert {path.stem for path in written if path.suffix == ".svg"} == {"retention", "effects"}
    for name in style.names:
        svg = (tmp_path / f"{name}.svg").read_text()
        assert float(re.search(r'<svg[^>]* width="([0-9.]+)"', svg)[1]) <= 260
    assert "The paper" not in (tmp_path / "retention.svg").read_text()


def test_a_chart_that_is_not_there_and_a_width_for_nothing_are_refused(contents, tmp_path):
    figures = list(contents.figures.values())
    with pytest.raises(UserError, match="--figure nowhere: no chart of this study; there are retention, "):
        write_figures(figures, tmp_path, PaperStyle(names=("nowhere",)))
    with pytest.raises(UserError, match="--width 20: expected 160 points or more"):
        write_figures(figures, tmp_path, PaperStyle(width=20))


def test_a_line_of_one_point_is_drawn_as_a_ring(contents):
    lines = contents.figures["tradeoff"].data["frontiers"]
    lone = lines.filter(pl.col("is_alone"))
    groups = lines.group_by("plane", "kind", "series", "post_tokens", "pipeline").len().filter(pl.col("len") == 1)
    assert lone.height == groups.height > 0
    rings = [layer for view in contents.figures["tradeoff"].specification()["concat"] for layer in view["layer"]
             if any("is_alone ? '○' : ''" in one.get("calculate", "") for one in layer["transform"])]  # fmt: skip
    assert len(rings) == 2


def test_bars_of_both_losses_stand_side_by_side(contents):
    rows = contents.figures["retention"].data["retention"]
    place = {loss: rows.filter(pl.col("loss") == loss, pl.col("exposure_fraction") == 1)["x"] for loss in LOSSES}
    beside = [ret - im for im, ret in zip(place["L_im"].sort(), place["L_ret"].sort(), strict=True)]
    assert beside == pytest.approx([BESIDE] * len(beside))
