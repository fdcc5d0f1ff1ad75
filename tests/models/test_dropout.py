"""Dropout at four sites: where it is, how much, when, and that nothing of it stays behind."""

import pytest
import torch
from tiny_models import LLAMA_LIKE, some_ids, tiny_config, tiny_model

from indelible.errors import UserError
from indelible.models.build import empty_model
from indelible.models.dropout import add_dropout, without_dropout
from indelible.models.lora import add_adapters
from indelible.study.adapt import LoraSpec

P = 0.25


def sites(model) -> dict[str, torch.nn.Module]:
    layers = model.get_decoder().layers
    found = {"embedding": model.get_input_embeddings()}
    for number, layer in enumerate(layers):
        found |= {f"attention output {number}": layer.self_attn.o_proj, f"mlp {number}": layer.mlp}
    return found


def outputs_at_sites(model, ids) -> dict[str, torch.Tensor]:
    """What leaves each site, behind the hooks that are installed already."""
    seen: dict[str, torch.Tensor] = {}
    handles = [
        module.register_forward_hook(lambda m, args, output, name=name: seen.update({name: output.detach()}))
        for name, module in sites(model).items()
    ]
    model(input_ids=ids)
    for handle in handles:
        handle.remove()
    return seen


@pytest.mark.parametrize("kind", LLAMA_LIKE)
def test_each_site_drops_its_share_and_scales_the_rest(kind):
    model = tiny_model(kind)
    add_dropout(model, P)
    ids = some_ids(8, 32)
    for name, output in outputs_at_sites(model.train(), ids).items():
        share = (output == 0).float().mean().item()
        assert share == pytest.approx(P, abs=0.02), name
    embedded = outputs_at_sites(model, ids)["embedding"]
    plain = outputs_at_sites(model.eval(), ids)["embedding"]
    kept = embedded != 0
    assert torch.allclose(embedded[kept], plain[kept] / (1 - P))


@pytest.mark.parametrize("kind", LLAMA_LIKE)
def test_attention_probabilities_are_dropped_in_training_only(kind, monkeypatch):
    model = tiny_model(kind)
    add_dropout(model, P)
    seen = []
    attend = torch.nn.functional.scaled_dot_product_attention

    def spy(*args, dropout_p=0.0, **kwargs):
        seen.append(dropout_p)
        return attend(*args, dropout_p=dropout_p, **kwargs)

    monkeypatch.setattr(torch.nn.functional, "scaled_dot_product_attention", spy)
    model.train()(input_ids=some_ids())
    model.eval()(input_ids=some_ids())
    assert seen == [P, P, 0.0, 0.0]


@pytest.mark.parametrize("kind", LLAMA_LIKE)
def test_evaluation_is_that_of_the_model_without_dropout(kind):
    plain, dropped = tiny_model(kind), tiny_model(kind)
    add_dropout(dropped, P)
    ids = some_ids()
    expected = plain.eval()(input_ids=ids).logits
    assert torch.equal(dropped.eval()(input_ids=ids).logits, expected)
    assert not torch.allclose(dropped.train()(input_ids=ids).logits, expected)


def test_masks_follow_the_seed():
    model = tiny_model("llama").train()
    add_dropout(model, P)

    def logits(seed: int) -> torch.Tensor:
        torch.manual_seed(seed)
        return model(input_ids=some_ids()).logits

    assert torch.equal(logits(1), logits(1))
    assert not torch.equal(logits(1), logits(2))


def test_no_dropout_stays_in_the_config():
    config = tiny_config("llama")
    model = empty_model(without_dropout(config))
    add_dropout(model, P)
    assert model.config.attention_dropout == 0.0


def test_a_given_model_s_own_dropout_is_off():
    config = tiny_config("gpt2")
    assert config.resid_pdrop == 0.1
    model = empty_model(without_dropout(config)).train()
    assert torch.equal(model(input_ids=some_ids()).logits, model.eval()(input_ids=some_ids()).logits)
    assert config.resid_pdrop == 0.1, "the given config itself is left alone"


def test_the_site_is_behind_the_adapter():
    model = tiny_model("llama")
    adapted = add_adapters(model, LoraSpec(r=4, alpha=8))
    torch.nn.init.normal_(model.get_decoder().layers[0].self_attn.o_proj.lora_B["default"].weight)
    add_dropout(model, 0.5)
    output = outputs_at_sites(model.train(), some_ids(8, 32))["attention output 0"]
    assert adapted.training
    assert (output == 0).float().mean().item() == pytest.approx(0.5, abs=0.03)


def test_an_architecture_without_the_sites_is_refused():
    with pytest.raises(UserError, match=r"dropout = 0.1: GPT2LMHeadModel has no layers with self_attn and mlp"):
        add_dropout(tiny_model("gpt2"), 0.1)


def test_attention_without_the_sites_is_refused():
    model = tiny_model("llama")
    del model.get_decoder().layers[1].self_attn.attention_dropout
    with pytest.raises(UserError, match=r"attention of LlamaForCausalLM has no attention_dropout or no o_proj"):
        add_dropout(model, 0.1)


@pytest.mark.slow
def test_compiled_masks_are_those_of_eager():
    from indelible.train.device import Device
    from indelible.train.program import Program

    losses = {}
    for use_compile in (False, True):
        from torch._inductor import config as inductor

        inductor.fallback_random = True
        model = tiny_model("llama")
        add_dropout(model, P)
        program = Program(model.train(), model.config, Device(torch.device("cpu"), 1, "fp32", use_compile, None), None)
        ids = some_ids(3, 17)
        torch.manual_seed(5)
        loss = program.loss_sum(ids[:, :-1].contiguous(), ids[:, 1:].contiguous(), torch.ones(3, 16))
        loss.backward()
        losses[use_compile] = (loss.item(), model.get_input_embeddings().weight.grad.clone())
    assert losses[True][0] == pytest.approx(losses[False][0], rel=1e-6)
    assert torch.allclose(losses[True][1], losses[False][1], atol=1e-5)


def test_only_dropout_is_taken_out_of_a_config():
    config = tiny_config("llama", attention_dropout=0.3, rms_norm_eps=1e-4, initializer_range=0.5)
    clean = without_dropout(config)
    assert (clean.attention_dropout, clean.rms_norm_eps, clean.initializer_range) == (0.0, 1e-4, 0.5)
    assert config.attention_dropout == 0.3


def test_one_layer_without_a_site_is_enough_to_refuse():
    model = tiny_model("llama")
    del model.get_decoder().layers[-1].mlp
    with pytest.raises(UserError, match=r"has no layers with self_attn and mlp to put it into"):
        add_dropout(model, P)
