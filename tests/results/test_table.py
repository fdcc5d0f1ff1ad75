"""The results table: one row a chain, typed, whatever the chain's status."""

import io
import json
import math

import polars as pl
import pytest
from fake_files import diverge, edit_json, forget, losses_of, set_loss
from fake_study import FakeStudy, write_fake_study
from resolved_study import write_resolved_study

from indelible.claims.paper_claims import study_verdicts
from indelible.errors import UserError
from indelible.results.columns import (
    COLUMNS,
    LOSSES,
    SCHEMA,
    id_columns,
    setting_columns,
    stages_of,
    token_columns,
    varying,
    view_columns,
)
from indelible.results.run_folder import read_ledger, read_metrics
from indelible.results.table import read_table, table_bytes, write_table

PAPER = {"name": "x", "scale": "pico", "pipeline": {"pre": "general", "post": "music", "ft": "chemistry"}, "seeds": [0]}


@pytest.fixture
def folder(tmp_path):
    return write_fake_study(tmp_path / "run", FakeStudy(seeds=(0, 1), finetune_lrs=(1e-4, 1e-3)))


def test_one_row_a_chain_with_the_losses_of_the_right_runs(folder):
    table = read_table(folder)
    assert table.height == 2 * 3 * 2 * 2
    assert table["status"].to_list() == ["done"] * table.height
    for row in table.to_dicts():
        finetune, posttrain = losses_of(folder, row["finetune_id"]), losses_of(folder, row["posttrain_id"])
        assert row["L_im"] == posttrain["music"]
        assert row["L_ret"] == finetune["music"]
        assert row["L_ft"] == finetune["chemistry"]
        assert row["L_pre"] == finetune["general"]
        assert row["L_pre_post"] == posttrain["general"]
        assert row["forgotten"] == finetune["music"] - posttrain["music"]
        assert row["L_ret_bpb"] == finetune["music"] / 2.9
        assert row["L_ret_se"] == 0.02
        assert row["posttrain_stop_reason"] == "patience"
        assert row["finetune_chemistry_tokens"] == 50_000
        assert (row["pretrain_music_tokens"] or 0) == round(row["exposure_fraction"] * row["post_tokens"])


def test_columns_are_typed_and_documented(folder):
    table = read_table(folder)
    assert {name: table.schema[name] for name in SCHEMA} == SCHEMA
    assert all(column.meaning for column in COLUMNS)
    assert len(SCHEMA) == len(COLUMNS)
    assert all(column.unit == "nats per token" for column in COLUMNS if column.name in LOSSES)


def fail(path, run_id, **more):
    record = {"format": 1, "id": run_id, "kind": "infrastructure", "type": "OSError", "message": "disk full",
              "attempt": 1, "failures": 1, "is_final": False, **more}  # fmt: skip
    path.write_text(json.dumps(record))


def test_incomplete_failed_and_diverged_chains_are_rows_too(folder):
    diverged, failed, missing = read_table(folder)["finetune_id"][:3]
    diverge(folder, diverged)
    (folder / "runs" / failed / "result.json").unlink()
    fail(folder / "runs" / failed / "failure.json", failed)
    forget(folder, missing)
    table = read_table(folder)
    assert table["status"].to_list()[:4] == ["diverged", "failed", "incomplete", "done"]
    assert table["L_ret"].to_list()[:3] == [None, None, None]
    assert table["forgotten"].to_list()[:3] == [None, None, None]
    assert None not in table["L_im"].to_list()


def test_a_diverged_second_stage_makes_its_descendants_diverged(folder):
    rows = read_table(folder).to_dicts()
    posttrain = rows[0]["posttrain_id"]
    diverge(folder, posttrain)
    for row in rows:
        if row["posttrain_id"] == posttrain:
            forget(folder, row["finetune_id"])
    statuses = {row["status"] for row in read_table(folder).to_dicts() if row["posttrain_id"] == posttrain}
    assert statuses == {"diverged"}


