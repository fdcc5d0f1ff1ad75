"""Which side of the held-out split a document is on, and its place in the order: hashes of its content alone."""

import hashlib

import numpy as np

from indelible.corpora.document import Document, content_hash

FULL_RANGE = 2**64


def _hash64(purpose: bytes, seed: int, content: bytes) -> int:
    key = seed.to_bytes(8, "little", signed=True)
    return int.from_bytes(hashlib.blake2b(content, digest_size=8, person=purpose, key=key).digest(), "little")


def document_keys(document: Document, seed: int) -> tuple[bytes, int, int]:
    """Returns (content hash, order key, split key); keys are uniform over 64 bits.

    Documents stand in rising order of the order key, so that any prefix is a random sample. A document is a held-out
    candidate if its split key is below ``heldout_fraction`` x 2^64; documents of one group share the split key.
    """
    content = content_hash(document.content)
    unit = content_hash(document.group) if document.group else content
    return content, _hash64(b"order", seed, content), _hash64(b"split", seed, unit)


def threshold(fraction: float) -> int:
    """The 64-bit value below which a share ``fraction`` of uniform keys lies."""
    return min(FULL_RANGE, round(fraction * FULL_RANGE))


def below(keys: np.ndarray, bound: int) -> np.ndarray:
    """``keys < bound`` for uint64 keys and a bound of up to 2^64."""
    return np.ones(len(keys), bool) if bound >= FULL_RANGE else keys < np.uint64(bound)
