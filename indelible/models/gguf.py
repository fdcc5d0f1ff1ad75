"""A GGUF file as a Hugging Face folder: weights dequantised once to fp32, tokenizer, chat template, generation config.

transformers reads the file; what it leaves to be put right is done here. It keeps a mark of the quantised file, with
which a model cannot be saved. It passes over the rule that splits digits one by one, which the file names in words of
its own, so that "a  2024" would become other tokens than the model was trained on.
"""

from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from tokenizers import pre_tokenizers
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from indelible.errors import UserError
from indelible.files import read_json, write_json
from indelible.models.weights import weights_sha256

# of the config that the file implies: keys of the loader, and numbers that it keeps in another form or not at all
_OF_THE_LOADER = {"architectures", "dtype", "initializer_range", "rms_norm_eps"}


def write_folder(file: Path, config: Mapping[str, Any], folder: Path, *, split_digits: bool) -> str:
    """Writes the model of a GGUF file as a Hugging Face folder.

    Args:
        file: the GGUF file.
        config: config.json as it is to be written, with `architectures`.
        folder: made; config.json, generation_config.json, model.safetensors (fp32) and the tokenizer's files.
        split_digits: every digit is a token of its own, whatever stands before it.

    Returns:
        Hex digest of the weights.

    Raises:
        UserError: the package gguf is missing, or the file describes another model than ``config``.
    """
    if find_spec("gguf") is None:
        raise UserError(
            f"{file.name}: reading a GGUF file needs the package gguf; install it with: pip install 'indelible[gguf]'"
        )
    place: dict[str, Any] = {"gguf_file": file.name, "local_files_only": True}
    loaded = AutoModelForCausalLM.from_pretrained(file.parent, dtype=torch.float32, trust_remote_code=False, **place)
    _check_config(file, loaded.config.to_dict(), config)
    kind = {key: value for key, value in config.items() if key != "model_type"}
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(config["model_type"], **kind), dtype=torch.float32)
    model.load_state_dict(loaded.state_dict())
    model.generation_config = loaded.generation_config
    model.save_pretrained(folder)
    write_json(folder / "config.json", dict(config))  # no library's version and defaults in it
    tokenizer = AutoTokenizer.from_pretrained(file.parent, trust_remote_code=False, **place)
    if split_digits:
        byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, trim_offsets=True, use_regex=True)
        digits = pre_tokenizers.Digits(individual_digits=True)
        tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence([digits, byte_level])
    tokenizer.save_pretrained(folder)
    settings = read_json(folder / "tokenizer_config.json")
    kept = {key: value for key, value in settings.items() if key not in ("is_local", "local_files_only", "backend")}
    write_json(folder / "tokenizer_config.json", {**kept, "tokenizer_class": "PreTrainedTokenizerFast"})
    return weights_sha256(dict(model.named_parameters()))


def _check_config(file: Path, found: Mapping[str, Any], wanted: Mapping[str, Any]) -> None:
    """The numbers of the file's own config must be those that are written, to the rounding of fp32."""
    for key, value in wanted.items():
        if key not in _OF_THE_LOADER and found.get(key) != value:
            raise UserError(f"{file.name}: it says {key} = {found.get(key)!r} where {value!r} is expected.")
    epsilon = torch.tensor([found["rms_norm_eps"], wanted["rms_norm_eps"]], dtype=torch.float32)
    if epsilon[0] != epsilon[1]:
        raise UserError(f"{file.name}: it says rms_norm_eps = {found['rms_norm_eps']!r}.")