def evaluation_files(folder, checkpoint, corpus):
    return list((folder / "evaluations" / checkpoint).glob(f"{corpus}-*.json"))


def test_a_chain_is_done_when_the_evaluations_that_it_shows_are(folder):
    first, second, third, fourth = read_table(folder)["finetune_id"][:4]
    for path in evaluation_files(folder, first, "music"):
        path.unlink()
    for path in evaluation_files(folder, second, "general"):
        path.unlink()
        fail(path.with_name("failure.json"), f"evaluations/{second}")
    set_loss(folder, third, "chemistry", nats_per_token=None, bits_per_byte=None, status="diverged")
    table = read_table(folder)
    assert table["status"].to_list()[:4] == ["incomplete", "failed", "diverged", "done"]
    assert table["L_ret"].is_null().to_list()[:4] == [True, False, False, False]
    assert table["L_ft"].is_null().to_list()[:4] == [False, False, True, False]
    assert table["finetune_id"][3] == fourth


def test_evaluations_that_no_loss_shows_hold_nothing_up(folder):
    pretrain = read_table(folder)["pretrain_id"][0]
    set_loss(folder, pretrain, "chemistry", nats_per_token=None, status="diverged")
    for path in evaluation_files(folder, pretrain, "music"):
        path.unlink()
    assert read_table(folder)["status"].unique().to_list() == ["done"]


@pytest.mark.parametrize(
    ("at", "not_run"), [("pretrain", []), ("posttrain", ["pretrain"]), ("finetune", ["pretrain", "posttrain"])]
)
def test_stages_before_a_given_checkpoint_leave_empty_columns(tmp_path, at, not_run):
    study = PAPER | {"init": {"from": "/models/base", "at": at}, "finetune": {"lr": [1e-5, 1e-3]}}
    table = read_table(write_resolved_study(tmp_path, study))
    assert table["status"].to_list() == ["done", "done"]
    assert table["start"].str.starts_with("given-").all()
    for stage in ("pretrain", "posttrain", "finetune"):
        absent = [f"{stage}_id", f"{stage}_lr", f"{stage}_seconds", f"{stage}_flops"]
        assert {table[name].null_count() for name in absent} == ({2} if stage in not_run else {0})
    assert table["exposure_fraction"].null_count() == (2 if "pretrain" in not_run else 0)
    assert table["L_im"].null_count() == table["L_ret"].null_count() == table["forgotten"].null_count() == 0
    if at == "finetune":  # before the first stage that is run, the given checkpoint has the losses
        assert table["L_im"].unique().to_list() == [losses_of(tmp_path, table["start"][0])["music"]]


def test_a_chain_takes_its_starts_losses_at_its_own_length(tmp_path):
    study = PAPER | {"init": {"from": "/models/base", "at": "finetune"}, "seq_len": [64, 128]}
    folder = write_resolved_study(tmp_path, study)
    start = read_table(folder)["start"][0]
    files = sorted(evaluation_files(folder, start, "music"))
    assert len(files) == 2
    for number, path in enumerate(files):
        edit_json(path, lambda record, number=number: record.update(nats_per_token=3.0 + number))
    assert sorted(read_table(folder)["L_im"].to_list()) == [3.0, 4.0]


def test_several_given_checkpoints_are_a_setting(tmp_path):
    study = PAPER | {"init": {"from": ["/models/base", "/models/other"], "at": "finetune"}}
    table = read_table(write_resolved_study(tmp_path, study))
    assert table["init"].to_list() == ["/models/base", "/models/other"]
    assert table["start"].n_unique() == 2
    assert "init" in setting_columns(table)
    assert "start" not in setting_columns(table)


