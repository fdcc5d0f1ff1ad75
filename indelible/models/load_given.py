"""A given checkpoint as a model: what transformers loads of it is what its files say, or it is refused."""

import inspect
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import nn
from transformers import AutoModelForCausalLM, PreTrainedConfig, PreTrainedModel
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING, MODEL_FOR_MASKED_LM_MAPPING
from transformers.utils import logging

from indelible.errors import UserError
from indelible.models.build import empty_model, load_config, reason_of
from indelible.models.given import BUFFERS


@dataclass(frozen=True)
class GivenShape:
    """What can be known of a checkpoint before anything is trained."""

    linear_layers: frozenset[str]  # last parts of their names: what LoRA may adapt
    context: int | None  # tokens; None where the config does not say
    takes_positions: bool  # of its input tokens: else documents that share a row cannot be told apart


def load_given(folder: Path) -> tuple[PreTrainedConfig, dict[str, torch.Tensor]]:
    """Config and weights (fp32, by the names of ``named_parameters``) of any causal LM that transformers can read.

    Raises:
        UserError: transformers cannot read it, or would make another model of it than its files say.
    """
    model = _load(folder, dtype=torch.float32)
    return model.config, {name: weight.detach() for name, weight in model.named_parameters()}


def given_shape(folder: Path) -> GivenShape:
    """Makes every check of `load_given` without reading the weights, which may be larger than the memory.

    Raises:
        UserError: as `load_given`.
    """
    model = _load(folder, device_map={"": "meta"})
    linear = {name.rpartition(".")[2] for name, module in model.named_modules() if isinstance(module, nn.Linear)}
    context = getattr(model.config.get_text_config(decoder=True), "max_position_embeddings", None)
    takes_positions = "position_ids" in inspect.signature(model.forward).parameters
    return GivenShape(frozenset(linear), context if isinstance(context, int) else None, takes_positions)


def _load(folder: Path, **settings: Any) -> PreTrainedModel:
    config = load_config(folder)
    if type(config) not in MODEL_FOR_CAUSAL_LM_MAPPING:
        raise UserError(
            f"{folder}: {config.model_type!r} is no causal language model of transformers; give a model that "
            "predicts the next token."
        )
    if type(config) in MODEL_FOR_MASKED_LM_MAPPING and not config.is_decoder:  # each token would see those behind it
        raise UserError(
            f"{folder}: a {config.model_type!r} model is an encoder (is_decoder: false): it fills in words and does "
            "not predict the next token; give a causal language model."
        )
    verbosity = logging.get_verbosity()
    logging.set_verbosity_error()  # what its report would say is refused below
    logging.disable_progress_bar()
    try:
        model, info = AutoModelForCausalLM.from_pretrained(
            folder, local_files_only=True, use_safetensors=True, output_loading_info=True, trust_remote_code=False,
            ignore_mismatched_sizes=True,  # they are listed and refused below
            **settings,
        )  # fmt: skip
    except Exception as error:  # of any of its model classes, on a config or file that makes no sense
        raise UserError(
            f"{folder}: transformers cannot load it as a causal language model ({reason_of(folder, error)}); "
            "give a folder with config.json and safetensors weights."
        ) from None
    finally:
        logging.set_verbosity(verbosity)
    if info["missing_keys"] or info["mismatched_keys"]:
        bad = sorted(str(key) for key in (*info["missing_keys"], *info["mismatched_keys"]))
        raise UserError(
            f"{folder}: {len(bad)} weight(s) of {type(model).__name__} are missing or have another shape there, "
            f"e.g. {bad[0]}; the file and config.json do not belong together."
        )
    bad = sorted(key for key in map(str, info["unexpected_keys"]) if not key.endswith(BUFFERS))
    if bad:
        raise UserError(
            f"{folder}: {len(bad)} weight(s) there are unexpected: {type(model).__name__} of this config.json has no "
            f"place for them, so they would not be used, e.g. {bad[0]}; file and config.json do not belong together."
        )
    _check_tied(folder, config)
    return model


def _check_tied(folder: Path, config: PreTrainedConfig) -> None:
    """Refuses a head of its own where the config says that it is the embedding: either could be meant."""
    with torch.device("meta"):  # a model that has loaded such weights has untied them without a word
        tied = getattr(empty_model(config), "all_tied_weights_keys", None)
    for head, embedding in tied.items() if isinstance(tied, dict) else ():
        ours, theirs = _stored(folder, head), _stored(folder, embedding)
        if ours is not None and theirs is not None and not torch.equal(ours, theirs):
            raise UserError(
                f"{folder}: {head} and {embedding} are two weights in the file, and config.json says that they are one "
                "(tie_word_embeddings: true). Set that to false if the model has a head of its own, or remove the head."
            )


def _stored(folder: Path, name: str) -> torch.Tensor | None:
    """A tensor of the checkpoint's files; its name may lack the first part (``model.``), None if it is not there."""
    for file in sorted(folder.glob("model*.safetensors")):
        with safe_open(file, framework="pt") as stored:
            for key in stored.keys():  # noqa: SIM118 - no mapping
                if key == name or name.partition(".")[2] == key:
                    return stored.get_tensor(key)
    return None
