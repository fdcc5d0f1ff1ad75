"""Identity: everything that changes a result moves the id, nothing else does, and ids stay what they are."""

import pytest

from indelible.study import identity
from indelible.study.graph import Stores, build_graph
from indelible.study.identity import canonical, digest, without_tags
from indelible.study.load import resolve_study
from indelible.study.spec import LoraSpec
from indelible.study.stages import StageSpec

STORES = Stores({"general": "general-a", "music": "music-b", "chemistry": "chemistry-c"}, "tokenizer-d")
RAW = {
    "name": "golden",
    "scale": "pico",
    "seq_len": 128,
    "precision": "fp32",
    "pipeline": {"pre": "general", "post": "music", "ft": "chemistry"},
    "model": {"hidden_size": 64, "num_layers": 2, "num_heads": 2, "num_kv_heads": 1, "intermediate_size": 192},
    "pretrain": {"tokens": 2_000_000, "lr": 4e-3, "warmup_steps": 50, "global_batch_size": 16},
    "posttrain": {
        "tokens": 100_000, "max_tokens": 3_000_000, "lr": 2e-3, "warmup_steps": 20, "global_batch_size": 16,
        "eval_interval": 40, "patience": 3,
    },
    "finetune": {"tokens": 66_000, "lr": 1e-3, "warmup_steps": 3, "global_batch_size": 16},
    "evaluation": {"windows": 128},
    "seeds": [0],
}  # fmt: skip


def ids(change: dict | None = None, stores: Stores = STORES) -> dict[str, str]:
    raw = {**RAW, **{k: {**RAW.get(k, {}), **v} if isinstance(v, dict) else v for k, v in (change or {}).items()}}
    return dict(build_graph(resolve_study(raw), stores).chains[0].runs)


def test_golden_ids():
    """These ids are on people's disks. A new field with its old behaviour as default must be in ADDED_LATER."""
    assert ids({"exposure": {"fraction": 0.5}}) == GOLDEN


def test_what_changes_a_stage_moves_it_and_its_descendants_only():
    base = ids()
    changed = ids({"finetune": {"lr": 2e-3}})
    assert (changed["pretrain"], changed["posttrain"]) == (base["pretrain"], base["posttrain"])
    assert changed["finetune"] != base["finetune"]
    changed = ids({"posttrain": {"dropout": 0.1}})
    assert changed["pretrain"] == base["pretrain"]
    assert changed["posttrain"] != base["posttrain"]
    assert changed["finetune"] != base["finetune"]


@pytest.mark.parametrize(
    "change",
    [
        {"seeds": [1]},
        {"seq_len": 64},
        {"precision": "bf16"},
        {"model": {"init_std": 0.02}},
        {"pretrain": {"betas": [0.9, 0.999]}},
        {"exposure": {"fraction": 0.25}},
        {"evaluation": {"windows": 64}},
        {"data": {"loss_on": "completion"}},
    ],
    ids=str,
)
def test_every_setting_counts(change):
    assert ids(change)["pretrain"] != ids()["pretrain"]


def test_other_tokens_are_another_run():
    other = Stores({**STORES.corpora, "music": "music-x"}, STORES.tokenizer)
    assert ids(stores=other)["pretrain"] != ids()["pretrain"]


def test_execution_settings_do_not_count():
    execution = {"workers": 7, "compile": "off", "device": "cpu", "micro_batch_size": 2, "slurm": {"partition": "x"}}
    assert ids({"execution": execution}) == ids()
    assert ids({"name": "another", "description": "x"}) == ids()


def test_arms_that_pretrain_alike_share_the_run():
    assert ids({"posttrain": {"tokens": 50_000}})["pretrain"] == ids()["pretrain"], "no exposure, no difference"
    quarter_of_all = ids({"exposure": {"fraction": 0.25}})["pretrain"]
    half_of_half = ids({"exposure": {"fraction": 0.5}, "posttrain": {"tokens": 50_000}})["pretrain"]
    assert quarter_of_all == half_of_half


def test_a_raised_code_version_moves_ids(monkeypatch):
    before = ids()
    monkeypatch.setitem(identity.CODE_VERSION, "posttrain", 2)
    after = ids()
    assert after["pretrain"] == before["pretrain"]
    assert after["posttrain"] != before["posttrain"]


def test_a_field_added_later_is_not_hashed_at_its_default(monkeypatch):
    before = digest(LoraSpec(merge=True))
    monkeypatch.setitem(identity.ADDED_LATER, ("LoraSpec", "merge"), True)
    without = digest(LoraSpec(merge=True))
    assert without != before
    assert "merge" not in canonical(LoraSpec(merge=True))
    assert canonical(LoraSpec(merge=False))["merge"] is False


def test_classes_with_equal_fields_stay_apart():
    assert canonical(LoraSpec())["class"] == "LoraSpec"


def test_the_canonical_form_reads_back():
    graph = build_graph(resolve_study(RAW), STORES)
    for run in graph.runs.values():
        assert StageSpec.model_validate(without_tags(canonical(run.spec))) == run.spec


UNFIT = {"set": {1, 2}, "nan": float("nan"), "infinity": float("inf"), "object": object(), "integer keys": {1: 2}}


@pytest.mark.parametrize("value", UNFIT.values(), ids=UNFIT.keys())
def test_what_has_no_canonical_form_is_refused(value):
    with pytest.raises(TypeError, match="cannot hash"):
        canonical(value)


GOLDEN = {
    "pretrain": "pretrain-music50048-s0-c85dc365362d",
    "posttrain": "posttrain-music-lr0.002-s0-56f792737343",
    "finetune": "finetune-chemistry-lr0.001-s0-1651a6bd10a8",
}
