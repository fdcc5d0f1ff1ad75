"""A checkpoint of a study handed on: a folder for transformers or peft with its model card, and from there the hub."""

import os
import shutil
import tempfile
from pathlib import Path
from typing import Any, Literal

from indelible.console.lineage import find_run
from indelible.errors import UserError
from indelible.files import read_json, share_like_folder, write_json, write_text
from indelible.workflow.model_card import Lineage, model_card, read_lineage

ADAPTERS = "adapters.safetensors"  # as a stage keeps them
Dtype = Literal["fp32", "bf16"]


def export_run(reference: Path, target: Path, *, dtype: Dtype = "fp32", adapters: bool = False) -> Path:
    """Writes the checkpoint of a stage run as a folder that plain transformers, or peft, loads.

    Args:
        reference: folder of a stage run, or ``<study folder>/<beginning of its id>``.
        target: folder to be made; it appears whole or not at all.
        dtype: of the weights; bf16 rounds them.
        adapters: write the adapters of a LoRA run alone, for peft, instead of the whole model.

    Returns:
        The folder of the stage run.

    Raises:
        UserError: no such run, it has no checkpoint or no adapters, or ``target`` is there already.
    """
    run = find_run(reference)
    lineage = read_lineage(run)
    checkpoint = run / "checkpoint"
    if not checkpoint.is_dir():
        raise UserError(f"{checkpoint}: the checkpoint is gone; delete {run / 'result.json'} and run the study again.")
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise UserError(f"--to {target}: is there already and not empty; choose another place.")
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".export-") as name:
        made = Path(name) / "model"
        made.mkdir()
        if adapters:
            _write_adapters(checkpoint, run, lineage, made, dtype)
        else:
            _write_model(checkpoint, made, dtype)
        write_text(made / "README.md", model_card(lineage, dtype=dtype, is_adapter=adapters))
        if target.is_dir():
            target.rmdir()  # empty
        os.replace(made, target)
    return run


def push_folder(folder: Path, repository: str) -> str:
    """Uploads an exported folder to a model repository of the hub, which is made, private, if it is not there.

    Returns:
        The address of the repository.

    Raises:
        UserError: the hub refuses or cannot be reached.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    try:
        api = HfApi()
        address = str(api.create_repo(repository, private=True, exist_ok=True))
        api.upload_folder(repo_id=repository, folder_path=str(folder), commit_message="Exported by indelible")
    except (HfHubHTTPError, HFValidationError, OSError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise UserError(
            f"--push {repository}: the hub did not take it ({reason}); log in with `hf auth login`, check the name "
            f"(owner/name) and the network. The folder {folder} is complete and can be uploaded later."
        ) from None
    return address


def _write_model(checkpoint: Path, made: Path, dtype: Dtype) -> None:
    from safetensors.torch import load_file, save_file

    _copy_files(checkpoint, made, but=(ADAPTERS,) if dtype == "fp32" else (ADAPTERS, "model.safetensors"))
    if dtype == "fp32":
        return
    state = load_file(checkpoint / "model.safetensors")
    save_file(_rounded(state, dtype), made / "model.safetensors", {"format": "pt"})
    share_like_folder(made / "model.safetensors")
    config = {key: value for key, value in read_json(made / "config.json").items() if key != "torch_dtype"}
    write_json(made / "config.json", {**config, "dtype": "bfloat16"})


def _write_adapters(checkpoint: Path, run: Path, lineage: Lineage, made: Path, dtype: Dtype) -> None:
    """Adapters in peft's form. The base is the checkpoint that the first stage with these adapters started from."""
    from peft import LoraConfig
    from safetensors.torch import save_file

    from indelible.train.checkpoint import read_adapters

    kept = read_adapters(checkpoint)
    if kept is None:
        raise UserError(
            f"{run.name}: it keeps no adapters; --adapters is for a stage with lora and merge: false. Without "
            "--adapters the whole model is exported, with whatever was merged into it."
        )
    tensors = {
        name.replace(".default.weight", ".weight"): tensor
        for name, tensor in kept.tensors.items()
        if ".lora_A." in name or ".lora_B." in name
    }
    config = LoraConfig(
        r=kept.spec.r,
        lora_alpha=kept.spec.alpha,
        target_modules=list(kept.spec.targets),
        task_type="CAUSAL_LM",
        base_model_name_or_path=_adapter_base(run, lineage),
        inference_mode=True,
    )
    config.save_pretrained(str(made))
    save_file(_rounded(tensors, dtype), made / "adapter_model.safetensors", {"format": "pt"})
    share_like_folder(made / "adapter_model.safetensors")
    weights = ("config.json", "generation_config.json", "model.safetensors", ADAPTERS)
    _copy_files(checkpoint, made, but=weights)


def _adapter_base(run: Path, lineage: Lineage) -> str:
    """The checkpoint under the adapters: a folder of this study, or the given checkpoint that the chain starts from."""
    under: Path | None = lineage.start_dir
    for step in lineage.steps[:-1]:
        checkpoint = run.parent / step.run.id / "checkpoint"
        if not (checkpoint / ADAPTERS).exists():  # the adapters of later stages lie on this one
            under = checkpoint
    if under is None:
        raise UserError(
            f"{run.name}: the adapters lie on weights that were never a checkpoint (the model was drawn at random); "
            "export the whole model, without --adapters."
        )
    return str(under.resolve())


def _rounded(tensors: dict[str, Any], dtype: Dtype) -> dict[str, Any]:
    import torch

    kind = torch.bfloat16 if dtype == "bf16" else torch.float32
    return {name: tensor.to(kind).contiguous() for name, tensor in tensors.items()}


def _copy_files(source: Path, target: Path, *, but: tuple[str, ...]) -> None:
    for entry in source.iterdir():
        if entry.name in but:
            continue
        if entry.is_dir():
            shutil.copytree(entry, target / entry.name)
        else:
            shutil.copyfile(entry, target / entry.name)
