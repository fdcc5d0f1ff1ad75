"""The head in chunks: the same losses and gradients as plain cross entropy, whatever is masked, tied or compiled."""

import pytest
import torch
import torch.nn.functional as F
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

from indelible.train import head
from indelible.train.head import chunk_rows, head_loss, plain_head


def inputs(seed: int = 0) -> tuple[torch.Tensor, ...]:
    """Hidden states (3, 40, 16), a weight (50, 16), targets and weights with masked places."""
    source = torch.Generator().manual_seed(seed)
    hidden = torch.randn(3, 40, 16, generator=source)
    weight = torch.randn(50, 16, generator=source)
    targets = torch.randint(0, 50, (3, 40), generator=source)
    weights = (torch.rand(3, 40, generator=source) < 0.7).float()
    return hidden.requires_grad_(), weight.requires_grad_(), targets, weights


def plain(hidden, weight, targets, weights):
    """Sum of cross entropies from whole logits."""
    losses = F.cross_entropy((hidden @ weight.t()).float().flatten(0, 1), targets.flatten(), reduction="none")
    return (losses * weights.flatten()).sum()


@pytest.fixture(params=[7, 64, 10_000], ids=lambda rows: f"chunks of {rows}")
def _chunks(request, monkeypatch):
    monkeypatch.setattr(head, "CHUNK_LOGITS", {"cpu": request.param * 50, "cuda": 1})
    monkeypatch.setattr(head, "MIN_ROWS", {"cpu": 1, "cuda": 1})


@pytest.mark.usefixtures("_chunks")
def test_losses_and_gradients_are_those_of_plain_cross_entropy():
    ours, theirs = inputs(), inputs()
    a = head_loss(*ours, use_compile=False)
    b = plain(*theirs)
    (a / 7).backward()
    (b / 7).backward()
    assert a.item() == pytest.approx(b.item(), rel=1e-6)
    for one, other in zip(ours[:2], theirs[:2], strict=True):
        assert torch.allclose(one.grad, other.grad, rtol=1e-5, atol=1e-6)
    with torch.no_grad():
        assert head_loss(*ours, use_compile=False).item() == pytest.approx(b.item(), rel=1e-6)


@pytest.mark.usefixtures("_chunks")
def test_bf16_products_are_close_and_sums_are_fp32():
    ours, theirs = inputs(), inputs()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        a = head_loss(*ours, use_compile=False)
    assert a.dtype == torch.float32
    b = plain(*theirs)
    a.backward()
    b.backward()
    assert a.item() == pytest.approx(b.item(), rel=1e-2)
    for one, other in zip(ours[:2], theirs[:2], strict=True):
        assert torch.allclose(one.grad, other.grad, rtol=0.05, atol=0.05 * other.grad.abs().max().item())


def test_masked_targets_have_no_gradient():
    hidden, weight, targets, weights = inputs()
    head_loss(hidden, weight, targets, weights, use_compile=False).backward()
    assert torch.equal(hidden.grad[weights == 0], torch.zeros_like(hidden.grad[weights == 0]))
    assert (hidden.grad[weights == 1] != 0).any()


def test_a_frozen_head_gets_no_gradient():
    hidden, weight, targets, weights = inputs()
    weight.requires_grad_(False)
    head_loss(hidden, weight, targets, weights, use_compile=False).backward()
    assert weight.grad is None
    assert hidden.grad is not None


@pytest.mark.slow
def test_compiled_equals_eager():
    ours, theirs = inputs(), inputs()
    a, b = head_loss(*ours, use_compile=True), head_loss(*theirs, use_compile=False)
    a.backward()
    b.backward()
    assert a.item() == pytest.approx(b.item(), rel=1e-6)
    for one, other in zip(ours[:2], theirs[:2], strict=True):
        assert torch.allclose(one.grad, other.grad, rtol=1e-5, atol=1e-5)


def llama(**settings: object) -> LlamaForCausalLM:
    shape = {"vocab_size": 50, "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    return LlamaForCausalLM(LlamaConfig(**shape, intermediate_size=32, **settings))


@pytest.mark.parametrize("tied", [True, False])
def test_a_plain_head_is_recognised(tied):
    model = llama(tie_word_embeddings=tied)
    decoder, linear = plain_head(model)
    assert decoder is model.model
    assert linear is model.lm_head
    assert model.training == llama().training


def test_a_head_that_does_more_is_left_to_the_model():
    class Capped(LlamaForCausalLM):
        def forward(self, *args, **kwargs):
            output = super().forward(*args, **kwargs)
            output.logits = torch.tanh(output.logits)
            return output

    assert plain_head(Capped(llama().config)) is None
    gpt2 = GPT2LMHeadModel(GPT2Config(vocab_size=50, n_embd=16, n_layer=1, n_head=2))
    assert plain_head(gpt2) is not None


def test_chunks_are_equal_and_cover_all_rows():
    for rows in (1, 255, 256, 2048, 5000):
        size = chunk_rows(rows, 2048, "cpu")
        assert 1 <= size <= max(head.MIN_ROWS["cpu"], head.CHUNK_LOGITS["cpu"] // 2048)
        assert -(-rows // size) * size - rows < size
