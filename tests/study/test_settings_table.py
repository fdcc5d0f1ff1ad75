"""Columns of the results table: what is swept is a column, what is not there is null, and nothing is pooled."""

import pytest

from indelible.study.graph import Stores, build_graph
from indelible.study.load import load_study, resolve_study, shipped_studies
from indelible.study.settings_table import PAPER_COLUMNS, chain_columns
from indelible.study.stage_spec import StageInit

BASE = {
    "name": "t",
    "scale": "pico",
    "pipeline": {"pre": "general", "post": "music", "ft": "chemistry"},
    "seeds": [0],
}
FIXED = {"study", "scale", "pipeline", "arm", *PAPER_COLUMNS.values()}


def columns_of(change: dict) -> list[dict]:
    study = resolve_study({**BASE, **change})
    return chain_columns(study.name, study.arms)


def derived(change: dict) -> dict[str, set]:
    """The columns that stand because they vary, with their values."""
    rows = columns_of(change)
    assert len({tuple(row) for row in rows}) == 1, "the same columns for all"
    return {name: {row[name] for row in rows} for name in rows[0] if name not in FIXED}


def test_twelve_chains_that_sweep_two_settings_have_both_columns():
    found = derived(
        {
            "exposure": {"fraction": [0, 1]},
            "posttrain": {"weight_decay": [0, 0.1]},
            "finetune": {"global_batch_size": [8, 16, 32]},
        }
    )
    assert found == {"posttrain_weight_decay": {0.0, 0.1}, "finetune_global_batch_size": {8, 16, 32}}


def test_a_study_that_sweeps_what_always_stands_has_no_further_columns():
    assert derived({"exposure": {"fraction": [0, 0.5]}, "finetune": {"lr": [1e-3, 1e-4]}}) == {}


@pytest.mark.parametrize(
    ("change", "column", "values"),
    [
        ({"posttrain": {"min_lr": [None, 1e-5]}}, "posttrain_min_lr", {None, 1e-5}),
        ({"pretrain": {"betas": [[0.9, 0.95], [0.8, 0.9]]}}, "pretrain_betas", {"0.9-0.95", "0.8-0.9"}),
        ({"model": {"init_std": [0.02, 0.04]}}, "model_init_std", {0.02, 0.04}),
        ({"model": {"tie_embeddings": [True, False]}}, "tie_embeddings", {True, False}),
        ({"seq_len": [64, 128]}, "seq_len", {64, 128}),
        ({"precision": ["fp32", "bf16"]}, "precision", {"fp32", "bf16"}),
        ({"finetune": {"method": ["full", "lora"]}}, "finetune_method", {"full", "lora"}),
        ({"posttrain": {"patience": [None, 2], "eval_interval": 5}}, "posttrain_patience", {None, 2}),
        ({"pretrain": {"dropout": [0, 0.1]}}, "pretrain_dropout", {0.0, 0.1}),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)
def test_any_leaf_that_varies_is_a_column(change, column, values):
    assert derived(change) == {column: values}


def test_the_settings_of_adapters_are_columns_where_they_vary():
    lora = {"method": "lora", "lora": {"r": [4, 8]}}
    assert derived({"posttrain": lora}) == {"posttrain_adapt_r": {4, 8}}
    arms = {"full": {}, "lora": {"posttrain": {"method": "lora"}}}
    assert derived({"arms": arms}) == {}, "the method says it: rank and targets are null in one arm, the same in others"
    assert [row["method"] for row in columns_of({"arms": arms})] == ["full", "lora"]


def test_a_mix_that_is_there_in_some_arms_is_a_fraction():
    mixes = [[], [{"corpus": "music", "fraction": [0.1, 0.2]}]]
    assert derived({"stages": {"finetune": {"mix": mixes}}}) == {"finetune_replay_music_fraction": {0.0, 0.1, 0.2}}
    assert derived({"stages": {"posttrain": {"mix": [[], [{"corpus": "chemistry"}]]}}}) == {
        "posttrain_mix_chemistry_fraction": {0.0, 1.0}
    }
    replay = {"arms": {"plain": {}, "replay": {"posttrain": {"replay_fraction": 0.1}}}}
    assert derived(replay) == {}
    assert [row["replay_fraction"] for row in columns_of(replay)] == [0.0, 0.1]


def test_exposure_in_some_arms_only_compares_at_equal_settings():
    rows = columns_of({"arms": {"plain": {}, "mixed": {"exposure": {"fraction": 0.5}}}})
    differing = {name for name in rows[0] if rows[0][name] != rows[1][name]}
    assert differing == {"arm", "exposure_fraction"}


def test_what_is_left_of_a_corpus_says_by_which_stages():
    ways = [[[]], [["pretrain"]], [["pretrain", "posttrain"]]]
    arms = {
        str(number): {"stages": {"relearn": {"corpus": "music", "not_shown_in": way[0]}}}
        for number, way in enumerate(ways)
    }
    assert derived({"arms": arms}) == {"relearn_not_shown_in": {"full", "matched", "not shown in pretrain,posttrain"}}


def test_stages_that_are_not_run_are_null():
    (row,) = columns_of({"init": {"from": "/m", "at": "finetune"}})
    assert (row["pretrain_tokens"], row["pretrain_lr"], row["exposure_fraction"], row["post_tokens"]) == (None,) * 4
    assert (row["finetune_tokens"], row["init"]) == (66_000, "/m")
    (row,) = columns_of({"init": {"from": "o/m", "revision": "abc", "at": "pretrain"}})
    assert (row["pretrain_tokens"], row["init"]) == (2_000_000, "o/m@abc")


def test_given_checkpoints_and_chains_from_scratch_may_stand_side_by_side():
    found = derived({"arms": {"scratch": {}, "given": {"init": "/m"}, "other": {"init": "/n"}}})
    assert found == {"init": {None, "/m", "/n"}, "stages": {"pretrain>posttrain>finetune", "posttrain>finetune"}}


def test_arms_with_other_chains_have_their_stages_as_a_column():
    arms = {"short": {}, "long": {"stages": {"second": {"corpus": "music", "lr": [1e-4, 1e-3]}}}}
    assert derived({"arms": arms}) == {
        "stages": {"pretrain>posttrain>finetune", "pretrain>posttrain>finetune>second"},
        "second_lr": {None, 1e-4, 1e-3},
    }


@pytest.mark.parametrize("name", list(shipped_studies()))
def test_chains_of_every_shipped_study_are_told_apart_by_their_columns(name):
    study = load_study(name, ["seeds=[0]"])
    given = {init: StageInit(sha256="a" * 64) for arm in study.arms if (init := arm.stages[arm.first].init) is not None}
    graph = build_graph(study, Stores({c: f"{c}-1" for c in study.data.corpora}, "t-1"), given)
    settings = {tuple(value for key, value in chain.columns.items() if key != "arm") for chain in graph.chains}
    assert len(settings) >= len({tuple(chain.runs.values()) for chain in graph.chains})
