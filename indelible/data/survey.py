"""A first look at a corpus that is at hand: how much text there is, and which documents a random sample takes."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer

from indelible.corpora import Document, documents
from indelible.data.split import FULL_RANGE, below, document_keys, threshold
from indelible.study.corpus_spec import CatalogueCorpus, CorpusSpec, HubCorpus, SplitSpec

_PROBE_BYTES = 300_000
_MARGIN = 1.15  # of text taken beyond what the probe says is needed


def is_streamed(spec: CorpusSpec) -> bool:
    """True if looking at all documents would mean a download: then a prefix of the shuffled stream is the sample."""
    return isinstance(spec, HubCorpus | CatalogueCorpus)


class Survey:
    """Order keys, split keys and sizes of all documents of a corpus (24 bytes a document)."""

    def __init__(self, spec: CorpusSpec, cache_dir: Path, split: SplitSpec) -> None:
        def values() -> Iterator[int]:
            for document in documents(spec, cache_dir):
                yield from document_keys(document, split.seed)[1:]
                yield len(document.text.encode("utf-8", "surrogatepass"))

        table = np.fromiter(values(), np.uint64).reshape(-1, 3)
        self._table = table[np.argsort(table[:, 0], kind="stable")]

    def bytes_below(self, bound: int) -> int:
        """Bytes of text of the documents whose order key is below ``bound``."""
        return int(self._table[below(self._table[:, 0], bound), 2].sum())

    def bound(self, num_bytes: int, *, training_below: int | None = None) -> int:
        """The order key below which at least ``num_bytes`` of text lie; 2^64 if there is not more than that.

        Args:
            training_below: if given, count only documents whose split key is at least this.
        """
        table = self._table if training_below is None else self._table[self._table[:, 1] >= np.uint64(training_below)]
        size = np.cumsum(table[:, 2])
        at = int(np.searchsorted(size, num_bytes, side="left")) + 1
        return int(table[at, 0]) if at < len(table) else FULL_RANGE


def bytes_a_token(survey: Survey, spec: CorpusSpec, cache_dir: Path, seed: int, tokenizer: Tokenizer) -> float:
    """Bytes of text a token on a small random sample, with a margin."""
    texts = [document.text for document in sampled(documents(spec, cache_dir), survey.bound(_PROBE_BYTES), seed)]
    tokens = sum(len(encoded.ids) + 1 for encoded in tokenizer.encode_batch_fast(texts, add_special_tokens=False))
    return _MARGIN * sum(len(text.encode("utf-8", "surrogatepass")) for text in texts) / max(tokens, 1)


def sampled(stream: Iterator[Document], bound: int, seed: int) -> Iterator[Document]:
    """The documents whose order key is below ``bound``."""
    if bound >= FULL_RANGE:
        return stream
    return (document for document in stream if document_keys(document, seed)[1] < bound)


def training_texts(
    spec: CorpusSpec, cache_dir: Path, split: SplitSpec, survey: Survey | None, num_bytes: int
) -> Iterator[str]:
    """About ``num_bytes`` of text that no held-out split can contain, for the tokenizer's training."""
    candidate = threshold(split.heldout_fraction)
    bound = FULL_RANGE if survey is None else survey.bound(num_bytes, training_below=candidate)
    given = 0
    for document in documents(spec, cache_dir):
        _, order, side = document_keys(document, split.seed)
        if side >= candidate and order < bound:
            yield document.text
            given += len(document.text)
            if survey is None and given >= num_bytes:
                return
