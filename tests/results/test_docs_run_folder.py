"""docs/run-folder.md says what the files and the tables hold."""

import json
import re
from pathlib import Path

import pytest
from fake_study import FakeStudy, write_fake_study

from indelible.records import Bundle, Evaluation, PackedRows, Plan, SentRun, StageResult, TaskExamples
from indelible.results.curves import curves
from indelible.results.losses import losses
from indelible.results.run_folder import read_study_run
from indelible.study.views import PAPER_VIEWS

TEXT = (Path(__file__).parents[2] / "docs" / "run-folder.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```json\n(.*?)```", TEXT, re.S)
EXAMPLES = list(zip([Plan, PackedRows, TaskExamples, StageResult, Evaluation, SentRun, Bundle], BLOCKS, strict=True))


@pytest.mark.parametrize(("record", "text"), EXAMPLES)
def test_the_examples_are_records_with_every_field(record, text, tmp_path):
    path = tmp_path / "record.json"
    path.write_text(text)
    assert isinstance(record.read(path), record)
    assert set(json.loads(text)) == set(record.model_fields)


def columns_of(name):
    part = TEXT[TEXT.index(f"**{name}** has a row") :]
    rows = part[: part.find("\n\n**") if "\n\n**" in part else None]
    return re.findall(r"`(\w+)`", " ".join(re.findall(r"^\| (`.*?`|settings, `seed`) \|", rows, re.M)))


def test_the_columns_of_the_long_tables_are_documented(tmp_path):
    run = read_study_run(write_fake_study(tmp_path, FakeStudy(seeds=(0,), is_watched=True)))
    frame = losses(run)
    names = [name for name in frame.columns if name not in run.plan.chains[0].columns]
    assert columns_of("losses") == ["study", "chain", "seed", *names[1:]]
    assert [*columns_of("curves"), "lr"] == curves(run).columns


def test_the_views_are_documented():
    words = {"pretrain": "D_pre", "posttrain": "D_post", "finetune": "D_ft"}
    for name, (after, corpus) in PAPER_VIEWS.items():
        assert f"| `{name}` | {after} | {words[corpus]} |" in TEXT
