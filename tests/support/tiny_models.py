"""Tiny models of several architectures of transformers, built from a config."""

import torch
from transformers import AutoModelForCausalLM, GPT2Config, LlamaConfig, MistralConfig, PreTrainedModel, Qwen2Config

_SHAPE = {
    "vocab_size": 64,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
    "pad_token_id": None,
    "bos_token_id": 0,
    "eos_token_id": 0,
}
LLAMA_LIKE = {"llama": LlamaConfig, "mistral": MistralConfig, "qwen2": Qwen2Config}


def tiny_config(kind: str, **over):
    """A config of one architecture; GPT-2 keeps its own default dropout of 0.1."""
    if kind == "gpt2":
        shape = {"vocab_size": 64, "n_positions": 64, "n_embd": 32, "n_layer": 2, "n_head": 4}
        return GPT2Config(**{**shape, "bos_token_id": 0, "eos_token_id": 0, **over})
    return LLAMA_LIKE[kind](**{**_SHAPE, **over})


def tiny_model(kind: str, seed: int = 0, **over) -> PreTrainedModel:
    """A model with weights large enough that its parts matter."""
    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_config(tiny_config(kind, **over), attn_implementation="sdpa")
    with torch.no_grad():
        for weight in model.parameters():
            if weight.dim() >= 2:
                weight.normal_(std=0.15)
    return model.float()


def some_ids(rows: int = 3, length: int = 16, vocab_size: int = 64) -> torch.Tensor:
    """Token ids, int64 (rows, length)."""
    return torch.randint(0, vocab_size, (rows, length), generator=torch.Generator().manual_seed(1))
