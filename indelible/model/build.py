"""Models from a spec: the Llama architecture of transformers with an initialisation of our own, so that it cannot
change under a seed when a library does."""

import hashlib
import math
from pathlib import Path

import torch
from safetensors import SafetensorError
from transformers import AutoConfig, AutoModelForCausalLM, LlamaConfig, PreTrainedConfig, PreTrainedModel

from indelible.errors import UserError
from indelible.study.spec import ModelSpec


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
        use_cache=False,
        dtype="float32",
    )


def empty_model(config: PreTrainedConfig) -> PreTrainedModel:
    """A model of a config whose weights mean nothing yet, in fp32, with torch's scaled dot product attention."""
    return AutoModelForCausalLM.from_config(config, attn_implementation="sdpa", dtype=torch.float32)


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


def load_given(folder: Path) -> tuple[PreTrainedConfig, dict[str, torch.Tensor]]:
    """Config and weights (fp32, by the names of ``named_parameters``) of any causal LM that transformers can read.

    Raises:
        UserError: transformers cannot read it, or weights are missing in it.
    """
    load_config(folder)
    try:
        model, info = AutoModelForCausalLM.from_pretrained(
            folder, dtype=torch.float32, local_files_only=True, use_safetensors=True, output_loading_info=True
        )
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise UserError(
            f"{folder}: transformers cannot load it as a causal language model ({reason}); "
            "give a folder with config.json and safetensors weights."
        ) from None
    if info["missing_keys"] or info["mismatched_keys"]:
        bad = sorted(str(key) for key in (*info["missing_keys"], *info["mismatched_keys"]))
        raise UserError(
            f"{folder}: {len(bad)} weight(s) of {type(model).__name__} are missing or have another shape there, "
            f"e.g. {bad[0]}; the file and config.json do not belong together."
        )
    return model.config, {name: weight.detach() for name, weight in model.named_parameters()}


def load_config(folder: Path) -> PreTrainedConfig:
    """The config of a checkpoint folder.

    Raises:
        UserError: the folder holds no model config.
    """
    if not (folder / "config.json").is_file():
        raise UserError(f"{folder}: no config.json; expected a Hugging Face model folder.")
    return AutoConfig.from_pretrained(folder, local_files_only=True)
