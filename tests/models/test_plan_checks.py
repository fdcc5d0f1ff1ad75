"""Mistakes with adapters are found by `plan`, not after pretraining."""

import pytest

from indelible.errors import UserError
from indelible.models.plan_checks import check_methods, check_packing
from indelible.study.graph import build_graph
from indelible.study.load import resolve_study
from indelible.study.stage_data import Stores

STUDY = {
    "name": "t",
    "scale": "pico",
    "pipeline": {"pre": "general", "post": "music", "ft": "chemistry"},
    "seeds": [0],
}
STORES = Stores({name: f"{name}-{12 * '0'}" for name in STUDY["pipeline"].values()}, "tokenizer-0")


def specs(**changes):
    graph = build_graph(resolve_study({**STUDY, **changes}), STORES, None)
    return {name: run.spec for name, run in graph.runs.items()}


def test_the_default_targets_have_a_place():
    check_methods(specs(posttrain={"method": "lora"}))
    check_methods(specs())


def test_a_target_that_the_model_does_not_have_is_named():
    found = specs(posttrain={"method": "lora", "lora": {"targets": ["o_porj", "lm_head"]}})
    with pytest.raises(UserError, match=r"posttrain.lora.targets: o_porj not among the linear layers .* o_proj"):
        check_methods(found)
    with pytest.raises(UserError, match=r"lm_head, o_porj not among the linear layers of this model, which are c_attn"):
        check_methods(found, ["c_attn"])


def test_adapters_have_some_place():
    with pytest.raises(UserError, match=r"posttrain.lora.targets = \[\]"):
        specs(posttrain={"method": "lora", "lora": {"targets": []}})


@pytest.mark.parametrize(
    "finetune",
    [{}, {"method": "lora"}, {"method": "lora", "lora": {"r": 4, "alpha": 1}}],
)
def test_kept_adapters_must_be_trained_on(finetune):
    kept = {"method": "lora", "lora": {"r": 4, "merge": False}}
    with pytest.raises(UserError, match=r"finetune.method: .* keeps its adapters \(posttrain.lora.merge: false, r 4"):
        check_methods(specs(posttrain=kept, finetune=finetune))
    check_methods(specs(posttrain=kept, finetune={"method": "lora", "lora": {"r": 4}}))
    check_methods(specs(posttrain={"method": "lora", "lora": {"r": 4}}, finetune=finetune))


def test_a_model_that_takes_no_positions_packs_no_documents():
    music = {"kind": "offline", "name": "music", "packing": "best_fit", "too_long": "drop"}
    with pytest.raises(
        UserError, match=r"corpora\.music\.packing = best_fit: old is a model that takes no positions, so"
    ):
        check_packing(specs(corpora={"music": music}), False, "old")
    check_packing(specs(corpora={"music": music}), True, "new")
    check_packing(specs(corpora={"music": {**music, "packing": "documents"}}), False, "old")
    check_packing(specs(), False, "old")
