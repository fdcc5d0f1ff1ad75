"""What decides the tokens of a study, as hashes: no text is fetched or tokenised to find them."""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from indelible.corpora import recipe
from indelible.files import file_sha256
from indelible.study.corpus_spec import BpeTokenizer, DataSpec

CODE_VERSION = 1  # raise it whenever the same recipe would give other tokens: it is part of every fingerprint


@dataclass(frozen=True)
class Fingerprints:
    """Folder names are ``<corpus>-<first 12 hex>`` and ``tokenizer-<first 12 hex>``."""

    stores: dict[str, str]  # corpus -> 64 hex digits
    tokenizer: str  # 64 hex digits

    def store_folder(self, corpus: str) -> str:
        """Name of a corpus's store folder."""
        return f"{corpus}-{self.stores[corpus][:12]}"

    @property
    def tokenizer_folder(self) -> str:
        """Name of the tokenizer's folder."""
        return f"tokenizer-{self.tokenizer[:12]}"


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True, allow_nan=False).encode()).hexdigest()


def fingerprints(data: DataSpec, cache_dir: Path) -> Fingerprints:
    """Hashes of every store and of the tokenizer.

    A trained tokenizer depends on all corpora of the study, and the leak check looks at all of them; so does, through
    both, every store's fingerprint.
    """
    recipes = {name: recipe(spec, cache_dir) for name, spec in data.corpora.items()}
    limits = {name: spec.max_tokens for name, spec in data.corpora.items()}
    split = data.split.model_dump(mode="json")
    asked: dict[str, Any] = data.tokenizer.model_dump(mode="json")
    if isinstance(data.tokenizer, BpeTokenizer):
        asked |= {"recipes": recipes, "split": split}
    elif (file := Path(data.tokenizer.path) / "tokenizer.json").is_file():
        asked["path"] = file_sha256(file)
    tokenizer = _digest({"tokenizer": asked, "code_version": CODE_VERSION})
    shared = {
        "tokenizer": tokenizer,
        "recipes": recipes,
        "limits": limits,
        "split": split,
        "leaks": data.leaks.model_dump(mode="json"),
        "pre_corpora": sorted(data.pre_corpora),
        "code_version": CODE_VERSION,
    }
    return Fingerprints({name: _digest({"corpus": name, **shared}) for name in data.corpora}, tokenizer)
