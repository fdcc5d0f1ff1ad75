"""Tiny random models of every family that fidelity is tested on, as Hugging Face folders, and the fields that vary."""

from pathlib import Path
from typing import Any

import torch
from token_folder import write_tokenizer
from transformers import AutoConfig, AutoModelForCausalLM, GenerationConfig, PreTrainedModel

VOCABULARY = 96
_SIZES: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "max_position_embeddings": 64,
    "pad_token_id": None,
    "bos_token_id": 0,
    "eos_token_id": 0,
}
_GROUPED = {**_SIZES, "num_key_value_heads": 2}
_WIDE = {**_GROUPED, "head_dim": 12}  # heads that are wider than hidden_size / num_attention_heads
_GPT2 = {"n_embd": 32, "n_layer": 3, "n_head": 4, "n_positions": 64}
_ENDS = {key: _SIZES[key] for key in ("vocab_size", "bos_token_id", "eos_token_id")}

MODELS: dict[str, tuple[str, dict[str, Any]]] = {  # name to family and fields
    "llama": ("llama", _GROUPED),
    "llama, tied": ("llama", {**_GROUPED, "tie_word_embeddings": True}),
    "llama, biases": ("llama", {**_GROUPED, "attention_bias": True, "mlp_bias": True}),
    "llama, wide heads": ("llama", _WIDE),
    "mistral": ("mistral", _GROUPED),
    "mistral, window 8": ("mistral", {**_WIDE, "sliding_window": 8}),
    "qwen2": ("qwen2", _GROUPED),
    "qwen2, tied": ("qwen2", {**_GROUPED, "tie_word_embeddings": True}),
    "qwen3": ("qwen3", _WIDE),
    "qwen3, tied": ("qwen3", {**_WIDE, "tie_word_embeddings": True}),
    "gemma2": ("gemma2", {**_WIDE, "query_pre_attn_scalar": 12, "sliding_window": 8}),
    "gemma3": ("gemma3_text", {**_WIDE, "query_pre_attn_scalar": 12, "sliding_window": 8}),
    "gpt_neox": ("gpt_neox", _SIZES),
    "gpt_neox, one after the other": ("gpt_neox", {**_SIZES, "use_parallel_residual": False, "attention_bias": False}),
    "gpt2": ("gpt2", {**_GPT2, **_ENDS}),
    "gpt2, untied": ("gpt2", {**_GPT2, **_ENDS, "tie_word_embeddings": False}),
    "olmo2": ("olmo2", _GROUPED),
    "olmo2, biases": ("olmo2", {**_GROUPED, "attention_bias": True}),
    "phi3": ("phi3", _GROUPED),
    "smollm3": ("smollm3", _GROUPED),
    "smollm3, untied": ("smollm3", {**_GROUPED, "tie_word_embeddings": False, "mlp_bias": True}),
}
LAYOUTS = ("one file", "shards", "bf16", "bf16 shards")


def zoo_config(name: str) -> Any:
    """The config of a model of the zoo."""
    family, fields = MODELS[name]
    return AutoConfig.for_model(family, **fields)


def zoo_model(name: str, seed: int = 0) -> PreTrainedModel:
    """A model of the zoo, fp32, in evaluation mode; norms, biases and matrices are all drawn, so that each matters."""
    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_config(zoo_config(name), attn_implementation="eager", dtype=torch.float32)
    with torch.no_grad():
        for weight in model.parameters():
            if weight.dim() >= 2:
                weight.normal_(std=0.15)
            else:
                weight.add_(torch.randn_like(weight) * 0.1)
    return model.eval()


def zoo_folder(name: str, layout: str, folder: Path) -> Path:
    """Writes a model of the zoo as people publish them: a tokenizer with an added token, a chat template."""
    model = zoo_model(name)
    if layout.startswith("bf16"):
        model = model.to(torch.bfloat16)
    model.generation_config = GenerationConfig(do_sample=True, temperature=0.7, top_p=0.9, eos_token_id=[0, 5])
    model.save_pretrained(folder, max_shard_size="20KB" if layout.endswith("shards") else "5GB")
    write_tokenizer(folder, VOCABULARY - 1, added=("<|mark|>",), chat_template="{{ messages[0]['content'] }}")
    return folder
