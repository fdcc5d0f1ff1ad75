"""The manifest of a token store: what is in it, where it came from, and what became of every document."""

from pathlib import Path
from typing import Any

import numpy as np

from indelible.data.index import DISPOSITIONS, HELDOUT, TRAIN, Index
from indelible.data.leaks import Leaks
from indelible.data.manifest_file import FORMAT
from indelible.data.tokenizer import TokenizerInfo
from indelible.files import write_json
from indelible.study.corpus_spec import DataSpec

_COUNTED = ("documents", "tokens", "prompt_tokens", "bytes")


def _sums(group: np.ndarray, size: int, records: np.ndarray) -> list[dict[str, int]]:
    """Documents, tokens (of them prompt) and bytes of each of ``size`` groups; ``group`` (n,) says which one is whose.

    Sums are exact: a document's numbers are below 2^32, and float64 is exact up to 2^53.
    """
    counts = [np.bincount(group, minlength=size)]
    counts += [np.bincount(group, records[key], minlength=size) for key in _COUNTED[1:]]
    return [dict(zip(_COUNTED, map(int, row), strict=True)) for row in zip(*counts, strict=True)]


def disposition_counts(index: Index) -> dict[str, dict[str, int]]:
    """Documents, tokens and bytes by what became of them."""
    return dict(zip(DISPOSITIONS, _sums(index.disposition, len(DISPOSITIONS), index.records), strict=True))


def source_counts(index: Index, licences: dict[str, str]) -> dict[str, dict[str, Any]]:
    """For each source its licence and, by side, documents, tokens and bytes: the histogram of sources."""
    both = index.records["source"].astype(np.int64) * len(DISPOSITIONS) + index.disposition
    sums = _sums(both, len(licences) * len(DISPOSITIONS), index.records)
    counts: dict[str, dict[str, Any]] = {}
    for number, (source, licence) in enumerate(licences.items()):
        sides = {DISPOSITIONS[side]: sums[number * len(DISPOSITIONS) + side] for side in (TRAIN, HELDOUT)}
        if any(side["documents"] for side in sides.values()):
            counts[source] = {"licence": licence, **sides}
    return counts


def write_manifest(
    folder: Path,
    data: DataSpec,
    index: Index,
    *,
    fingerprint: str,
    tokenizer: TokenizerInfo,
    licences: dict[str, str],
    leaks: Leaks,
    provenance: dict[str, Any],
    shards: dict[str, list[dict[str, Any]]],
) -> None:
    """Writes ``manifest.json``; docs/token-store.md explains the fields."""
    manifest = {
        "format": FORMAT,
        "corpus": index.name,
        "fingerprint": fingerprint,
        "tokenizer": tokenizer.path.parent.name,
        "vocab_size": tokenizer.vocab_size,
        "eos_id": tokenizer.eos_id,
        "dtype": tokenizer.dtype.name,
        "has_mask": index.has_mask,
        **({"has_pairs": True} if (index.records["chosen_tokens"] > 0).any() else {}),
        "spec": data.corpora[index.name].model_dump(mode="json"),
        "provenance": provenance,
        "split": data.split.model_dump(mode="json"),
        "fates": disposition_counts(index),
        "leaks": leaks.summary(data),
        "sources": source_counts(index, licences),
        "shards": shards,
    }
    if index.chat is not None:
        manifest["chat"] = index.chat
    write_json(folder / "manifest.json", manifest)
