"""What arms and columns are called, settings of one study alone included."""

import pytest
from fake_study import FakeStudy, write_fake_study
from resolved_study import write_resolved_study

from indelible.results.labels import (
    exposure_columns,
    is_treatment,
    label_order,
    treatment_columns,
    treatments,
    value_text,
    with_labels,
    word,
)
from indelible.results.table import read_table

PAPER = {"name": "x", "scale": "pico", "pipeline": {"pre": "general", "post": "music", "ft": "chemistry"}, "seeds": [0]}


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("finetune_lr", "stage-3 LR"),
        ("finetune_global_batch_size", "stage-3 batch"),
        ("posttrain_weight_decay", "stage-2 weight decay"),
        ("posttrain_max_tokens", "stage-2 max tokens"),
        ("finetune_replay_fraction", "stage-3 replay"),
        ("replay_fraction", "replay"),
        ("second_lr", "second LR"),
        ("second_again_global_batch_size", "second_again batch"),
        ("relearn_mix_code_fraction", "relearn mix code"),
        ("finetune_guard_weight", "stage-3 guard weight"),
        ("finetune_seed", "stage-3 seed"),
        ("forgotten", "forgotten"),
        ("seq_len", "seq_len"),
        ("model_hidden_size", "model_hidden_size"),
        ("exposure_fraction", "λ"),
        ("post_tokens", "|D_post|"),
    ],
)
def test_words_for_columns(name, text):
    assert word(name) == text


@pytest.mark.parametrize(
    ("name", "value", "text"),
    [
        ("init", "/data/runs/finetune-music-s0-0123/checkpoint", "finetune-music-s0-0123"),
        ("init", "/models/base", "base"),
        ("init", "HuggingFaceTB/SmolLM2-135M@abc", "HuggingFaceTB/SmolLM2-135M@abc"),
        ("init", "normal", "normal"),
        ("second_tokens", 30_000, "30k"),
        ("finetune_lr", 3e-4, "0.0003"),
        ("L_ret", None, "-"),
        ("arm", "", "-"),
    ],
)
def test_values_for_people(name, value, text):
    assert value_text(name, value) == text


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("finetune_guard", True),
        ("finetune_guard_weight", True),
        ("second_again_objective", True),
        ("finetune_method", True),
        ("posttrain_adapt_r", True),
        ("finetune_replay_fraction", True),
        ("relearn_mix_code_fraction", True),
        ("second_not_shown_in", True),
        ("init", True),
        ("stages", True),
        ("dropout", True),
        ("finetune_global_batch_size", False),
        ("posttrain_weight_decay", False),
        ("finetune_dropout", False),
        ("finetune_seed", False),
        ("seq_len", False),
        ("model_hidden_size", False),
    ],
)
def test_what_makes_an_arm_another_treatment(name, expected):
    assert is_treatment(name, ["pretrain", "posttrain", "finetune", "second", "second_again", "relearn"]) == expected


def test_swept_settings_of_ones_own_are_no_treatments(tmp_path):
    study = PAPER | {"exposure": {"fraction": [0, 1]}, "finetune": {"global_batch_size": [8, 16]}}
    table = with_labels(read_table(write_resolved_study(tmp_path, study)))
    assert "finetune_global_batch_size" not in treatments(table)
    assert table["series"].unique().sort().to_list() == ["λ 0", "λ 1"]
    assert table["settings"].to_list()[0] == "λ 0 · stage-3 batch 8"


def test_a_mix_of_ones_own_is_a_treatment_and_its_absence_is_not_named(tmp_path):
    mix = [[], [{"corpus": "music", "fraction": 0.02}]]
    study = PAPER | {"exposure": {"fraction": [0, 1]}, "stages": {"finetune": {"mix": mix}}}
    table = with_labels(read_table(write_resolved_study(tmp_path, study)))
    column = "finetune_replay_music_fraction"
    assert column in treatment_columns(table)
    assert table["variant"].unique(maintain_order=True).to_list() == ["plain", "stage-3 replay music 0.02"]
    assert label_order(table, "variant") == ["plain", "stage-3 replay music 0.02"]
    assert "λ 1" in table["series"].filter(table[column] > 0).to_list()[-1]


def test_given_checkpoints_are_treatments_by_name(tmp_path):
    study = PAPER | {"init": {"from": ["/models/base", "/models/other"], "at": "finetune"}}
    table = with_labels(read_table(write_resolved_study(tmp_path, study)))
    assert table["series"].to_list() == ["init base", "init other"]
    assert table["exposure"].unique().to_list() == ["all"]


def test_how_d_post_is_shown(tmp_path):
    table = read_table(write_fake_study(tmp_path, FakeStudy(seeds=(0,), extra_settings={"pretrain_exposure_per": "a"})))
    assert exposure_columns(table) == ["exposure_fraction", "exposure_mode", "placement", "pretrain_exposure_per"]
