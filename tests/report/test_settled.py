"""The shipped reference beside a small study's own effects."""

from pathlib import Path

from fake_study import FakeStudy, write_fake_study

from indelible.claims.paper_claims import study_verdicts
from indelible.report.contents import table_contents
from indelible.report.page import report_html
from indelible.report.settled import reference_effects, settled_rows, shipped_reference
from indelible.results.table import read_table

REFERENCE = Path(__file__).parents[2] / "reference" / "central.parquet"


def test_the_shipped_numbers_are_those_of_the_reference_table():
    """If not: write `reference_json` of these verdicts to indelible/reference_values/central.json."""
    assert reference_effects(study_verdicts(read_table(REFERENCE))) == shipped_reference()
    assert {one.num_seeds for one in shipped_reference().values()} == {16}


def test_a_small_study_sees_it_beside_its_own(tmp_path):
    table = read_table(write_fake_study(tmp_path, FakeStudy(seeds=(0, 1), is_traced=False)))
    contents = table_contents(table)
    *own, reference = contents.settled
    assert len(own) == 2
    assert all(row[""].startswith("this study, ") and row["seeds"] == "2" for row in own)
    assert reference["seeds"] == "16"
    assert reference["L_ret with exposure"] == "-0.310 [-0.413, -0.208] (98.75 %)"
    page = report_html(contents)
    summary = page[page.index('id="section-summary"') : page.index('id="section-verdicts"')]
    assert "What settled looks like" in summary
    assert "-0.310 [-0.413, -0.208]" in summary


def test_one_seed_has_no_interval_and_many_seeds_need_no_reference(tmp_path):
    table = read_table(write_fake_study(tmp_path, FakeStudy(seeds=(0,), is_traced=False)))
    assert all(row["L_ret with exposure"].endswith("no interval") for row in table_contents(table).settled[:-1])
    assert settled_rows(study_verdicts(table), num_seeds=8) == []
    assert settled_rows([], num_seeds=1) == []
