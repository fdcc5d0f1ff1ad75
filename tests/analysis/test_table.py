"""The results table: one row a chain, typed, whatever the chain's status."""

import io
import json
import shutil

import polars as pl
import pytest
from fake_study import FakeStudy, write_fake_study

from indelible.analysis.claims import study_verdicts
from indelible.analysis.columns import COLUMNS, LOSSES, SCHEMA, setting_columns, varying
from indelible.analysis.runs import read_ledger, read_metrics
from indelible.analysis.table import read_table, table_bytes, write_table
from indelible.errors import UserError


@pytest.fixture
def folder(tmp_path):
    return write_fake_study(tmp_path / "run", FakeStudy(seeds=(0, 1), finetune_lrs=(1e-4, 1e-3)))


def edit_json(path, change):
    value = json.loads(path.read_text())
    change(value)
    path.write_text(json.dumps(value))


def test_one_row_a_chain_with_the_losses_of_the_right_runs(folder):
    table = read_table(folder)
    assert table.height == 2 * 3 * 2 * 2
    assert table["status"].to_list() == ["done"] * table.height
    for row in table.to_dicts():
        finetune = json.loads((folder / "runs" / row["finetune_id"] / "result.json").read_text())
        posttrain = json.loads((folder / "runs" / row["posttrain_id"] / "result.json").read_text())
        assert row["L_im"] == posttrain["losses"]["music"]["nats_per_token"]
        assert row["L_ret"] == finetune["losses"]["music"]["nats_per_token"]
        assert row["L_ft"] == finetune["losses"]["chemistry"]["nats_per_token"]
        assert row["L_pre"] == finetune["losses"]["general"]["nats_per_token"]
        assert row["L_pre_post"] == posttrain["losses"]["general"]["nats_per_token"]
        assert row["L_ret_bpb"] == finetune["losses"]["music"]["bits_per_byte"]
        assert row["posttrain_stop_reason"] == "patience"
        assert row["finetune_chemistry_tokens"] == 50_000
        assert (row["pretrain_music_tokens"] or 0) == round(row["exposure_fraction"] * row["post_tokens"])


def test_columns_are_typed_and_documented(folder):
    table = read_table(folder)
    assert {name: table.schema[name] for name in SCHEMA} == SCHEMA
    assert all(column.meaning for column in COLUMNS)
    assert len(SCHEMA) == len(COLUMNS)
    assert all(column.unit == "nats per token" for column in COLUMNS if column.name in LOSSES)


def test_incomplete_failed_and_diverged_chains_are_rows_too(folder):
    rows = read_table(folder).to_dicts()
    diverged, failed, missing = (row["finetune_id"] for row in rows[:3])
    edit_json(folder / "runs" / diverged / "result.json", lambda r: r.update(status="diverged", losses={}))
    (folder / "runs" / failed / "result.json").unlink()
    (folder / "runs" / failed / "failure.json").write_text('{"error": "disk full"}')
    shutil.rmtree(folder / "runs" / missing)
    table = read_table(folder)
    assert table["status"].to_list()[:4] == ["diverged", "failed", "incomplete", "done"]
    assert table["L_ret"].to_list()[:3] == [None, None, None]
    assert None not in table["L_im"].to_list()


def test_a_diverged_second_stage_makes_its_descendants_diverged(folder):
    rows = read_table(folder).to_dicts()
    posttrain = rows[0]["posttrain_id"]
    edit_json(folder / "runs" / posttrain / "result.json", lambda r: r.update(status="diverged", losses={}))
    for row in rows:
        if row["posttrain_id"] == posttrain:
            shutil.rmtree(folder / "runs" / row["finetune_id"])
    statuses = {row["status"] for row in read_table(folder).to_dicts() if row["posttrain_id"] == posttrain}
    assert statuses == {"diverged"}


def test_a_chain_from_a_checkpoint_needs_two_results(folder):
    def forget_pretrain(plan):
        for chain in plan["chains"]:
            chain["pretrain_id"] = None

    edit_json(folder / "plan.json", forget_pretrain)
    table = read_table(folder)
    assert table["status"].unique().to_list() == ["done"]
    assert table["pretrain_id"].null_count() == table.height


def test_extra_settings_of_the_plan_are_kept_and_typed(tmp_path):
    extra = {"posttrain_weight_decay": 0.1, "loss_on": "all", "betas": [0.9, 0.95], "is_tied": True, "warmup_steps": 5}
    table = read_table(write_fake_study(tmp_path, FakeStudy(seeds=(0,), extra_settings=extra)))
    assert table.schema["posttrain_weight_decay"] == pl.Float64
    assert table.schema["betas"] == pl.String
    assert table["betas"][0] == "[0.9, 0.95]"
    assert (table.schema["is_tied"], table.schema["warmup_steps"]) == (pl.Boolean, pl.Int64)
    assert set(extra) <= set(setting_columns(table))
    assert "seed" not in setting_columns(table)
    assert varying(table, setting_columns(table)) == ["exposure_fraction", "post_tokens", "finetune_lr"]