FIVE = PAPER | {
    "seeds": [0, 1],
    "stages": {"second": {"corpus": "instruction"}, "second_again": {"corpus": "music", "tokens": "5k"}},
    "views": {"L_second": {"after": "second", "corpus": "posttrain"},
              "L_again": {"after": "second_again", "corpus": "music"}},
}  # fmt: skip


def test_stages_and_losses_of_ones_own_have_their_places(tmp_path):
    table = read_table(write_resolved_study(tmp_path, FIVE))
    assert stages_of(table) == ["pretrain", "posttrain", "finetune", "second", "second_again"]
    assert id_columns(table)[-2:] == ["second_again_id", "start"]
    assert view_columns(table) == ["L_second", "L_again"]
    names = table.columns
    places = ["posttrain_global_batch_size", "L_im", "L_pre_post", "forgotten", "L_second", "L_again", "L_im_bpb",
              "L_second_bpb", "L_im_se", "L_again_se", "pretrain_id", "finetune_id", "second_id", "start",
              "posttrain_stop_reason", "status", "pretrain_seconds", "second_again_seconds", "pretrain_flops",
              "second_again_flops", "pretrain_general_tokens"]  # fmt: skip
    assert [names.index(name) for name in places] == sorted(names.index(name) for name in places)
    assert token_columns(table, "second") == ["second_instruction_tokens"]
    assert token_columns(table, "second_again") == ["second_again_music_tokens"]
    for row in table.to_dicts():
        assert row["L_second"] == losses_of(tmp_path, row["second_id"])["music"]
        assert row["L_again"] == losses_of(tmp_path, row["second_again_id"])["music"]


def test_stages_stand_in_the_order_of_every_chain(tmp_path):
    study = PAPER | {"stages": {"second": {"corpus": "instruction"}},
                     "arms": {"late": {"init": {"from": "/models/base", "at": "second"}}, "all": {}}}  # fmt: skip
    table = read_table(write_resolved_study(tmp_path, study))
    assert stages_of(table) == ["pretrain", "posttrain", "finetune", "second"]
    assert table.filter(arm="late").select("pretrain_id", "posttrain_id", "finetune_id").null_count().row(0) == (1,) * 3


def test_a_loss_named_like_a_column_is_refused(tmp_path):
    """The study file refuses it too; a plan may be older or edited."""
    root = write_resolved_study(tmp_path, PAPER)
    edit_json(root / "plan.json", lambda plan: [chain["views"].update(status=chain["views"]["L_ft"])
                                                for chain in plan["chains"]])  # fmt: skip
    with pytest.raises(UserError, match=r"views: the results table has a column status already; .* e\.g\. L_status"):
        read_table(root)


def test_tokens_of_a_corpus_that_a_stage_uses_twice_are_counted_by_use(folder):
    run_id = read_table(folder)["finetune_id"][0]
    edit_json(folder / "runs" / run_id / "result.json",
              lambda result: result.update(tokens_seen={"music": 300, "music:replay music": 20}))  # fmt: skip
    row = read_table(folder).row(0, named=True)
    assert (row["finetune_music_tokens"], row["finetune_music_replay_music_tokens"]) == (300, 20)


SWEEP = PAPER | {
    "exposure": {"fraction": [0, 1]},
    "finetune": {"global_batch_size": [8, 16, 32]},
    "posttrain": {"weight_decay": [0, 0.1]},
}


def test_whatever_a_study_sweeps_is_a_setting(tmp_path):
    table = read_table(write_resolved_study(tmp_path, SWEEP))
    assert table.height == 12
    assert varying(table, setting_columns(table)) == [
        "exposure_fraction", "posttrain_weight_decay", "finetune_global_batch_size"
    ]  # fmt: skip
    assert table.select(setting_columns(table)).n_unique() == 12
    assert table.schema["finetune_global_batch_size"] == pl.Int64
    assert table.schema["posttrain_weight_decay"] == pl.Float64


