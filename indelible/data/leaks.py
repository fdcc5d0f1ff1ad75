"""Duplicates across splits and corpora: found by content hash and by MinHash, taken out of the training side."""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from indelible.data import minhash
from indelible.data.index import DISPOSITIONS, EXACT_LEAK, HELDOUT, NEAR_LEAK, TRAIN, Index
from indelible.data.parts import content_hex
from indelible.files import write_text
from indelible.study.corpus_spec import DataSpec

LISTED = 10_000  # leaks a store that are listed one by one; all are counted
_DOCUMENTS_AT_ONCE = 1024
_MATES = 64  # references a group of bins that are looked at


@dataclass
class Leaks:
    """What was found in one side of one corpus."""

    counts: dict[str, int] = field(default_factory=dict)  # "exact music heldout" -> documents
    tokens: dict[str, int] = field(default_factory=dict)
    entries: list[dict[str, Any]] = field(default_factory=list)
    method: str = f"content hash; MinHash of {minhash.WINDOW}-byte windows in {minhash.BINS} bins"

    def add(self, label: str, tokens: int, entry: dict[str, Any]) -> None:
        """Counts one document, and lists it as far as the list reaches."""
        self.counts[label] = self.counts.get(label, 0) + 1
        self.tokens[label] = self.tokens.get(label, 0) + tokens
        if len(self.entries) < LISTED:
            self.entries.append(entry)

    def write(self, path: Path) -> None:
        """One JSON object a line."""
        write_text(path, "".join(json.dumps(entry, ensure_ascii=False) + "\n" for entry in self.entries))

    def summary(self, data: DataSpec) -> dict[str, Any]:
        """The manifest's account."""
        return {
            **data.leaks.model_dump(mode="json"),
            "method": self.method,
            "documents": self.counts,
            "tokens": self.tokens,
            "listed": len(self.entries),
        }


def read_signatures(index: Index, rows: np.ndarray) -> np.ndarray:
    """Signatures of some documents: uint16 (len(rows), BINS)."""
    out = np.empty((len(rows), minhash.BINS), np.uint16)
    for part in np.unique(index.part[rows]):
        table = np.load(index.parts[part].with_suffix(".minhash.npy"), mmap_mode="r", allow_pickle=False)
        mine = index.part[rows] == part
        out[mine] = table[rows[mine] - index.first[part]]
    return out


class NearIndex:
    """Signatures to search in, by groups of bins that agree."""

    def __init__(self, signature: np.ndarray) -> None:
        self._signature = signature
        # One contiguous row a band: a search in a column would copy the whole column first.
        self._order = np.empty((minhash.BANDS, len(signature)), np.int32)
        self._keys = np.empty((minhash.BANDS, len(signature)), np.uint64)
        for band, keys in enumerate(minhash.band_keys(signature).T):
            self._order[band] = np.argsort(keys, kind="stable")
            self._keys[band] = keys[self._order[band]]

    def best(self, signature: np.ndarray, bound: float) -> tuple[np.ndarray, np.ndarray]:
        """For each of some signatures the most similar one of the index.

        Of the references that agree in one group of bins, `_MATES` are looked at: where hundreds of documents are
        alike, some of them are found, which is enough.

        Returns:
            Its number, -1 if none reaches ``bound`` (int64), and the estimated similarity (float64).
        """
        best, score = np.full(len(signature), -1, np.int64), np.zeros(len(signature))
        for start in range(0, len(signature), _DOCUMENTS_AT_ONCE):
            block = slice(start, start + _DOCUMENTS_AT_ONCE)
            best[block], score[block] = self._best_of_block(signature[block], bound)
        return best, score

    def _best_of_block(self, signature: np.ndarray, bound: float) -> tuple[np.ndarray, np.ndarray]:
        best, score = np.full(len(signature), -1, np.int64), np.zeros(len(signature))
        keys, size = minhash.band_keys(signature), len(self._signature)
        pairs = [np.zeros(0, np.int64)]
        for band in range(minhash.BANDS):
            table, asked = self._keys[band], keys[:, band]
            low = np.searchsorted(table, asked, side="left")
            count = np.minimum(np.searchsorted(table, asked, side="right") - low, _MATES)
            count[~minhash.is_usable(asked)] = 0
            left = np.repeat(np.arange(len(keys)), count)
            within = np.arange(int(count.sum())) - np.repeat(np.cumsum(count) - count, count)
            pairs.append(left * size + self._order[band, np.repeat(low, count) + within])
        left, right = np.divmod(np.unique(np.concatenate(pairs)), max(size, 1))
        alike = minhash.similarity(signature[left], self._signature[right]) if len(left) else np.zeros(0)
        good = alike >= bound
        left, right, alike = left[good], right[good], alike[good]
        rising = np.argsort(alike, kind="stable")  # of several assignments to one place the last, the best, stays
        best[left[rising]], score[left[rising]] = right[rising], alike[rising]
        return best, score


