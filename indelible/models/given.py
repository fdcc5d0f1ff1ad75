"""A checkpoint that exists already as the start of a stage (`init`): found, identified, checked. Imports no torch.

A name of the catalogue is known before it is fetched, so that a study is planned without it; `fetch_given` fetches it.
"""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from tokenizers import Tokenizer

from indelible.corpora.sources import default_cache_dir
from indelible.errors import UserError, refusing
from indelible.files import file_sha256, printable, read_json
from indelible.models.catalogue import CATALOGUE, CatalogueModel, fetch_model, fetch_snapshot
from indelible.models.folder_checks import check_folder

_FLOATS = ("F32", "F16", "BF16")  # which fp32 keeps as they are
BUFFERS = (".masked_bias", ".attn.bias", "inv_freq", "position_ids")  # constants that old checkpoints hold


@dataclass(frozen=True)
class GivenCheckpoint:
    """A Hugging Face folder with a causal language model."""

    folder: Path  # of a catalogue model: where it lies once it is fetched
    sha256: str  # of config.json and the weight files: the same model is the same start, wherever it lies
    config: dict[str, Any]  # config.json
    catalogue: CatalogueModel | None = None  # the entry, if a name of the catalogue was given

    @property
    def vocab_size(self) -> int:
        """Rows of the embedding.

        Raises:
            UserError: config.json does not say.
        """
        text = self.config.get("text_config")
        found = (text if isinstance(text, dict) and text else self.config).get("vocab_size")
        if not isinstance(found, int) or isinstance(found, bool) or found < 1:
            raise UserError(f"{self.folder}/config.json: vocab_size = {found!r}; expected the number of token ids.")
        return found


def find_checkpoint(checkpoint: str, revision: str | None = None, where: str = "init.from") -> GivenCheckpoint:
    """The folder that `init.from` names, fetched from the hub if it is the id of a repository.

    Args:
        checkpoint: a name of the catalogue, a folder, or ``owner/name`` on the hub.
        revision: commit, tag or branch on the hub; None = main.
        where: it is named, for messages.

    Raises:
        UserError: there is no such folder or repository, it has no config or no safetensors weights, or its weights are
            quantised.
    """
    if not checkpoint.strip():  # which would be the folder that the command runs in
        raise UserError(f"{where} = {checkpoint!r}: an empty name; give a folder, a hub id or a name of the catalogue.")
    if checkpoint in CATALOGUE:
        return _of_catalogue(CATALOGUE[checkpoint], revision)
    try:
        folder = Path(checkpoint).expanduser()
        is_folder = folder.is_dir()
    except (RuntimeError, OSError, ValueError) as error:  # no home folder; no name of a file at all
        raise UserError(f"{where} = {printable(repr(checkpoint))}: no such folder ({error}).") from None
    if not is_folder:
        if checkpoint.startswith((".", "/", "~")) or checkpoint.count("/") != 1:
            raise UserError(
                f"{where} = {checkpoint!r}: no such folder; give a folder, a hub id (owner/name), or a name of the "
                f"catalogue ({', '.join(CATALOGUE)})."
            )
        folder = fetch_snapshot(f"{where} = {checkpoint!r}", checkpoint, revision)
    elif revision is not None:
        raise UserError(
            f"{where} = {checkpoint!r}, revision {revision!r}: this is a folder here, which has no revisions; leave it "
            "out, or give the id of a repository of the hub that no folder here is named like."
        )
    check_folder(folder)
    weights = sorted(folder.glob("model*.safetensors"))
    for name, is_there in (("config.json", (folder / "config.json").is_file()), ("model*.safetensors", bool(weights))):
        if not is_there:
            raise UserError(
                f"{where} = {checkpoint!r}: {folder} has no {name}; expected a Hugging Face folder with config.json "
                "and safetensors weights (pickled weights are not read; convert them with transformers first)."
            )
    config = read_json(folder / "config.json")
    if not isinstance(config, dict):
        raise UserError(f"{folder}/config.json: expected an object of settings, found {type(config).__name__}.")
    _check_stored(folder, config, weights)
    digest = hashlib.sha256()
    for file in (folder / "config.json", *weights):
        digest.update(f"{file.name} {file_sha256(file)}\n".encode())
    return GivenCheckpoint(folder.resolve(), digest.hexdigest(), config)


