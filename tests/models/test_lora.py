"""Adapters: merged equals unmerged, also with a tied head; the base stays; what is kept comes back bitwise."""

import pytest
import torch
from tiny_models import LLAMA_LIKE, some_ids, tiny_model

from indelible.errors import UserError
from indelible.models.lora import (
    add_adapters,
    base_parameters,
    kept_adapters,
    load_adapters,
    merged,
    reset_adapters,
    untie,
)
from indelible.study.adapt import LoraSpec

TABLE_9 = LoraSpec(r=64, alpha=128)


def trained(model, spec: LoraSpec, steps: int = 5):
    """The adapted model after some updates of everything trainable."""
    adapted = add_adapters(model, spec)
    reset_adapters(adapted, seed=0)
    optimizer = torch.optim.AdamW([w for w in adapted.parameters() if w.requires_grad], lr=0.02)
    ids = some_ids()
    for _ in range(steps):
        adapted(input_ids=ids, labels=ids).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    return adapted


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("kind", LLAMA_LIKE)
def test_merged_logits_equal_unmerged_ones(kind, tied):
    model = tiny_model(kind, tie_word_embeddings=tied)
    start = model.eval()(input_ids=some_ids()).logits.detach()
    adapted = trained(model, TABLE_9)
    unmerged = adapted.eval()(input_ids=some_ids()).logits
    assert not torch.allclose(unmerged, start, atol=0.1), "the adapters do something"
    plain = tiny_model(kind, seed=7, tie_word_embeddings=False)
    missing, unexpected = plain.load_state_dict(merged(dict(adapted.named_parameters()), TABLE_9), strict=False)
    assert (missing, unexpected) == ([], [])
    assert torch.allclose(plain.eval()(input_ids=some_ids()).logits, unmerged, rtol=0, atol=1e-5)


@pytest.mark.parametrize("tied", [True, False])
def test_the_base_does_not_move_and_training_starts_at_it(tied):
    model = tiny_model("llama", tie_word_embeddings=tied)
    before = model.eval()(input_ids=some_ids()).logits.detach()
    weights = {name: weight.detach().clone() for name, weight in model.named_parameters()}
    adapted = add_adapters(model, TABLE_9)
    reset_adapters(adapted, seed=0)
    assert torch.equal(adapted.eval()(input_ids=some_ids()).logits, before), "B = 0"
    adapted = trained(tiny_model("llama", tie_word_embeddings=tied), TABLE_9)
    for name, weight in base_parameters(adapted).items():
        assert torch.equal(weight, weights.get(name, weights["model.embed_tokens.weight"])), name


def test_table_9_leaves_query_key_and_value_alone():
    adapted = add_adapters(tiny_model("llama"), TABLE_9)
    layers = {name.split(".lora_")[0].rpartition(".")[2] for name, _ in adapted.named_parameters() if "lora_" in name}
    assert layers == {"o_proj", "gate_proj", "up_proj", "down_proj", "lm_head"}
    assert {w.requires_grad for n, w in adapted.named_parameters() if "lora_" not in n} == {False}
    ranks = {min(w.shape) for n, w in adapted.named_parameters() if "lora_" in n}
    assert ranks <= {32, 48, 64}


def test_the_adapters_of_a_seed_are_always_the_same():
    def first_draw(seed: int) -> torch.Tensor:
        torch.rand(3)  # the global stream must not matter
        adapted = add_adapters(tiny_model("llama"), TABLE_9)
        reset_adapters(adapted, seed)
        return next(w for n, w in adapted.named_parameters() if "lora_A" in n).detach()

    assert torch.equal(first_draw(0), first_draw(0))
    assert not torch.equal(first_draw(0), first_draw(1))


def test_kept_adapters_come_back_bitwise():
    adapted = trained(tiny_model("llama"), TABLE_9)
    weights = {name: weight.detach().clone() for name, weight in adapted.named_parameters()}
    other = add_adapters(tiny_model("llama"), TABLE_9)
    with torch.no_grad():
        for name, weight in base_parameters(other).items():
            weight.copy_(merged(weights, TABLE_9)[name])
    load_adapters(other, kept_adapters(weights))
    for name, weight in other.named_parameters():
        assert torch.equal(weight, weights[name]), name


@pytest.mark.parametrize(("kind", "target"), [("llama", "wrong_proj"), ("gpt2", "c_attn")])
def test_a_target_that_is_no_linear_layer_is_refused(kind, target):
    with pytest.raises(UserError, match=rf"lora.targets: {target} not among the linear layers of .*lm_head"):
        add_adapters(tiny_model(kind), LoraSpec(targets=(target,)))


def test_adapters_are_drawn_evenly_between_the_bounds_of_peft():
    adapted = add_adapters(tiny_model("llama"), TABLE_9)
    reset_adapters(adapted, 0)
    for name, parameter in adapted.named_parameters():
        if "lora_A" in name:
            weight = parameter.detach()
            bound = weight.shape[1] ** -0.5
            assert bound * 0.95 < weight.abs().max() <= bound
            assert abs(weight.mean()) < bound / 10
            assert weight.std().item() == pytest.approx(bound / 3**0.5, rel=0.1)


def test_a_head_that_was_untied_is_saved_and_read_as_its_own(tmp_path):
    model = tiny_model("llama", tie_word_embeddings=True)
    untie(model)
    assert model.config.tie_word_embeddings is False
    with torch.no_grad():
        model.get_output_embeddings().weight.mul_(2.0)
    model.save_pretrained(tmp_path)
    again = type(model).from_pretrained(tmp_path)
    assert torch.equal(again.get_output_embeddings().weight, 2.0 * again.get_input_embeddings().weight)
    assert torch.equal(again.eval()(input_ids=some_ids()).logits, model.eval()(input_ids=some_ids()).logits)
