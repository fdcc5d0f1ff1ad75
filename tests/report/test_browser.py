"""The report in a real browser: loads cleanly, links its views, shows tooltips, works in the dark and on a phone."""

import base64
import re

import pytest
from browser import Browser, find_or_install
from fake_files import merge_studies
from fake_study import FakeStudy, write_fake_study
from resolved_study import write_resolved_study

from indelible.report.contents import report_contents
from indelible.report.page import report_html
from indelible.results.run_folder import read_study_run

pytestmark = pytest.mark.slow  # a browser, and where there is none its installation
HOSTILE = "</script><script>window.hacked=1</script><img src=x onerror='window.hacked=1'>"
# Dots of the trade-off views, as drawn: one list a view, each dot with its chain, place, opacity and size.
DOTS = """
const groups = document.querySelectorAll('#chart-tradeoff .mark-symbol.role-mark');
return [...groups].map((group) => [...group.querySelectorAll('path')].map((path) => {
  const box = path.getBoundingClientRect();
  const datum = path.__data__.datum;
  return {chain: datum.chain, L_ft: datum.L_ft, L_ret: datum.L_ret, series: datum.series,
          x: box.x + box.width / 2, y: box.y + box.height / 2, width: box.width,
          opacity: Number(getComputedStyle(path).opacity)};
})).filter((dots) => dots.length);
"""


@pytest.fixture(scope="module")
def browser():
    reason = find_or_install()
    if reason:
        pytest.skip(f"no real browser: {reason}")
    with Browser() as session:
        yield session


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    folder = write_fake_study(tmp_path_factory.mktemp("study") / "run", FakeStudy())
    page = folder / "report.html"
    page.write_text(report_html(report_contents(read_study_run(folder))))
    return page.as_uri()