def _check_stored(folder: Path, config: dict[str, Any], weights: list[Path]) -> None:
    """Refuses weights that are not plain floating point numbers, which training would take for what they are not."""
    fix = "give the checkpoint that it was made of, or convert it to float weights with transformers first"
    text = config.get("text_config")
    quantised = config.get("quantization_config") or (isinstance(text, dict) and text.get("quantization_config"))
    if quantised:
        method = quantised.get("quant_method", "of some kind") if isinstance(quantised, dict) else "of some kind"
        raise UserError(f"{folder}: a quantised checkpoint ({method}), which cannot be trained on; {fix}.")
    num_tensors = 0
    for file in weights:
        try:
            with safe_open(file, framework="numpy") as stored:
                num_tensors += len(stored.keys())
                for name in stored.keys():  # noqa: SIM118 - no mapping
                    if (dtype := stored.get_slice(name).get_dtype()) not in _FLOATS and not name.endswith(BUFFERS):
                        raise UserError(
                            f"{file}: {name} is stored as {dtype}, not as floating point that fp32 keeps; {fix}."
                        )
        except (SafetensorError, OSError, ValueError) as error:
            if isinstance(error, UserError):
                raise
            raise UserError(f"{file}: not a safetensors file, or cut short ({error}); fetch it again.") from None
    layers = config.get("num_hidden_layers") or config.get("n_layer")
    if isinstance(layers, int) and layers > num_tensors:  # a model of so many layers would be built for hours
        raise UserError(
            f"{folder}: config.json has {layers} layers and the weight files hold {num_tensors} tensors; they do not "
            "belong together."
        )


def _of_catalogue(model: CatalogueModel, revision: str | None) -> GivenCheckpoint:
    if revision is not None:
        raise UserError(
            f"init.revision = {revision!r}: {model.name} is a name of the catalogue, which pins it "
            f"({model.source.text}); leave revision out, or give the hub id as `from`."
        )
    return GivenCheckpoint(model.folder(default_cache_dir()).resolve(), model.sha256, model.config, model)


def fetch_given(given: GivenCheckpoint) -> Path:
    """The folder of a checkpoint, fetched and converted if it is a catalogue model that is not there yet.

    Raises:
        UserError: it cannot be fetched, or is not the model that is pinned.
    """
    return fetch_model(given.catalogue, default_cache_dir()).resolve() if given.catalogue else given.folder


def model_folder(name: str) -> Path | None:
    """The folder of a catalogue model, fetched if it is missing; None for any other name."""
    return fetch_model(CATALOGUE[name], default_cache_dir()) if name in CATALOGUE else None


def check_tokenizer(given: Path, tokenizer_dir: Path, vocab_size: int) -> None:
    """Checks that the tokens of a study mean to a model what they meant in its own pretraining.

    Args:
        given: folder of the model.
        tokenizer_dir: folder of the study's tokenizer.
        vocab_size: rows of the model's embedding.

    Raises:
        UserError: the model has fewer embeddings than the tokenizer has ids, or brings another vocabulary.
    """
    ours = _vocabulary(tokenizer_dir)
    fix = f"set tokenizer: {{kind: hf, path: {given}}}"
    if vocab_size < max(ours.values()) + 1:
        raise UserError(
            f"{given}: the model knows {vocab_size} token ids and the study's tokenizer uses {max(ours.values()) + 1}; "
            f"the model must be given its own tokens; {fix}."
        )
    if not (given / "tokenizer.json").is_file():
        return
    theirs = _vocabulary(given)
    if theirs != ours:
        other = sum(theirs.get(token) != number for token, number in ours.items())
        raise UserError(
            f"{given}: its tokenizer is not the study's: {other} of the study's {len(ours)} tokens have another id "
            f"there or none; the model must be given its own tokens; {fix}."
        )


def _vocabulary(folder: Path) -> dict[str, int]:
    with refusing(lambda reason: f"{folder}/tokenizer.json: not a tokenizer ({reason})."):
        return Tokenizer.from_file(str(folder / "tokenizer.json")).get_vocab(with_added_tokens=True)
