"""Checkpoints (Hugging Face folders) and resume states; both appear whole or not at all.

A resume state is `resume/step-<n>/` with tensors and `state.json`, written into a folder of another name that is
renamed at the end. `state.json` is written last and holds the checksums of the tensor files and of itself; a damaged
state is noticed and thrown away.
"""

import hashlib
import json
import os
import secrets
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.distributed.checkpoint as dcp
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from transformers import PreTrainedConfig

from indelible.errors import UserError
from indelible.files import file_sha256, share_like_folder
from indelible.models.side_files import write_side_files
from indelible.study.adapt import LoraSpec
from indelible.train.distributed import World, assign

State = dict[str, torch.Tensor]
RESUME = "resume"
ADAPTERS = "adapters.safetensors"
ONE_FILE = "state.safetensors"  # what a single process writes


@dataclass(frozen=True)
class Adapters:
    """Adapters that a stage hands on unmerged (`lora.merge: false`)."""

    spec: LoraSpec
    tensors: State  # by the names of `model.lora.kept_adapters`


def save_checkpoint(
    folder: Path,
    state: State,
    config: PreTrainedConfig,
    tokenizer_dir: Path,
    kept: Adapters | None = None,
    source: Path | None = None,
) -> None:
    """Writes a Hugging Face folder: config.json, model.safetensors (fp32), the tokenizer's files.

    ``source``, the checkpoint that the stage began with, hands on its chat template and generation settings.

    ``kept`` adapters lie beside them in adapters.safetensors; model.safetensors has them folded in all the same, so
    that every reader of the folder gets the model that was evaluated.
    """
    aside = _fresh(_temporary_name(folder))
    write_side_files(aside, config, tokenizer_dir, source)
    save_file(
        {name: weight.contiguous() for name, weight in state.items()}, aside / "model.safetensors", {"format": "pt"}
    )
    if kept is not None:
        save_file(kept.tensors, aside / ADAPTERS, {"spec": json.dumps(kept.spec.model_dump())})
    _publish(aside, folder)


def read_adapters(folder: Path) -> Adapters | None:
    """The adapters that a checkpoint keeps, None without.

    Raises:
        UserError: their file cannot be read.
    """
    if not (folder / ADAPTERS).exists():
        return None
    try:
        with safe_open(folder / ADAPTERS, framework="pt") as file:
            spec = LoraSpec.model_validate_json((file.metadata() or {})["spec"])
        return Adapters(spec, load_file(folder / ADAPTERS))
    except (OSError, ValueError, KeyError, SafetensorError) as error:
        raise UserError(
            f"{folder / ADAPTERS}: not the adapters that a stage has kept ({type(error).__name__}); the file was cut "
            "or edited. Delete the folder of the run, and run the same command again."
        ) from None


def save_resume(run_dir: Path, step: int, tensors: State, record: dict[str, Any], world: World) -> None:
    """Writes the state after ``step`` updates and then removes older ones: there is one, at most.

    One process writes one file; several write their shards side by side (torch's distributed checkpoint, as
    safetensors), which any number of processes can read.
    """
    folder = run_dir / RESUME / f"step-{step:09d}"
    # a stalled owner that wakes after a takeover must meet no folder of its successor's; ranks agree on the name
    aside = folder.with_name(world.broadcast(_temporary_name(folder).name if world.is_first else ""))
    if world.is_first:
        _fresh(aside)
    world.barrier()
    if world.size == 1:
        save_file({name: tensor.detach().contiguous().cpu() for name, tensor in tensors.items()}, aside / ONE_FILE)
    else:
        dcp.save(dict(tensors), storage_writer=dcp.HuggingFaceStorageWriter(str(aside), save_distributed=True))
    world.barrier()
    if world.is_first:
        sums = {file.name: file_sha256(file) for file in sorted(aside.iterdir())}
        record = {**record, "step": step, "world_size": world.size, "tensors": list(tensors), "sha256": sums}
        record["record_sha256"] = _record_sha256(record)
        (aside / "state.json").write_text(json.dumps(record), encoding="utf-8")
        _publish(aside, folder)
        for other in (run_dir / RESUME).glob("step-*"):  # not what another owner is writing at this moment
            if other.name < folder.name:
                shutil.rmtree(other, ignore_errors=True)
    world.barrier()


def find_resume(run_dir: Path) -> tuple[Path | None, list[str]]:
    """The folder of the newest whole resume state, and a sentence for each damaged one, which is thrown away.

    States that were not written to their end are removed: whoever was writing them does not own the run any more.
    """
    for unfinished in (run_dir / RESUME).glob(".step-*"):
        shutil.rmtree(unfinished, ignore_errors=True)
    damaged: list[str] = []
    for folder in sorted((run_dir / RESUME).glob("step-*"), reverse=True):
        try:
            record = read_record(folder)
            bad = [name for name, digest in record["sha256"].items() if file_sha256(folder / name) != digest]
            if record["record_sha256"] != _record_sha256(record):
                bad.insert(0, "state.json")
            if not bad:
                return folder, damaged
            reason = f"the checksum of {bad[0]} does not match"
        except (OSError, ValueError, KeyError, AttributeError, TypeError, RecursionError) as error:
            reason = f"{type(error).__name__}: {error}"
        damaged.append(f"resume state {folder.name} is damaged ({reason}); it is not used")
        shutil.rmtree(folder, ignore_errors=True)
    return None, damaged


def _record_sha256(record: dict[str, Any]) -> str:
    """Hex digest of a record, but for the entry that holds it."""
    rest = {key: value for key, value in record.items() if key != "record_sha256"}
    return hashlib.sha256(json.dumps(rest, sort_keys=True).encode()).hexdigest()


def read_record(folder: Path) -> dict[str, Any]:
    """What a resume state holds besides tensors."""
    return json.loads((folder / "state.json").read_text(encoding="utf-8"))


@torch.no_grad()
def read_resume(folder: Path, into: State, world: World) -> None:
    """Fills tensors, sharded or not, from a resume state that any number of processes wrote."""
    if (folder / ONE_FILE).exists():
        stored = load_file(folder / ONE_FILE)
        for name, tensor in into.items():
            assign(tensor, stored[name])
        return
    dcp.load(dict(into), storage_reader=dcp.HuggingFaceStorageReader(str(folder)), no_dist=world.size == 1)


def delete_resume(run_dir: Path) -> None:
    """Removes all resume states of a run."""
    shutil.rmtree(run_dir / RESUME, ignore_errors=True)


def _temporary_name(folder: Path) -> Path:
    """A name beside ``folder`` that no other process uses."""
    return folder.with_name(f".{folder.name}.{os.getpid()}.{secrets.token_hex(4)}.tmp")


def _fresh(folder: Path) -> Path:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder


def _publish(aside: Path, folder: Path) -> None:
    """Flushes the files of ``aside`` to disk and renames it to ``folder``, which it replaces."""
    for weights in aside.glob("*.safetensors"):
        share_like_folder(weights)
    for file in (path for path in aside.rglob("*") if path.is_file()):
        with open(file, "rb") as handle:
            os.fsync(handle.fileno())
    shutil.rmtree(folder, ignore_errors=True)
    os.replace(aside, folder)
    parent = os.open(folder.parent, os.O_RDONLY)
    try:
        os.fsync(parent)  # the rename itself
    finally:
        os.close(parent)