def show(browser, address, *, scheme="light", width=1200):
    browser.cdp("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
    browser.cdp("Emulation.setDeviceMetricsOverride", width=width, height=900, deviceScaleFactor=1, mobile=width < 600)
    browser.open(address)
    browser.wait_for("return document.documentElement.dataset.ready")


def dots_in_view(browser):
    browser.script("document.getElementById('chart-tradeoff').scrollIntoView()")
    left, right = browser.script(DOTS)
    return left, right


def test_loads_without_a_message_or_a_request(browser, address):
    show(browser, address)
    assert browser.logs("browser") == []
    assert browser.requests() == []
    names = browser.script("return [...document.querySelectorAll('.chart')].map((one) => one.id.slice(6))")
    assert names == ["retention", "effects", "lambda", "erased", "tradeoff", "settings", "curves", "ledger", "cost"]
    drawn = "return [...document.querySelectorAll('.chart')].map((one) => !!one.querySelector('svg path'))"
    assert browser.script(drawn) == [True] * 9


def test_a_given_checkpoint_has_a_clean_page_with_every_chart(browser, tmp_path):
    study = {"name": "x", "scale": "pico", "pipeline": {"pre": "general", "post": "music", "ft": "chemistry"},
             "seeds": [0, 1], "init": {"from": "/models/base", "at": "finetune"},
             "finetune": {"lr": [1e-5, 1e-4, 1e-3]}, "stages": {"finetune": {"watch": {}}}}  # fmt: skip
    folder = write_resolved_study(tmp_path / "run", study, is_traced=True)
    page = folder / "report.html"
    page.write_text(report_html(report_contents(read_study_run(folder))))
    show(browser, page.as_uri())
    assert browser.logs("browser") == []
    names = browser.script("return [...document.querySelectorAll('.chart')].map((one) => one.id.slice(6))")
    assert names == ["erased", "tradeoff", "settings", "curves", "paths", "cost"]
    drawn = "return [...document.querySelectorAll('.chart')].map((one) => !!one.querySelector('svg path'))"
    assert browser.script(drawn) == [True] * 6
    first = browser.script("return document.querySelector('#chart-erased').getBoundingClientRect()")
    assert first["top"] < 900
    assert first["height"] > 100


def test_a_chart_that_cannot_be_drawn_leaves_the_others(browser, tmp_path):
    folder = write_fake_study(tmp_path / "run", FakeStudy(seeds=(0,)))
    text = report_html(report_contents(read_study_run(folder)))
    spec = r'(\{"name":"lambda","description":"[^"]*","spec":\{)'
    broken = re.sub(spec, r'\1"transform":[{"filter":"1 +"}],', text, count=1)
    missing = broken.replace('{"name":"settings",', '{"name":"nowhere",', 1)
    assert len({text, broken, missing}) == 3
    page = folder / "report.html"
    page.write_text(missing)
    show(browser, page.as_uri())
    assert "This chart cannot be drawn" in browser.script("return document.getElementById('chart-lambda').textContent")
    drawn = "return [...document.querySelectorAll('.chart')].filter((one) => one.querySelector('svg path')).length"
    assert browser.script(drawn) == len(report_contents(read_study_run(folder)).figures) - 2
    assert any("lambda" in entry["message"] for entry in browser.logs("browser"))


def test_the_content_policy_stops_requests_of_any_kind(browser, address):
    show(browser, address)
    browser.script("fetch('http://127.0.0.1:9/x').catch(() => { window.stopped = true })")
    browser.wait_for("return window.stopped")
    assert browser.requests() == []


def test_a_brush_in_one_view_marks_the_same_chains_in_the_other(browser, address):
    show(browser, address)
    left, right = dots_in_view(browser)
    assert {dot["opacity"] for dot in left + right} == {0.9}
    xs, ys = sorted(dot["x"] for dot in left), sorted(dot["y"] for dot in left)
    start, end = (xs[0] - 8, ys[0] - 8), (xs[len(xs) // 3] + 2, ys[len(ys) // 2] + 2)
    inside = {dot["chain"] for dot in left if dot["x"] < end[0] and dot["y"] < end[1]}
    assert 0 < len(inside) < len(left)
    browser.mouse(("down", *start), ("move", *end), ("up", *end))
    browser.wait_for("return Object.keys(report.views.tradeoff.signal('brush')).length > 0")
    for dots in browser.script(DOTS):
        assert {dot["chain"] for dot in dots if dot["opacity"] == 0.9} == inside
        assert {dot["opacity"] for dot in dots if dot["chain"] not in inside} == {0.07}


def test_a_hover_shows_settings_and_run_ids_and_marks_the_chain_in_both_views(browser, address):
    show(browser, address)
    left, _ = dots_in_view(browser)
    dot = min(left, key=lambda one: one["x"] + one["y"])
    browser.mouse(("move", dot["x"] + 200, dot["y"] + 300), ("move", dot["x"], dot["y"]))
    shown = browser.wait_for("return document.querySelector('#vg-tooltip-element.visible')?.innerText")
    row = browser.script("return report.rows.chains.find((one) => one.chain === arguments[0])", dot["chain"])
    for stage in ("pretrain", "posttrain", "finetune"):
        assert row[f"{stage}_id"] in shown
    assert f"{row['L_ret']:.4f}" in shown
    assert "stage-3 LR" in shown
    for dots in browser.script(DOTS):
        large = [one["chain"] for one in dots if one["width"] > 1.5 * min(other["width"] for other in dots)]
        assert dot["chain"] in large
        assert len(large) <= 2  # dots that lie on each other answer together


def test_a_legend_entry_shows_one_arm(browser, address):
    show(browser, address)
    dots_in_view(browser)
    place = browser.script("""
      const label = [...document.querySelectorAll('#chart-tradeoff .role-legend-label text')]
        .find((one) => one.textContent === 'λ 0.5').getBoundingClientRect();
      return [label.x + label.width / 2, label.y + label.height / 2]""")
    browser.mouse(("move", *place), ("down", *place), ("up", *place))
    browser.wait_for("return report.views.tradeoff.data('shown_exposure_store').length > 0")
    for dots in browser.script(DOTS):
        assert {dot["series"] for dot in dots if dot["opacity"] == 0.9} == {"λ 0.5"}
        assert {dot["opacity"] for dot in dots if dot["series"] != "λ 0.5"} == {0.07}


def test_the_system_and_the_button_choose_the_theme(browser, address):
    colors = """
      const label = document.querySelector('#chart-lambda .role-axis-title text');
      return [getComputedStyle(document.body).backgroundColor, getComputedStyle(label).fill]"""
    show(browser, address, scheme="dark")
    assert browser.script(colors) == ["rgb(20, 23, 28)", "rgb(230, 232, 235)"]
    button = "document.getElementById('theme').click()"
    browser.script(button)  # auto to light
    browser.wait_for("return document.documentElement.dataset.ready === 'light'")
    assert browser.script(colors) == ["rgb(255, 255, 255)", "rgb(31, 35, 40)"]
    browser.script(button)
    browser.wait_for("return document.documentElement.dataset.ready === 'dark'")
    assert browser.script(colors)[0] == "rgb(20, 23, 28)"
    browser.cdp("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": "light"}])
    browser.script(button)  # dark to auto
    browser.wait_for("return document.documentElement.dataset.ready === 'light'")
    assert browser.logs("browser") == []


@pytest.mark.parametrize("width", [360, 768])
def test_nothing_is_wider_than_the_screen(browser, address, width):
    show(browser, address, width=width)
    assert browser.script("return document.documentElement.scrollWidth") <= width
    wide = "return [...document.querySelectorAll('.chart svg')].filter((s) => s.clientWidth > innerWidth).length"
    assert browser.script(wide) == 0


def test_the_first_column_of_a_table_keeps_its_words_on_a_phone(browser, address):
    show(browser, address, width=390)
    width = browser.script("return document.querySelector('#section-summary table.grid tbody th').offsetWidth")
    assert width >= 110


def test_prints_on_white_even_from_the_dark(browser, address):
    show(browser, address, scheme="dark")
    document = base64.b64decode(browser.cdp("Page.printToPDF", printBackground=True)["data"])
    assert document.startswith(b"%PDF")
    assert document.count(b"/Type /Page\n") + document.count(b"/Type /Page ") >= 3
    browser.cdp("Emulation.setEmulatedMedia", media="print",
                features=[{"name": "prefers-color-scheme", "value": "dark"}])  # fmt: skip
    look = """return [getComputedStyle(document.body).backgroundColor, getComputedStyle(document.body).color,
                      getComputedStyle(document.querySelector('#chart-lambda svg')).filter]"""
    assert browser.script(look) == ["rgb(255, 255, 255)", "rgb(0, 0, 0)", "invert(1) hue-rotate(180deg)"]
    browser.cdp("Emulation.setEmulatedMedia", media="", features=[])


def test_the_chosen_chain_changes_the_curves(browser, address):
    show(browser, address)
    before = browser.script("return document.querySelector('#chart-curves .mark-line path').getAttribute('d')")
    browser.script("""
      const menu = document.querySelector('#chart-curves select');
      menu.selectedIndex = menu.options.length - 1;
      menu.dispatchEvent(new Event('input', {bubbles: true}));
      menu.dispatchEvent(new Event('change', {bubbles: true}));""")
    chosen = browser.wait_for("const chain = report.views.curves.signal('chain'); return chain.includes('s2') && chain")
    drawn = browser.script("""
      const dots = document.querySelectorAll('#chart-curves .mark-symbol.role-mark path');
      return [...dots].map((one) => one.__data__.datum.run)""")
    assert set(drawn) == set(chosen.split())
    browser.script("report.views.curves.signal('axis', 'tokens').run()")
    after = browser.script("return document.querySelector('#chart-curves .mark-line path').getAttribute('d')")
    assert after != before


def choose(browser, chart, option):
    """Picks the option with this text in the first menu of a chart that has it."""
    browser.script("""
      for (const menu of document.querySelectorAll(`#chart-${arguments[0]} select`)) {
        const index = [...menu.options].findIndex((one) => one.text === arguments[1]);
        if (index < 0) continue;
        menu.selectedIndex = index;
        menu.dispatchEvent(new Event('input', {bubbles: true}));
        menu.dispatchEvent(new Event('change', {bubbles: true}));
      }""", chart, option)  # fmt: skip


def test_the_first_screen_says_what_was_found(browser, address):
    show(browser, address)
    sentence = browser.script("""
      const one = document.querySelector('.headline .sentence');
      return [one.innerText, one.getBoundingClientRect().bottom]""")
    assert "After the later fine-tune" in sentence[0]
    assert sentence[1] < 900
    points = browser.script("return document.querySelector('.headline .points').innerText")
    assert "3 seeds" in points
    assert "[" in points


def test_the_main_figure_follows_its_menu_and_names_its_runs(browser, address):
    show(browser, address)
    choose(browser, "retention", "stage-3 LR 0.001")
    browser.wait_for("return report.views.retention.signal('slice') === 'stage-3 LR 0.001'")
    titles = "return [...document.querySelectorAll('#chart-retention .role-title text')].map((one) => one.textContent)"
    assert "This study: stage-3 LR 0.001 · 3 seeds" in browser.script(titles)
    dots = """
      const found = [...document.querySelectorAll('#chart-retention .mark-symbol.role-mark path')]
        .filter((one) => one.__data__.datum.slice && one.__data__.datum.exposure_fraction === 1
                         && one.__data__.datum.loss === 'L_ret');
      return found.map((one) => { const box = one.getBoundingClientRect();
        return [one.__data__.datum.slice, box.x + box.width / 2, box.y + box.height / 2, one.__data__.datum.runs]; })"""
    browser.script("document.getElementById('chart-retention').scrollIntoView()")
    found = browser.script(dots)
    assert {dot[0] for dot in found} == {"stage-3 LR 0.001"}
    assert len(found) == 2  # one for each |D_post|
    _, x, y, runs = found[0]
    browser.mouse(("move", x + 60, y + 40), ("move", x, y))
    shown = browser.wait_for("return document.querySelector('#vg-tooltip-element.visible')?.innerText")
    assert runs.split(",")[0] in shown


def test_pipelines_are_shown_one_at_a_time(browser, tmp_path):
    roots = [write_fake_study(tmp_path / last, FakeStudy(seeds=(0,), pipeline=("general", "music", last)))
             for last in ("chemistry", "instruction")]  # fmt: skip
    root = merge_studies(roots)
    page = root / "report.html"
    page.write_text(report_html(report_contents(read_study_run(root))))
    show(browser, page.as_uri())
    shown = """return [...new Set([...document.querySelectorAll('#chart-tradeoff .mark-symbol.role-mark path')]
      .map((one) => one.__data__.datum.pipeline).filter((one) => one))]"""
    assert browser.script(shown) == ["general>music>chemistry"]
    choose(browser, "tradeoff", "general>music>instruction")
    browser.wait_for("return report.views.tradeoff.signal('pipeline') === 'general>music>instruction'")
    assert browser.script(shown) == ["general>music>instruction"]
    assert browser.logs("browser") == []


def test_the_table_sorts_and_grows(browser, address):
    show(browser, address)
    column = (
        """return [...document.querySelectorAll('#table tbody tr')].map((row) => Number(row.cells[4].textContent))"""
    )
    assert len(browser.script(column)) == 25
    browser.script("[...document.querySelectorAll('#table th')].find((one) => one.textContent === 'L_ret').click()")
    values = browser.script(column)
    assert values == sorted(values)
    assert values[0] == pytest.approx(
        browser.script("return Math.min(...report.rows.table.map((r) => r.L_ret))"), abs=1e-4
    )
    browser.script("document.getElementById('more').click()")
    assert len(browser.script(column)) == 54


def test_thousands_of_chains_are_drawn_on_a_canvas_and_still_linked(browser, tmp_path):
    rates = tuple(1e-4 * 1.08**step for step in range(40))
    study = FakeStudy(posttrain_lrs=(1e-4, 3e-4, 1e-3, 3e-3), finetune_lrs=rates, is_traced=False)
    folder = write_fake_study(tmp_path / "run", study)
    page = folder / "report.html"
    page.write_text(report_html(report_contents(read_study_run(folder))))
    show(browser, page.as_uri())
    assert browser.logs("browser") == []
    assert browser.script("return report.rows.chains.length") == 2_880
    browser.script("document.getElementById('chart-tradeoff').scrollIntoView()")
    box = browser.script("""
      const box = document.querySelector('#chart-tradeoff canvas').getBoundingClientRect();
      return [box.x, box.y, box.width, box.height]""")
    start, end = (box[0] + 0.1 * box[2], box[1] + 0.3 * box[3]), (box[0] + 0.3 * box[2], box[1] + 0.6 * box[3])
    browser.mouse(("down", *start), ("move", *end), ("up", *end))
    brushed = browser.wait_for("const b = report.views.tradeoff.signal('brush'); return Object.keys(b).length && b")
    assert set(brushed) == {"L_ft", "L_ret"}


def test_text_of_a_study_is_text(browser, tmp_path):
    study = FakeStudy(name=HOSTILE, seeds=(0,), extra_settings={"note": HOSTILE}, pipeline=("general", "<b>x</b>", "c"))
    folder = write_fake_study(tmp_path / "run", study)
    page = folder / "report.html"
    page.write_text(report_html(report_contents(read_study_run(folder))))
    show(browser, page.as_uri())
    assert browser.logs("browser") == []
    assert browser.script("return [window.hacked ?? null, document.querySelector('h1').textContent]") == [None, HOSTILE]
    left, _ = dots_in_view(browser)
    browser.mouse(("move", left[0]["x"] + 90, left[0]["y"] + 90), ("move", left[0]["x"], left[0]["y"]))
    browser.wait_for("return document.querySelector('#vg-tooltip-element.visible')")
    assert browser.script("return [window.hacked ?? null, document.querySelectorAll('img, b b').length]") == [None, 0]


def test_a_study_without_results_has_a_clean_page(browser, tmp_path):
    folder = write_fake_study(tmp_path / "run", FakeStudy(seeds=(0,)))
    for result in folder.glob("runs/*/result.json"):
        result.unlink()
    page = folder / "report.html"
    page.write_text(report_html(report_contents(read_study_run(folder))))
    show(browser, page.as_uri())
    assert browser.logs("browser") == []
    assert "18 incomplete" in browser.script("return document.querySelector('.statuses').innerText")
