"""Costs against a model that torch counts, and the saving by sharing against a hand count."""

from dataclasses import replace

import pytest
from torch.utils.flop_counter import FlopCounterMode

from indelible.errors import UserError
from indelible.models.build import empty_model, model_config
from indelible.study import cost
from indelible.study.architecture import architecture_of, architecture_of_spec
from indelible.study.arm import ModelSpec
from indelible.study.graph import Stores, build_graph
from indelible.study.load import load_study, resolve_study
from indelible.study.stage_spec import StageInit
from indelible.study.training import InitSpec

TINY = ModelSpec(hidden_size=32, num_layers=3, num_heads=4, num_kv_heads=2, intermediate_size=80)


@pytest.mark.parametrize("tied", [True, False])
def test_parameters_are_those_of_the_model(tied):
    spec = TINY.model_copy(update={"tie_embeddings": tied})
    model = empty_model(model_config(spec, 100, 16, 0))
    assert cost.num_parameters(spec, 100) == sum(weight.numel() for weight in model.parameters())


def test_forward_flops_are_those_that_torch_counts():
    import torch

    model = empty_model(model_config(TINY, 100, 16, 0))
    model.set_attn_implementation("eager")  # torch does not count its fused attention on a CPU
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(input_ids=torch.zeros(2, 16, dtype=torch.long))
    counted = counter.get_total_flops() / (2 * 16)
    assert cost.forward_flops_per_token(TINY, 100, 16) == pytest.approx(counted, rel=0.02)


def test_the_papers_models_have_the_papers_sizes():
    sizes = {s: cost.num_parameters(load_study("fig3a", [f"scale={s}"]).arms[0].model, 49_152) for s in ("135m", "1b")}
    assert sizes == {"135m": 134_515_008, "1b": 1_029_917_376}


def test_sharing_is_counted():
    study = load_study("quickstart", ["seeds=[0]"])
    graph = build_graph(study, Stores(dict.fromkeys(study.data.corpora, "x-1"), "t"))
    summary = cost.summary(graph, cost.graph_costs(graph, cost.shapes_by_run(graph, 2048, {})), 2048)
    runs = {stage: (entry["runs"], entry["runs_without_sharing"]) for stage, entry in summary["stages"].items()}
    assert runs == {"pretrain": (3, 12), "posttrain": (3, 12), "finetune": (12, 12)}
    assert 3.5 < summary["saving"] < 4


CONFIG = {
    "model_type": "llama", "hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4,
    "num_key_value_heads": 2, "intermediate_size": 80, "vocab_size": 100, "tie_word_embeddings": False,
}  # fmt: skip


def test_a_given_checkpoint_is_sized_by_its_own_config():
    init = InitSpec.model_validate({"from": "/m"})
    raw = {
        "name": "t", "scale": "pico", "pipeline": {"pre": "general", "post": "music", "ft": "chemistry"}, "seeds": [0],
        "arms": {"given": {"init": "/m"}, "scratch": {}},
    }  # fmt: skip
    study = resolve_study(raw)
    stores = Stores({corpus: f"{corpus}-1" for corpus in study.data.corpora}, "t")
    graph = build_graph(study, stores, {init: StageInit(sha256="a" * 64)})
    shape = architecture_of(CONFIG)
    assert shape.num_parameters == cost.num_parameters(TINY.model_copy(update={"tie_embeddings": False}), 100)
    shapes = cost.shapes_by_run(graph, 64, {"a" * 64: shape})
    given, scratch = graph.chains
    assert {shapes[run] for run in given.runs.values()} == {shape}, "its children are of its size"
    assert {shapes[run].vocab_size for run in scratch.runs.values()} == {64}


def test_a_config_that_says_no_size_is_refused():
    with pytest.raises(UserError, match=r"config\.json of a bert model has no vocab_size, hidden_size"):
        architecture_of({"model_type": "bert"})


def test_the_config_of_another_architecture_is_read_by_its_own_names():
    model = architecture_of({"model_type": "gpt2", "vocab_size": 100, "n_embd": 64, "n_head": 4, "n_layer": 2})
    assert (model.hidden_size, model.intermediate_size, model.num_kv_heads) == (64, 256, 4)


