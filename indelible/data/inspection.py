"""A look at a corpus: how many documents, bytes and (about) tokens, from which sources, and what they look like."""

import hashlib
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from indelible.corpora import Document, documents
from indelible.data.split import document_keys
from indelible.data.tokenizer import bpe
from indelible.study.corpus_spec import BpeTokenizer, CorpusSpec

_SAMPLE_BYTES = 1_000_000  # of text that the token estimate is made on
_PREVIEW = 400  # characters of a sample document that are kept


def inspect_corpus(
    spec: CorpusSpec, cache_dir: Path, *, samples: int = 3, vocab_size: int = 2048, limit: int | None = None
) -> dict[str, Any]:
    """Reads a corpus and describes it.

    Args:
        samples: random documents to show, the same at every call.
        vocab_size: of the byte-level BPE, trained on a random sample, that the token count is estimated with.
        limit: read only so many documents.

    Returns:
        JSON-able: documents, bytes, duplicates (documents whose text stood there before), tokens_estimate (None without
        text), sources (each with licence, documents, bytes) and samples.
    """
    sources: dict[str, dict[str, Any]] = {}
    lowest: list[tuple[int, Document]] = []  # a random sample: the documents with the smallest order keys
    held, seen, duplicates = 0, set[bytes](), 0
    for document in islice(documents(spec, cache_dir), limit):
        data = (document.text + document.rejected).encode("utf-8", "surrogatepass")
        size, digest = len(data), hashlib.blake2b(data, digest_size=16).digest()
        duplicates += digest in seen
        seen.add(digest)
        entry = sources.setdefault(document.source, {"licence": document.licence, "documents": 0, "bytes": 0})
        entry["documents"] += 1
        entry["bytes"] += size
        lowest.append((document_keys(document, 0)[1], document))
        held += size
        if held > 20 * _SAMPLE_BYTES:
            lowest = _smallest(lowest)
            held = sum(len(d.text) for _, d in lowest)
    lowest = _smallest(lowest)
    total = sum(entry["bytes"] for entry in sources.values())
    shown = [
        {"source": d.source, "text": d.text[:_PREVIEW], "prompt_chars": d.prompt_chars, "chars": len(d.text)}
        | ({"rejected": d.rejected[:_PREVIEW]} if d.rejected else {})
        for _, d in lowest[:samples]
    ]
    return {
        "documents": sum(entry["documents"] for entry in sources.values()),
        "bytes": total,
        "duplicates": duplicates,
        "tokens_estimate": _estimate([d.text + d.rejected for _, d in lowest], total, vocab_size) if lowest else None,
        "vocab_size": vocab_size,
        "sources": sources,
        "samples": shown,
    }


def _smallest(keyed: list[tuple[int, Document]]) -> list[tuple[int, Document]]:
    """The documents with the smallest keys that together make up the sample."""
    keyed.sort(key=lambda item: item[0])
    ends = np.cumsum([len(document.text) for _, document in keyed])
    return keyed[: int(np.searchsorted(ends, _SAMPLE_BYTES)) + 1]


def _estimate(texts: list[str], total_bytes: int, vocab_size: int) -> int:
    tokenizer = bpe(BpeTokenizer(vocab_size=vocab_size), texts)
    tokens = sum(len(encoded.ids) + 1 for encoded in tokenizer.encode_batch_fast(texts, add_special_tokens=False))
    return round(tokens * total_bytes / max(1, sum(len(text.encode("utf-8", "surrogatepass")) for text in texts)))
