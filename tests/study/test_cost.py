"""Costs against a model that torch counts, and the saving by sharing against a hand count."""

import pytest
from torch.utils.flop_counter import FlopCounterMode

from indelible.model.build import empty_model, model_config
from indelible.study import cost
from indelible.study.graph import Stores, build_graph
from indelible.study.load import load_study
from indelible.study.spec import ModelSpec

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
    summary = cost.summary(graph, cost.graph_costs(graph, cost.models_by_run(graph, study.arms[0].model), 2048), 2048)
    runs = {stage: (entry["runs"], entry["runs_without_sharing"]) for stage, entry in summary["stages"].items()}
    assert runs == {"pretrain": (3, 12), "posttrain": (3, 12), "finetune": (12, 12)}
    assert 3.5 < summary["saving"] < 4
