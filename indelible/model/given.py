"""A checkpoint that exists already as the start of a stage (`init`): found, identified, checked. Imports no torch."""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from indelible.errors import UserError
from indelible.files import file_sha256, read_json

FILES = ("config.json", "generation_config.json", "model*.safetensors*", "tokenizer*", "special_tokens_map.json")


@dataclass(frozen=True)
class GivenCheckpoint:
    """A Hugging Face folder with a causal language model."""

    folder: Path
    sha256: str  # of config.json and the weight files: the same model is the same start, wherever it lies
    config: dict[str, Any]  # config.json

    @property
    def vocab_size(self) -> int:
        """Rows of the embedding."""
        return int((self.config.get("text_config") or self.config)["vocab_size"])


def find_checkpoint(checkpoint: str, revision: str | None = None) -> GivenCheckpoint:
    """The folder that `init.from` names, fetched from the hub if it is the id of a repository.

    Args:
        checkpoint: a folder, or ``owner/name`` on the hub.
        revision: commit, tag or branch on the hub; None = main.

    Raises:
        UserError: there is no such folder or repository, or it has no config or no safetensors weights.
    """
    folder = Path(checkpoint).expanduser()
    if not folder.is_dir():
        if checkpoint.startswith((".", "/", "~")) or checkpoint.count("/") != 1:
            raise UserError(f"init.from = {checkpoint!r}: no such folder; give a folder or a hub id (owner/name).")
        folder = _fetch(checkpoint, revision)
    weights = sorted(folder.glob("model*.safetensors"))
    for name, is_there in (("config.json", (folder / "config.json").is_file()), ("model*.safetensors", bool(weights))):
        if not is_there:
            raise UserError(
                f"init.from = {checkpoint!r}: {folder} has no {name}; expected a Hugging Face folder with config.json "
                "and safetensors weights (pickled weights are not read; convert them with transformers first)."
            )
    digest = hashlib.sha256()
    for file in (folder / "config.json", *weights):
        digest.update(f"{file.name} {file_sha256(file)}\n".encode())
    return GivenCheckpoint(folder.resolve(), digest.hexdigest(), read_json(folder / "config.json"))


def _fetch(checkpoint: str, revision: str | None) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(checkpoint, revision=revision, allow_patterns=list(FILES)))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise UserError(
            f"init.from = {checkpoint!r}: neither a folder here nor to be had from the hub ({reason}); "
            "check the name and the network, or give the path of a folder."
        ) from None


def check_tokenizer(given: Path, tokenizer_dir: Path, vocab_size: int) -> None:
    """Checks that the tokens of a study mean to a model what they meant in its own pretraining.

    Args:
        given: folder of the model.
        tokenizer_dir: folder of the study's tokenizer.
        vocab_size: rows of the model's embedding.

    Raises:
        UserError: the model has fewer embeddings than the tokenizer has ids, or brings another vocabulary.
    """
    ours = Tokenizer.from_file(str(tokenizer_dir / "tokenizer.json")).get_vocab(with_added_tokens=True)
    fix = f"set tokenizer: {{kind: hf, path: {given}}}"
    if vocab_size < max(ours.values()) + 1:
        raise UserError(
            f"{given}: the model knows {vocab_size} token ids and the study's tokenizer uses {max(ours.values()) + 1}; "
            f"the model must be given its own tokens; {fix}."
        )
    if not (given / "tokenizer.json").is_file():
        return
    theirs = Tokenizer.from_file(str(given / "tokenizer.json")).get_vocab(with_added_tokens=True)
    if theirs != ours:
        other = sum(theirs.get(token) != number for token, number in ours.items())
        raise UserError(
            f"{given}: its tokenizer is not the study's: {other} of the study's {len(ours)} tokens have another id "
            f"there or none; the model must be given its own tokens; {fix}."
        )
