"""The page without a mouse, without colours and by ear: what can be checked without a browser."""

from importlib import resources

import pytest
from accessible import contrast, faults, variables
from fake_study import FakeStudy, write_fake_study

from indelible.report.contents import report_contents
from indelible.report.page import report_html
from indelible.results.run_folder import read_study_run

STYLE = resources.files("indelible.report").joinpath("templates", "report.css").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def contents(tmp_path_factory):
    study = FakeStudy(seeds=(0, 1), post_tokens=(10_000,), dropouts=(0.0, 0.1))
    return report_contents(read_study_run(write_fake_study(tmp_path_factory.mktemp("study") / "run", study)))


@pytest.fixture(scope="module")
def page(contents):
    return report_html(contents)


@pytest.mark.parametrize("mode", ["light", "dark"])
def test_every_text_stands_out_from_what_it_is_written_on(mode):
    colors = variables(STYLE, mode)
    for text in ("ink", "muted", "accent", "good", "bad", "open"):
        for ground in ("paper", "panel"):
            assert contrast(colors[text], colors[ground]) >= 4.5, (mode, text, ground)
    assert contrast(colors["muted"], colors["panel"]) >= 3, "the border of buttons and menus"


def test_dark_by_the_system_is_dark_by_the_button():
    by_system = STYLE.partition('not([data-theme="light"]) {')[2].partition("}")[0]
    by_button = STYLE.partition(':root[data-theme="dark"] {')[2].partition("}")[0]
    assert by_system.split() == by_button.split()


def test_the_keyboard_sees_where_it_is():
    assert ":focus-visible { outline: 2px solid var(--accent)" in STYLE
    assert "outline: none" not in STYLE


def test_the_page_has_no_fault(page):
    assert faults(page) == []


def test_faults_are_found(page):
    assert faults(page.replace('<html lang="en">', "<html>")) == ["no language"]
    assert faults(page.replace("<h2>", "<h4>", 1)) == ["h4 follows h1"]
    assert faults(page.replace(' scope="col"', "", 1)) == ["a heading of a table without a scope"]
    assert "a chart without a role and a name" in faults(page.replace('role="figure" ', "", 1))[0]


def test_every_chart_stands_under_a_question_and_says_what_it_is(contents, page):
    for figure in contents.figures.values():
        assert figure.title.endswith("?"), figure.name
        assert page.index(figure.title) < page.index(f'id="chart-{figure.name}"')


def test_the_first_screen_explains_its_words(page):
    first = page.partition('class="headlines"')[0]
    for word in (
        "λ: the part of D_post",
        "L_im: loss on what shall be kept",
        "L_ret: the same after",
        "lower is better",
    ):
        assert word in first


def test_by_exposure_and_what_next_are_there_without_a_script(contents, page):
    assert len(contents.exposure.panels) == 6
    assert page.count('<div class="exposure"') == 6
    assert 'id="exposure-choices" hidden' in page, "menus come with the script; without it all panels are shown"
    assert contents.exposure.rates == ["0.0001", "0.0003", "0.001"]
    assert "What next" in page
    assert f"--out {contents.steps[0].command.split()[-3]}" in page or contents.steps[0].command == ""