@dataclass(frozen=True)
class _References:
    """Documents that must not come again: where they are, their hashes and signatures."""

    corpus: np.ndarray  # int32: which corpus
    row: np.ndarray  # int64: which document of it
    content: np.ndarray  # uint64
    near: NearIndex | None


def _references(indexes: dict[str, Index], names: list[str], chosen: dict[str, np.ndarray], near: bool) -> _References:
    parts = [(names.index(name), indexes[name], rows) for name, rows in chosen.items() if len(rows)]
    empty = np.zeros((0, minhash.BINS), np.uint16)
    return _References(
        np.concatenate([np.zeros(0, np.int32), *(np.full(len(rows), number, np.int32) for number, _, rows in parts)]),
        np.concatenate([np.zeros(0, np.int64), *(rows for _, _, rows in parts)]),
        np.concatenate([np.zeros(0, np.uint64), *(index.records["short"][rows] for _, index, rows in parts)]),
        NearIndex(np.concatenate([empty, *(read_signatures(i, rows) for _, i, rows in parts)])) if near else None,
    )


def check_leaks(data: DataSpec, indexes: dict[str, Index], sources: dict[str, list[str]]) -> dict[str, Leaks]:
    """Finds, in each corpus's training side, duplicates of held-out documents of all corpora; in `pre_corpora` also
    those of the other corpora's training documents. Changes the documents' dispositions if ``leaks.remove``.
    """
    names = list(indexes)
    heldout = {name: index.rows(HELDOUT) for name, index in indexes.items()}
    training = {name: index.rows(TRAIN) for name, index in indexes.items()}
    found = {name: Leaks() for name in names}
    rounds = [(name, heldout) for name in names]
    rounds += [(pre, {n: training[n] for n in names if n not in data.pre_corpora}) for pre in data.pre_corpora]
    cached: dict[int, _References] = {}
    for name, chosen in rounds:
        if id(chosen) not in cached:
            cached[id(chosen)] = _references(indexes, names, chosen, data.leaks.near)
        side = HELDOUT if chosen is heldout else TRAIN
        _check_one(data, names, indexes, sources, name, cached[id(chosen)], side, found[name])
    return found


def _check_one(
    data: DataSpec,
    names: list[str],
    indexes: dict[str, Index],
    sources: dict[str, list[str]],
    name: str,
    references: _References,
    side: int,
    found: Leaks,
) -> None:
    index = indexes[name]
    if not len(references.row):
        return
    order = np.argsort(references.content, kind="stable")
    known = references.content[order]
    for part in range(len(index.parts)):
        low, high = index.first[part : part + 2]
        rows = low + np.flatnonzero(index.disposition[low:high] == TRAIN)
        content = index.records["short"][rows]
        at = np.searchsorted(known, content)
        at = order[np.minimum(at, len(order) - 1)]
        match = np.where(references.content[at] == content, at, -1)
        kind = np.where(match >= 0, EXACT_LEAK, TRAIN)
        score = (match >= 0).astype(float)
        if references.near is not None:
            near, alike = references.near.best(read_signatures(index, rows), data.leaks.threshold)
            is_new = (match < 0) & (near >= 0)
            match[is_new], kind[is_new], score[is_new] = near[is_new], NEAR_LEAK, alike[is_new]
        for hit in np.flatnonzero(match >= 0):
            other = indexes[names[references.corpus[match[hit]]]]
            row, other_row = int(rows[hit]), int(references.row[match[hit]])
            disposition = int(kind[hit])
            entry = {
                "kind": DISPOSITIONS[disposition],
                "similarity": round(float(score[hit]), 3),
                "document": content_hex(index.records[row : row + 1])[0],
                "source": sources[name][index.records["source"][row]],
                "of": content_hex(other.records[other_row : other_row + 1])[0],
                "of_corpus": other.name,
                "of_split": DISPOSITIONS[side],
                "of_source": sources[other.name][other.records["source"][other_row]],
            }
            label = f"{DISPOSITIONS[disposition]} of {other.name} {DISPOSITIONS[side]}"
            found.add(label, int(index.records["tokens"][row]), entry)
            if data.leaks.remove:
                index.disposition[row] = disposition
