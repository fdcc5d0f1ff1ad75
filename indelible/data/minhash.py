"""MinHash signatures of texts, for whole batches at a time: one-permutation hashing over windows of bytes.

Li, Owen, Zhang, "One Permutation Hashing" (NIPS 2012): every window is hashed once; the hash's top bits choose one of
128 bins and the rest competes for the bin's minimum. The share of bins that agree, among those that are not empty in
both signatures, estimates the Jaccard similarity of the two sets of windows, with standard deviation below 0.045.
"""

import numpy as np

BINS = 128
BANDS = 32  # groups of four bins; two texts become candidates if one whole group agrees
WINDOW = 16  # bytes a shingle, after lower-casing (ASCII) and squeezing of blank space
EMPTY = np.uint16(0xFFFF)
_EMPTY_BAND = np.uint64(0xFFFF_FFFF_FFFF_FFFF)
_BLOCK = 1 << 16  # bytes hashed at once: small enough for the processor's cache
_BLANK = 32
_FOLD = bytes(
    _BLANK if byte in b"\t\n\v\f\r" else ord(chr(byte).lower()) if byte < 128 else byte for byte in range(256)
)
_TABLE = np.random.default_rng(20260512).integers(1, 1 << 32, 256, dtype=np.uint32)
_STEPS = (
    (1, np.uint32(0x9E3779B1)),
    (2, np.uint32(0x85EBCA77)),
    (4, np.uint32(0xC2B2AE3D)),
    (8, np.uint32(0x27D4EB2F)),
)


def _window_hashes(data: np.ndarray) -> np.ndarray:
    """Hashes of all windows of `WINDOW` bytes: uint8 (n,) to uint32 (n - WINDOW + 1,)."""
    h = _TABLE[data]
    for span, factor in _STEPS:  # a window of 2s bytes is hashed from its two halves
        h = h[:-span] * factor + h[span:]
    h ^= h >> np.uint32(16)
    h *= np.uint32(0x7FEB352D)
    h ^= h >> np.uint32(15)
    return h


def signatures(texts: list[str]) -> np.ndarray:
    """Signatures of texts: uint16 (len(texts), BINS); a bin that no window fell into is `EMPTY`."""
    table = np.full(len(texts) * BINS, EMPTY, np.uint16)
    block: list[bytes] = []
    first, size = 0, 0
    for number, text in enumerate(texts):
        data = text.encode("utf-8", "surrogatepass").translate(_FOLD)
        block.append(data)
        size += len(data)
        if size >= _BLOCK or number == len(texts) - 1:
            _add_block(table, first, block)
            block, first, size = [], number + 1, 0
    return table.reshape(len(texts), BINS)


def _squeezed(block: list[bytes]) -> tuple[np.ndarray, np.ndarray]:
    """The texts' bytes one after the other, runs of blanks made one and those at the ends gone; and their lengths."""
    data = np.frombuffer(b"".join(block), np.uint8)
    ends = np.cumsum([len(part) for part in block])
    starts = np.concatenate([[0], ends[:-1]])
    blank = data == _BLANK
    after_blank = np.empty(len(data), bool)
    after_blank[1:] = blank[:-1]
    after_blank[starts[starts < ends]] = True
    keep = ~(blank & after_blank)
    kept = np.concatenate([[0], np.cumsum(keep)])
    lengths = kept[ends] - kept[starts]
    # A blank that ends a text is the last one kept of it.
    data = data[keep]
    lasts = (np.cumsum(lengths) - 1)[lengths > 0]
    loose = lasts[data[lasts] == _BLANK]
    lengths[np.flatnonzero(lengths > 0)[data[lasts] == _BLANK]] -= 1
    return np.delete(data, loose), lengths


def _add_block(table: np.ndarray, first: int, block: list[bytes]) -> None:
    data, lengths = _squeezed(block)
    if len(data) < WINDOW:
        return
    windows = np.maximum(lengths - WINDOW + 1, 0)
    if not windows.any():
        return
    h = _window_hashes(data)
    ends = np.cumsum(lengths)
    inside = np.ones(len(h), bool)  # windows that lie in one text
    for end in ends[:-1]:
        inside[max(0, end - WINDOW + 1) : end] = False
    h = h[inside]
    rows = np.repeat(np.arange(first, first + len(block)), windows)
    bins = rows * BINS + (h >> np.uint32(25)).astype(np.int64)
    # The largest value is given up so that it can mean "empty".
    values = np.minimum((h >> np.uint32(9)).astype(np.uint16), np.uint16(0xFFFE))
    np.minimum.at(table, bins, values)


def band_keys(table: np.ndarray) -> np.ndarray:
    """The groups of four bins as numbers: uint16 (n, BINS) to uint64 (n, BANDS)."""
    return np.ascontiguousarray(table).view(np.uint64)


def is_usable(keys: np.ndarray) -> np.ndarray:
    """False where all four bins of a group are empty: that agreement means nothing."""
    return keys != _EMPTY_BAND


def similarity(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Estimated Jaccard similarity of pairs of signatures: two (n, BINS) arrays to float64 (n,)."""
    used = (left != EMPTY) | (right != EMPTY)
    agree = (left == right) & used
    return agree.sum(axis=1) / np.maximum(used.sum(axis=1), 1)
