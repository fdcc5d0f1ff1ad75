"""Our attention: the same numbers as transformers' `sdpa`, with the mask left out or kept, small or large."""

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM, MistralConfig, MistralForCausalLM

from indelible.train import attention

SHAPE = {
    "vocab_size": 50,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
}


def logits(model: torch.nn.Module, name: str, **inputs: torch.Tensor) -> torch.Tensor:
    model.set_attn_implementation(name)
    return model(use_cache=False, **inputs).logits.float()


def models() -> list[torch.nn.Module]:
    torch.manual_seed(0)
    llama = LlamaForCausalLM(LlamaConfig(**SHAPE))
    windowed = MistralForCausalLM(MistralConfig(**SHAPE, sliding_window=8))
    return [llama.eval(), windowed.eval()]


@pytest.mark.parametrize("model", models(), ids=lambda model: type(model).__name__)
@pytest.mark.parametrize("max_scores", [0, 2**25], ids=["kernel", "products"])
def test_logits_are_those_of_sdpa(model, max_scores, monkeypatch):
    monkeypatch.setattr(attention, "MAX_SCORES", max_scores)
    tokens = torch.arange(40).view(2, 20)
    padding = torch.ones(2, 20, dtype=torch.int64)
    padding[1, :5] = 0
    for extra in ({}, {"attention_mask": padding}):
        ours = logits(model, attention.NAME, input_ids=tokens, **extra)
        theirs = logits(model, "sdpa", input_ids=tokens, **extra)
        assert torch.allclose(ours[0], theirs[0], atol=1e-5)
        assert torch.allclose(ours[1, 5:], theirs[1, 5:], atol=1e-5)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            ours = logits(model, attention.NAME, input_ids=tokens, **extra)
            assert torch.allclose(ours[0], theirs[0], atol=0.02)


def test_gradients_are_those_of_sdpa():
    model = models()[0]
    gradients = {}
    for name in (attention.NAME, "sdpa"):
        model.zero_grad()
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=name == attention.NAME):
            logits(model, name, input_ids=torch.arange(40).view(2, 20)).square().sum().backward()
        gradients[name] = model.model.layers[0].self_attn.q_proj.weight.grad.clone()
    ours, theirs = gradients[attention.NAME], gradients["sdpa"]
    assert (ours - theirs).norm() < 0.03 * theirs.norm()


def _gradients_and_kept_numbers(max_stored: int, monkeypatch) -> tuple[list[torch.Tensor], int]:
    """Gradients of all weights, and how many tensors of attention weights are kept for the backward."""
    monkeypatch.setattr(attention, "MAX_STORED", max_stored)
    model, kept = models()[0], []
    hooks = torch.autograd.graph.saved_tensors_hooks(lambda one: kept.append(one.shape[-2:]) or one, lambda one: one)
    with torch.autocast("cpu", dtype=torch.bfloat16), hooks:
        loss = logits(model, attention.NAME, input_ids=torch.arange(400).view(2, 200) % 50).square().sum()
    loss.backward()
    return [weight.grad for weight in model.parameters()], kept.count(torch.Size([200, 200]))


def test_attention_weights_that_are_made_again_are_not_kept_and_move_no_bit(monkeypatch):
    stored, kept = _gradients_and_kept_numbers(2 * 2 * 4 * 200**2, monkeypatch)  # layers, rows, heads, places
    again, kept_again = _gradients_and_kept_numbers(2 * 2 * 4 * 200**2 - 1, monkeypatch)
    assert kept > 0
    assert kept_again == 0
    assert all(torch.equal(one, other) for one, other in zip(stored, again, strict=True))


def test_dropout_falls_on_the_attention_weights():
    model = models()[0]
    layer = model.model.layers[0].self_attn
    query, key = torch.randn(1, 4, 6, 8), torch.randn(1, 2, 6, 8)
    value = torch.eye(6, 8).expand(1, 2, 6, 8)  # so that the output is the attention weights
    with torch.autocast("cpu", dtype=torch.bfloat16):
        kept = attention.attention(layer, query, key, value, None)[0].float()
        dropped = attention.attention(layer, query, key, value, None, dropout=0.5)[0].float()
    gone = dropped == 0
    assert torch.allclose(dropped[~gone], 2 * kept[~gone], rtol=0.02)
    assert 0 < (gone & (kept > 0)).sum() < (kept > 0).sum()


def test_only_a_plain_causal_mask_is_left_out():
    asked = {"batch_size": 1, "q_length": 6, "kv_length": 6}
    assert attention.causal_mask(**asked) is None
    assert attention.causal_mask(**asked, local_size=8) is None
    assert attention.causal_mask(**asked, local_size=4) is not None
    assert attention.causal_mask(**asked, allow_is_causal_skip=False).shape[-2:] == (6, 6)
    assert attention.causal_mask(batch_size=1, q_length=6, kv_length=8, q_offset=2).shape[-2:] == (6, 8)


@pytest.mark.parametrize("model", models(), ids=lambda model: type(model).__name__)
def test_compiled_programs_take_the_way_of_eager_ones(model):
    # the mask of a compiled model once hid from us that attention is causal, and with it the faster way
    torch.compiler.reset()  # what other files compiled in this process counts towards the limit of recompilations
    graphs = []

    def note(graph: torch.fx.GraphModule, inputs: list) -> torch.fx.GraphModule:
        graphs.append([str(node.target) for node in graph.graph.nodes if node.op.startswith("call")])
        return graph

    model.set_attn_implementation(attention.NAME)
    decoder = torch.compile(model.model, backend=note, dynamic=False)
    for length, kernels in ((6, 0), (20, 0 if type(model) is LlamaForCausalLM else 2)):  # windows of 8 in the other
        graphs.clear()
        with torch.autocast("cpu", dtype=torch.bfloat16):
            found = decoder(input_ids=torch.arange(length)[None], use_cache=False).last_hidden_state
            expected = model.model(input_ids=torch.arange(length)[None], use_cache=False).last_hidden_state
        (targets,) = graphs
        assert sum("scaled_dot_product_attention" in target for target in targets) == kernels
        assert torch.allclose(found, expected, atol=0.05)


def test_the_name_is_in_no_checkpoint(tmp_path):
    model = models()[0]
    model.set_attn_implementation(attention.NAME)
    model.save_pretrained(tmp_path)
    assert attention.NAME not in (tmp_path / "config.json").read_text()
