"""What nested seeds say: on the page and below the verdicts."""

import json

import numpy as np
import polars as pl
import pytest
import typer
from fake_study import FakeStudy, write_fake_study
from typer.testing import CliRunner

from indelible.claims.stage_seeds_text import stage_seeds_text
from indelible.cli.results_commands import register
from indelible.report.contents import table_contents
from indelible.report.page import report_html
from indelible.results.table import read_table


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    fake = FakeStudy(fractions=(0.0, 1.0), post_tokens=(10_000,), finetune_lrs=(1e-3,), is_traced=False)
    return read_table(write_fake_study(tmp_path_factory.mktemp("study"), fake))


def nested(plain, sds, num=4, hours=(1.0, 0.1)):
    """Every chain again with ``num`` fine-tuning seeds; the spread of L_ret is as given, by level."""
    generator = np.random.default_rng(0)
    rows = []
    for row in plain.iter_rows(named=True):
        first = generator.normal(0, sds[0])
        for again in range(num):
            made = {**row, "finetune_seed": again, "L_ret": 4.0 - row["exposure_fraction"] + first}
            made["L_ret"] += sds[1] * row["exposure_fraction"] * (-1) ** again
            made["finetune_id"] = f"{row['finetune_id']}-{again}"
            made |= {"pretrain_seconds": 3600 * hours[0], "posttrain_seconds": 0.0, "finetune_seconds": 3600 * hours[1]}
            rows.append(made)
    columns = list(plain.columns)
    columns.insert(columns.index("L_im"), "finetune_seed")
    return pl.DataFrame(rows, schema_overrides=plain.schema).select(columns)


def test_a_table_without_seeds_by_stage_says_nothing(plain):
    assert stage_seeds_text(plain) == ""


def test_cheap_seeds_of_a_noisy_stage_are_advised(plain):
    text = stage_seeds_text(nested(plain, (0.0, 0.2)))
    assert text.startswith("Seeds by stage (general>music>chemistry, L_ret at λ 1 minus λ 0): the spread")
    assert "first-stage 0 %" in text
    assert "finetune 100 %" in text
    assert "The cheapest way to halve the interval (±" in text
    assert "hours of training." in text
    counts = [int(word) for word in text.split(" is ")[-1].replace("x", " ").split() if word.isdigit()][:2]
    assert counts[0] >= 3
    assert counts[1] > 4, "fine-tunes are a tenth of the price"


def test_without_times_there_is_no_advice(plain):
    text = stage_seeds_text(nested(plain, (0.1, 0.2), hours=(0.0, 0.0)))
    assert "finetune" in text
    assert "hours" not in text


def test_one_seed_of_the_first_stage_cannot_be_told(plain):
    assert "seed: nowhere two seeds under one" in stage_seeds_text(nested(plain.filter(seed=0), (0.1, 0.2)))


def test_the_page_and_the_verdicts_say_it(plain, tmp_path):
    table = nested(plain, (0.1, 0.2))
    text = stage_seeds_text(table)
    assert "Seeds by stage" in report_html(table_contents(table))
    assert table_contents(table).stage_seeds == text
    table.write_parquet(tmp_path / "nested.parquet")
    app = typer.Typer()
    register(app)
    assert text in CliRunner().invoke(app, ["verdicts", str(tmp_path / "nested.parquet")]).stdout
    rows = json.loads(CliRunner().invoke(app, ["verdicts", str(tmp_path / "nested.parquet"), "--json"]).stdout)
    assert rows
