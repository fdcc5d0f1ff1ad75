"""What decides the tokens of a study, as hashes: no text is fetched or tokenised to find them."""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from indelible.corpora import recipe
from indelible.data.tokenizer import folder_files
from indelible.models.catalogue import CATALOGUE
from indelible.study.corpus_spec import BpeTokenizer, DataSpec
from indelible.study.load import Study
from indelible.study.stage_data import Stores

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
    elif data.tokenizer.path in CATALOGUE:
        asked["path"] = CATALOGUE[data.tokenizer.path].tokenizer_sha256
    elif (folder := Path(data.tokenizer.path)).is_dir():
        asked["path"] = folder_files(folder)
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


def evaluation_fingerprint(corpus: str, data: DataSpec, trained: Fingerprints, cache_dir: Path) -> str:
    """Hash of the store of a corpus that is only evaluated on.

    It depends on the corpora that are trained on, by which its tokens are cut and its copies found; they do not depend
    on it.

    Args:
        corpus: its name.
        data: its recipe, split and leak settings.
        trained: of the corpora that are trained on, and their tokenizer.
        cache_dir: of fetched text.
    """
    spec = data.corpora[corpus]
    return _digest(
        {
            "evaluated": corpus,
            "recipe": recipe(spec, cache_dir),
            "limit": spec.max_tokens,
            "split": data.split.model_dump(mode="json"),
            "tokenizer": trained.tokenizer,
            "trained": trained.stores,
            "code_version": CODE_VERSION,
        }
    )


def study_stores(study: Study, cache_dir: Path) -> Stores:
    """The folder names of a study's stores and tokenizer: those that are trained on, then those only evaluated on.

    Args:
        study: the study.
        cache_dir: of fetched text; nothing is fetched.

    Raises:
        UserError: a local file or folder does not exist, or a name is not in the catalogue.
    """
    names = fingerprints(study.data, cache_dir)
    folders = {corpus: names.store_folder(corpus) for corpus in names.stores}
    for corpus in study.evaluation_corpora:
        digest = evaluation_fingerprint(corpus, study.evaluation_data(corpus), names, cache_dir)
        folders[corpus] = f"{corpus}-{digest[:12]}"
    return Stores(folders, names.tokenizer_folder)
