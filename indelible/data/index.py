"""The documents of one corpus as arrays: what each is, and what becomes of it (training, held out, or left out why)."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from indelible.data.parts import FACTS, read_facts
from indelible.data.split import below, threshold
from indelible.errors import UserError
from indelible.study.corpus_spec import SplitSpec

TRAIN, HELDOUT, DUPLICATE, BEYOND, EXACT_LEAK, NEAR_LEAK = range(6)
FATES = ("train", "heldout", "duplicate", "beyond max_tokens", "exact leak", "near leak")


@dataclass
class Index:
    """All documents of a corpus, part after part; arrays share their first axis."""

    name: str
    parts: list[Path]
    facts: np.ndarray  # dtype FACTS; on disk, so that a corpus of any size fits the memory
    part: np.ndarray  # int32: which part a document is in
    first: np.ndarray  # int64 (parts + 1,): first document of each part
    fate: np.ndarray  # uint8: index into FATES

    def rows(self, fate: int) -> np.ndarray:
        """Documents with one fate, by rising order key: int64."""
        rows = np.flatnonzero(self.fate == fate)
        return rows[np.argsort(self.facts["order"][rows], kind="stable")]

    def tokens(self, fate: int) -> int:
        """Number of tokens, end-of-text included, of the documents with one fate."""
        return int(self.facts["tokens"][self.fate == fate].sum(dtype=np.int64))


def _collect(parts: list[Path]) -> tuple[np.ndarray, np.ndarray]:
    """The facts of all parts as one mapped file beside them, and the first document of each part."""
    first = np.concatenate([[0], np.cumsum([len(read_facts(path)) for path in parts])]).astype(np.int64)
    if not parts or first[-1] == 0:
        return np.zeros(0, FACTS), first
    path = parts[0].with_name("all-facts.npy")
    facts = np.lib.format.open_memmap(path, mode="w+", dtype=FACTS, shape=(int(first[-1]),))
    for number, part in enumerate(parts):
        facts[first[number] : first[number + 1]] = read_facts(part)
    facts.flush()
    return np.asarray(np.lib.format.open_memmap(path, mode="r")), first


def build_index(name: str, parts: list[Path], split: SplitSpec, max_tokens: int | None) -> Index:
    """Reads the parts' facts and decides duplicates, the cut at ``max_tokens`` and the held-out side.

    Raises:
        UserError: a side of the split is left without documents.
    """
    facts, first = _collect(parts)
    part = np.repeat(np.arange(len(parts), dtype=np.int32), np.diff(first))
    fate = np.full(len(facts), TRAIN, np.uint8)
    order = np.lexsort((facts["short"], facts["order"]))  # stable: of equal texts the first met stays
    same = np.zeros(len(facts), bool)
    ordered = facts["short"][order]
    same[1:] = ordered[1:] == ordered[:-1]  # equal in both 64-bit hashes
    same[1:] &= np.diff(facts["order"][order]) == 0
    fate[order[same]] = DUPLICATE
    kept = order[~same]
    if max_tokens is not None:
        fate[kept[np.cumsum(facts["tokens"][kept], dtype=np.int64) > max_tokens]] = BEYOND
    _hold_out(facts, fate, split)
    index = Index(name, parts, facts, part, first, fate)
    for side, rule in (
        (HELDOUT, "raise data.split.heldout_fraction or max_heldout_tokens"),
        (TRAIN, "lower data.split.heldout_fraction"),
    ):
        if not (fate == side).any():
            usable = int(((fate == TRAIN) | (fate == HELDOUT)).sum())
            raise UserError(
                f"corpus {name}: of {usable} usable documents ({len(facts)} read) none is on the {FATES[side]} side; "
                f"whole documents are held out, so give more documents or {rule}, now {split.heldout_fraction} and "
                f"{split.max_heldout_tokens}."
            )
    return index


def _hold_out(facts: np.ndarray, fate: np.ndarray, split: SplitSpec) -> None:
    """Marks the documents with the smallest split keys, as far as the fraction and the cap on tokens reach."""
    candidates = np.flatnonzero((fate == TRAIN) & below(facts["split"], threshold(split.heldout_fraction)))
    candidates = candidates[np.argsort(facts["split"][candidates], kind="stable")]
    if split.max_heldout_tokens is not None and len(candidates):
        size = np.cumsum(facts["tokens"][candidates], dtype=np.int64)
        fits = int(np.searchsorted(size, split.max_heldout_tokens, side="right"))
        if fits < len(candidates):  # documents with one key (a group) stay together
            fits = int(np.searchsorted(facts["split"][candidates], facts["split"][candidates[fits]], side="left"))
        candidates = candidates[:fits]
    fate[candidates] = HELDOUT
