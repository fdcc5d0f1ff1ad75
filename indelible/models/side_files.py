"""What a checkpoint folder holds beside weights, and hands on to the checkpoints that are trained from it."""

import shutil
from pathlib import Path

from transformers import PreTrainedConfig
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING

_OURS = "indelible.json"  # facts on a tokenizer that only indelible reads
_OF_THE_MODEL = ("generation_config.json", "chat_template*", "additional_chat_templates")


def write_side_files(folder: Path, config: PreTrainedConfig, tokenizer_dir: Path, source: Path | None) -> None:
    """Writes config.json with its `architectures`, the tokenizer's files, and what ``source`` hands on.

    Args:
        folder: the checkpoint, which exists.
        config: of its model.
        tokenizer_dir: of the study's tokenizer; its chat template goes before that of the source.
        source: the checkpoint that the training began with: its settings for generation and its chat template stay.
    """
    model_class = MODEL_FOR_CAUSAL_LM_MAPPING.get(type(config), None)
    if model_class is not None:  # what vLLM, GGUF converters and others choose the model by
        config.architectures = [model_class.__name__]
    config.save_pretrained(folder)
    for entry in tokenizer_dir.iterdir():
        if entry.name != _OURS and not entry.name.startswith("."):
            _copy(entry, folder / entry.name)
    if source is None:
        return
    for pattern in _OF_THE_MODEL:
        for entry in source.glob(pattern):
            if not (folder / entry.name).exists():
                _copy(entry, folder / entry.name)


def _copy(entry: Path, target: Path) -> None:
    if entry.is_dir():
        shutil.copytree(entry, target)
    else:
        shutil.copyfile(entry, target)