def test_a_loss_that_is_not_finite_is_absent(folder):
    run_id = read_table(folder)["finetune_id"][0]
    edit_json(folder / "runs" / run_id / "result.json",
              lambda r: r["losses"]["music"].update(nats_per_token=float("nan")))  # fmt: skip
    table = read_table(folder)
    assert table["L_ret"][0] is None
    assert json.loads(table_bytes(table, "json"))[0]["L_ret"] is None


@pytest.mark.parametrize("format_name", ["csv", "json", "parquet"])
def test_formats_give_the_same_table_back(folder, tmp_path, format_name):
    table = read_table(folder)
    path = tmp_path / f"results.{format_name}"
    write_table(table, path, format_name)
    if format_name == "parquet":
        assert pl.read_parquet(path).equals(table)
    elif format_name == "csv":
        assert pl.read_csv(io.BytesIO(path.read_bytes()), schema=table.schema).equals(table)
    else:
        assert json.loads(path.read_text()) == table.to_dicts()


def test_metrics_leave_out_a_cut_last_line_only(folder):
    run_id = read_table(folder)["posttrain_id"][0]
    path = folder / "runs" / run_id / "metrics.jsonl"
    whole = read_metrics(folder, run_id)
    path.write_text(path.read_text() + '{"step": 12, "tok')
    assert read_metrics(folder, run_id) == whole
    path.write_text("{broken\n" + path.read_text())
    with pytest.raises(UserError, match=r"metrics\.jsonl, line 1: not JSON .* delete the line"):
        read_metrics(folder, run_id)
    assert read_metrics(folder, "no-such-run") == []


def test_ledger_is_read_when_there_is_one(folder):
    run_id = read_table(folder)["pretrain_id"][0]
    assert read_ledger(folder, run_id)["bins"] == 50
    assert read_ledger(folder, "no-such-run") is None


def test_errors_say_what_to_do(folder, tmp_path):
    with pytest.raises(UserError, match=r"no plan\.json\. Give the folder that `indelible run"):
        read_table(tmp_path)
    run_id = read_table(folder)["finetune_id"][0]
    result = folder / "runs" / run_id / "result.json"
    result.write_text("{")
    with pytest.raises(UserError, match=r"result\.json: not a JSON file .* run the study again"):
        read_table(folder)
    with pytest.raises(UserError, match="--format xls: not a format of the table; choose one of csv, json, parquet"):
        table_bytes(pl.DataFrame(), "xls")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda plan: plan.update(format=2), "format 2, but this release reads format 1"),
        (lambda plan: plan.pop("chains"), "`chains` is missing or not a list"),
        (lambda plan: plan["chains"][0].update(pretrain_id="../../etc"), "'../../etc' is not a folder name"),
        (lambda plan: plan["stage_runs"][0].update(id=".hidden"), "'.hidden' is not a folder name"),
    ],
)
def test_a_plan_that_cannot_be_read_is_refused(folder, change, message):
    edit_json(folder / "plan.json", change)
    with pytest.raises(UserError, match=message):
        read_table(folder)


@pytest.mark.parametrize("format_name", ["parquet", "csv"])
def test_a_written_table_is_read_back_and_judged_alike(folder, format_name):
    table = read_table(folder)
    write_table(table, folder / f"table.{format_name}", format_name)
    again = read_table(folder / f"table.{format_name}")
    assert {name: again.schema[name] for name in SCHEMA} == SCHEMA
    losses = ["finetune_id", "seed", *LOSSES]
    assert again.select(losses).equals(table.select(losses))
    assert study_verdicts(again) == study_verdicts(table)


def test_a_file_that_is_no_results_table_is_refused_with_the_rule(tmp_path):
    (tmp_path / "table.csv").write_text("study,seed\na,1\n")
    with pytest.raises(UserError, match=r"table.csv: has no column scale.*expected a results table"):
        read_table(tmp_path / "table.csv")
    (tmp_path / "table.txt").write_text("study")
    with pytest.raises(UserError, match=r"neither the folder of a study run nor a .csv or .parquet"):
        read_table(tmp_path / "table.txt")
    (tmp_path / "table.parquet").write_bytes(b"no parquet")
    with pytest.raises(UserError, match="cannot be read"):
        read_table(tmp_path / "table.parquet")
