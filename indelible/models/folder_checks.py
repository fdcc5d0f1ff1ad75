"""What a checkpoint folder must hold before anything of it is read: whole weights, not a part of them. No torch."""

import re
from pathlib import Path

from indelible.errors import UserError
from indelible.files import read_json

_SHARD = re.compile(r"model-\d+-of-(\d+)\.safetensors")
_INDEX = "model.safetensors.index.json"


def check_folder(folder: Path) -> None:
    """Checks that a folder is a checkpoint of whole weights.

    Raises:
        UserError: it holds adapters without their model, or shards of which some are missing.
    """
    has_weights = any(folder.glob("model*.safetensors"))
    if (folder / "adapter_config.json").is_file() and not has_weights:
        base = read_json(folder / "adapter_config.json").get("base_model_name_or_path")
        raise UserError(
            f"{folder}: adapters (peft) without the model that they belong to{f' ({base})' if base else ''}; "
            "merge them into it first (merge_and_unload, save_pretrained), and give that folder."
        )
    _check_shards(folder)


def _check_shards(folder: Path) -> None:
    present = {file.name for file in folder.glob("model-*.safetensors")}
    wanted: set[str] = set()
    if (folder / _INDEX).is_file():
        names = read_json(folder / _INDEX).get("weight_map")
        if not isinstance(names, dict) or not names:
            raise UserError(f"{folder / _INDEX}: has no weight_map, which says where each weight lies; fetch it again.")
        wanted = {str(name) for name in names.values()}
    elif present and not (folder / "model.safetensors").is_file():
        raise UserError(
            f"{folder}: {len(present)} shard(s) of weights and no {_INDEX}, which says where each weight lies; fetch "
            "it too."
        )
    if missing := sorted(name for name in wanted if not (folder / name).is_file()):
        counts = [found.group(1) for name in missing if (found := _SHARD.fullmatch(name))]
        of = f" of {int(counts[0])}" if counts else ""
        raise UserError(
            f"{folder}: {len(missing)}{of} shard(s) of the weights are missing, e.g. {missing[0]}; fetch the "
            "checkpoint again."
        )