def test_evaluations_and_early_stopping_are_in_the_price():
    raw = {
        "name": "t", "scale": "pico", "pipeline": {"pre": "general", "post": "music", "ft": "chemistry"}, "seeds": [0],
    }  # fmt: skip
    study = resolve_study(raw)
    graph = build_graph(study, Stores({corpus: f"{corpus}-1" for corpus in study.data.corpora}, "t"))
    spec = next(run.spec for run in graph.runs.values() if run.stage == "posttrain")
    shape = architecture_of_spec(study.arms[0].model, 2048)
    forward = shape.forward_flops(128)
    alone = cost.stage_cost(spec, shape)
    steps = 23438 // 16 + 1
    assert alone.tokens == 23438 * 128
    assert alone.flops == pytest.approx(forward * 128 * (3 * 23438 + (steps // 40 + 2) * 128))
    assert cost.stage_cost(spec, shape, 10).flops - alone.flops == pytest.approx(forward * 10 * 128)


def test_curves_are_in_the_price():
    raw = {
        "name": "t", "scale": "pico", "pipeline": {"pre": "general", "post": "music", "ft": "chemistry"}, "seeds": [0],
        "evaluation": {"windows": 8},
    }  # fmt: skip

    def finetune(watch):
        study = resolve_study({**raw, "finetune": {"watch": watch}} if watch is not None else raw)
        graph = build_graph(study, Stores({corpus: f"{corpus}-1" for corpus in study.data.corpora}, "t"))
        return next(run for run in graph.runs.values() if run.stage == "finetune"), graph

    bare, graph = finetune(None)
    assert cost.watched_windows(bare, graph) == 0
    run, graph = finetune({"corpora": ["music", "chemistry"], "steps": [0, 1, 2, 999_999]})
    assert run.id == bare.id, "watching is in no identity"
    assert cost.watched_windows(run, graph) == 4 * 2 * 8, "at 0, 1, 2 and the end"
    assert cost.watched_windows(*finetune({"windows": 5})) == 17 * 3 * 5, "all corpora, at about 17 steps"
    shapes = dict.fromkeys(graph.runs, architecture_of_spec(TINY, 100))
    without = cost.stage_cost(run.spec, shapes[run.id], 3 * 8).flops
    watched = shapes[run.id].forward_flops(128) * 64 * 128
    assert cost.graph_costs(graph, shapes)[run.id].flops == pytest.approx(without + watched)


def small_graph(**more):
    raw = {
        "name": "t",
        "scale": "pico",
        "pipeline": {"pre": "general", "post": "music", "ft": "chemistry"},
        "seeds": [0],
    }
    study = resolve_study({**raw, **more})
    return study, build_graph(study, Stores({corpus: f"{corpus}-1" for corpus in study.data.corpora}, "t"))


def test_what_a_checkpoint_holds_and_what_is_only_estimated():
    study, graph = small_graph()
    shape = architecture_of_spec(study.arms[0].model, 2048)
    one = cost.stage_cost(next(iter(graph.runs.values())).spec, shape)
    assert (one.checkpoint_bytes, one.is_estimate) == (4 * shape.num_parameters, False)
    estimated = replace(shape, is_exact=False)
    assert cost.stage_cost(next(iter(graph.runs.values())).spec, estimated).is_estimate


def test_a_token_costs_three_forward_passes_and_those_of_the_guard():
    _, graph = small_graph(finetune={"guard": {"kind": "kl", "weight": 0.1}})
    passes = {run.stage: cost.training_passes(run.spec) for run in graph.runs.values()}
    assert passes == {"pretrain": 3, "posttrain": 3, "finetune": 4}


def test_only_what_is_evaluated_is_paid_for():
    study, graph = small_graph()
    shape = architecture_of_spec(study.arms[0].model, 2048)
    run = next(iter(graph.runs.values()))
    costs = cost.graph_costs(replace(graph, evaluations={}), dict.fromkeys(graph.runs, shape))
    assert costs[run.id].flops == cost.stage_cost(run.spec, shape, 0).flops
    assert cost.graph_costs(graph, dict.fromkeys(graph.runs, shape))[run.id].flops > costs[run.id].flops


def test_what_is_left_is_the_sum_and_its_longest_chain():
    _, graph = small_graph(finetune={"lr": [1e-4, 1e-3]})
    prices = {"pretrain": 100.0, "posttrain": 10.0, "finetune": 1.0}
    costs = {run.id: cost.StageCost(1, prices[run.stage], 1) for run in graph.runs.values()}
    assert cost.remaining_flops(graph, costs, set()) == (112.0, 111.0)
    first = next(run.id for run in graph.runs.values() if run.stage == "pretrain")
    assert cost.remaining_flops(graph, costs, {first}) == (12.0, 11.0)
    assert cost.remaining_flops(graph, costs, set(graph.runs)) == (0.0, 0.0)


def test_tokens_take_two_bytes_up_to_65536_of_them():
    _, graph = small_graph()
    assert cost.token_bytes(graph, 1 << 16) * 2 == cost.token_bytes(graph, (1 << 16) + 1) > 0
