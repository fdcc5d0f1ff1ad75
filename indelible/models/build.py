"""Models from a spec: the Llama architecture of transformers with an initialisation of our own, so that it cannot
change under a seed when a library does."""

import hashlib
import math
from contextlib import suppress
from pathlib import Path

import torch
from transformers import (
    MODEL_FOR_CAUSAL_LM_MAPPING,
    AutoConfig,
    AutoModelForCausalLM,
    LlamaConfig,
    PreTrainedConfig,
    PreTrainedModel,
)

from indelible.errors import UserError
from indelible.files import read_json
from indelible.study.arm import ModelSpec


def model_config(spec: ModelSpec, vocab_size: int, seq_len: int, eos_id: int) -> LlamaConfig:
    """The transformers config of a spec."""
    return LlamaConfig(
        vocab_size=vocab_size,
        hidden_size=spec.hidden_size,
        intermediate_size=spec.intermediate_size,
        num_hidden_layers=spec.num_layers,
        num_attention_heads=spec.num_heads,
        num_key_value_heads=spec.num_kv_heads,
        max_position_embeddings=seq_len,
        rope_parameters={"rope_type": "default", "rope_theta": spec.rope_theta},
        rms_norm_eps=spec.rms_norm_eps,
        tie_word_embeddings=spec.tie_embeddings,
        initializer_range=spec.init_std,
        attention_bias=False,
        mlp_bias=False,
        bos_token_id=eos_id,
        eos_token_id=eos_id,
        pad_token_id=None,
        dtype="float32",
    )


def empty_model(config: PreTrainedConfig) -> PreTrainedModel:
    """A model of a config whose weights mean nothing yet, in fp32.

    Attention is torch's scaled dot product attention, but where a model computes more than that knows (Gemma 2 caps its
    scores): there it is written out.
    """
    kind = MODEL_FOR_CAUSAL_LM_MAPPING.get(type(config), None)
    attention = "sdpa" if kind is None or kind._supports_sdpa else "eager"
    return AutoModelForCausalLM.from_config(config, attn_implementation=attention, dtype=torch.float32)


def generator(seed: int, name: str) -> torch.Generator:
    """A CPU generator for one purpose; different names are independent."""
    digest = hashlib.sha256(f"{seed}/{name}".encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "little") >> 1)


@torch.no_grad()
def initialise(model: PreTrainedModel, spec: ModelSpec, seed: int) -> None:
    """Draws all weights from the stream `init`, in the order of ``named_parameters``.

    `normal`: every matrix N(0, init_std), norms 1 (what transformers does). `litgpt`: N(0, 2 / (5 hidden)), and
    N(0, 1 / (layers^2 hidden)) for the projections back into the residual stream.
    """
    source = generator(seed, "init")
    for name, weight in model.named_parameters():
        if weight.dim() < 2:
            weight.fill_(1.0)
            continue
        std = spec.init_std
        if spec.init == "litgpt":
            is_output = name.endswith(("o_proj.weight", "down_proj.weight"))
            std = (
                1 / (spec.num_layers * math.sqrt(spec.hidden_size)) if is_output else math.sqrt(0.4 / spec.hidden_size)
            )
        weight.copy_(torch.randn(weight.shape, generator=source) * std)


def load_config(folder: Path) -> PreTrainedConfig:
    """The config of a checkpoint folder. Code that lies in it is not run, and nobody is asked whether it may be.

    Raises:
        UserError: the folder holds no model config that transformers itself knows.
    """
    if not (folder / "config.json").is_file():
        raise UserError(f"{folder}: no config.json; expected a Hugging Face model folder.")
    try:
        return AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except Exception as error:  # of any of the config classes
        raise UserError(f"{folder}: config.json cannot be read ({reason_of(folder, error)}).") from None


def reason_of(folder: Path, error: Exception) -> str:
    """What transformers says, in one line; of a model that needs code of its own, that this is not run."""
    with suppress(UserError, AttributeError):
        config = read_json(folder / "config.json")
        if config.get("auto_map"):
            kind = config.get("model_type")
            return f"model type {kind!r} needs code of its own (auto_map), and code out of a checkpoint is never run"
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
