"""One door to every kind of corpus."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from indelible.corpora.catalog import PACKAGES
from indelible.corpora.document import Document
from indelible.corpora.fields import passing
from indelible.corpora.hub import from_catalogue, hub_documents, hub_recipe, pinned_commit
from indelible.corpora.local import local_documents, local_recipe
from indelible.corpora.offline import offline_documents, offline_recipe, sources_of
from indelible.corpora.synthetic import synthetic_documents, synthetic_recipe
from indelible.errors import UserError
from indelible.files import printable
from indelible.study.corpus_spec import (
    CatalogueCorpus,
    CorpusSpec,
    HubCorpus,
    LocalCorpus,
    OfflineCorpus,
    SyntheticCorpus,
)


def default_cache_dir() -> Path:
    """``$INDELIBLE_CACHE``, or ``~/.cache/indelible``.

    Raises:
        UserError: the first is not set, and this user has no home folder; or it names the home of nobody.
    """
    asked = os.environ.get("INDELIBLE_CACHE")
    try:
        return Path(asked or "~/.cache/indelible").expanduser()
    except RuntimeError:
        if asked:
            raise UserError(f"INDELIBLE_CACHE = {printable(asked)!r}: there is no such home folder.") from None
        raise UserError(
            "no folder for the cache: HOME is not set and this user has no home folder; set INDELIBLE_CACHE to a "
            "folder that can be written."
        ) from None


def documents(spec: CorpusSpec, cache_dir: Path) -> Iterator[Document]:
    """The documents of a corpus, in an order that depends on nothing but the recipe.

    Raises:
        UserError: text could not be fetched, or a file of it could not be read.
    """
    match spec:
        case OfflineCorpus():
            return offline_documents(spec, cache_dir)
        case LocalCorpus():
            return passing(local_documents(spec, cache_dir), spec, printable(", ".join(spec.path)))
        case CatalogueCorpus():
            return _from_hub(from_catalogue(spec), cache_dir)
        case HubCorpus():
            return _from_hub(spec, cache_dir)
        case SyntheticCorpus():
            return synthetic_documents(spec)


def _from_hub(spec: HubCorpus, cache_dir: Path) -> Iterator[Document]:
    return passing(hub_documents(spec, cache_dir), spec, f"data set {spec.id}")


def recipe(spec: CorpusSpec, cache_dir: Path) -> dict[str, Any]:
    """Everything that determines the documents, as JSON; needs no network and reads no text twice.

    Raises:
        UserError: a local file or folder does not exist, or a name is not in the catalogue.
    """
    match spec:
        case OfflineCorpus():
            return offline_recipe(spec)
        case LocalCorpus():
            return local_recipe(spec, cache_dir)
        case CatalogueCorpus():
            return hub_recipe(from_catalogue(spec), cache_dir)
        case HubCorpus():
            return hub_recipe(spec, cache_dir)
        case SyntheticCorpus():
            return synthetic_recipe(spec)


def provenance(spec: CorpusSpec, cache_dir: Path) -> dict[str, Any]:
    """What the text was read from, for the record: packages, files or the commit that was met."""
    if isinstance(spec, CatalogueCorpus):
        spec = from_catalogue(spec)
    if isinstance(spec, HubCorpus):
        return {"data_set": spec.id, "commit": pinned_commit(spec, cache_dir)}
    if isinstance(spec, OfflineCorpus):
        used = sorted({source.package for source in sources_of(spec)})
        return {"packages": [[name, PACKAGES[name].version, PACKAGES[name].sha256] for name in used]}
    if isinstance(spec, LocalCorpus):
        return {"files": local_recipe(spec, cache_dir)["files"]}
    return {}