def test_seeds_of_single_stages_are_settings(tmp_path):
    table = read_table(write_resolved_study(tmp_path, PAPER | {"seeds": {"pretrain": [0, 1], "finetune": [0, 1, 2]}}))
    assert table.select("seed", "finetune_seed").n_unique() == 6
    assert "finetune_seed" in setting_columns(table)


def test_chains_that_no_column_tells_apart_are_refused_with_what_differs(tmp_path):
    """A plan that lost a column: nothing is pooled as if it were seeds."""
    folder = write_resolved_study(tmp_path, SWEEP)

    def lose_column(plan):
        for chain in plan["chains"]:
            chain["columns"].pop("finetune_global_batch_size")

    edit_json(folder / "plan.json", lose_column)
    message = (
        r"run: two chains have the same settings and seed, and are other runs: (finetune-\S+) and (finetune-\S+)\. "
        r"Their specs differ in training\.global_batch_size: 8 and 16\. .* give each an arm of its own"
    )
    with pytest.raises(UserError, match=message.replace("run:", "")):
        read_table(folder)


@pytest.mark.parametrize("format_name", ["parquet", "csv"])
def test_a_stored_table_is_held_to_the_same(tmp_path, folder, format_name):
    table = read_table(folder).with_columns(pl.lit(1e-3).alias("finetune_lr"))
    path = tmp_path / f"pooled.{format_name}"
    write_table(table, path, format_name)
    with pytest.raises(UserError, match=r"pooled\.\w+: two chains have the same settings and seed"):
        read_table(path)


def test_the_same_runs_twice_are_no_contradiction(folder):
    edit_json(folder / "plan.json", lambda plan: plan["chains"].append(plan["chains"][0]))
    assert read_table(folder).height == 2 * 3 * 2 * 2 + 1


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


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_loss_that_is_not_finite_is_refused(folder, value):
    """Where a loss is not finite we write null and `diverged`; JSON readers would let NaN and infinity pass."""
    run_id = read_table(folder)["finetune_id"][0]
    set_loss(folder, run_id, "music", nats_per_token=value)
    with pytest.raises(UserError, match=r"music-.*\.json: not a JSON file \((NaN|Infinity) stands in it"):
        read_table(folder)
    set_loss(folder, run_id, "music", nats_per_token=None)
    with pytest.raises(UserError, match=r"music-.*\.json: .*status is done, and nats_per_token has no number"):
        read_table(folder)
    set_loss(folder, run_id, "music", nats_per_token=None, status="diverged")
    table = read_table(folder)
    assert table["L_ret"][0] is None
    assert table["forgotten"][0] is None
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
    ledger = read_ledger(folder, run_id)
    assert ledger is not None
    assert ledger.bins == 50
    assert read_ledger(folder, "no-such-run") is None


def test_errors_say_what_to_do(folder, tmp_path):
    with pytest.raises(UserError, match=r"no plan\.json\. Give the folder that `indelible run"):
        read_table(tmp_path)
    run_id = read_table(folder)["finetune_id"][0]
    result = folder / "runs" / run_id / "result.json"
    result.write_text("{")
    with pytest.raises(UserError, match=r"result\.json: not a JSON file .* run the same command again"):
        read_table(folder)
    with pytest.raises(UserError, match="--format xls: not a format of the table; choose one of csv, json, parquet"):
        table_bytes(pl.DataFrame(), "xls")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda plan: plan.update(format=1), "format 1 where 2 is expected"),
        (lambda plan: plan.pop("chains"), "`chains` is missing or empty"),
        (lambda plan: plan.update(chains=5), "chains: Input should be a valid array"),
        (lambda plan: plan.update(chains=[{"columns": {}}]), r"chains\.0\.stages: Field required"),
        (lambda plan: plan["stage_runs"][0].update(id="../../etc"), "'../../etc' is no plain folder name"),
        (lambda plan: plan["stage_runs"][0].update(id=".hidden"), "'.hidden' is no plain folder name"),
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
