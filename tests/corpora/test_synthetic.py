"""Generated languages: seeded, and sharing exactly the asked part of their structure."""

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from indelible.corpora import documents, recipe
from indelible.corpora.synthetic import structure, words
from indelible.study.corpus_spec import SyntheticCorpus

BASE = structure(SyntheticCorpus(language=1))


def table(overlap: float) -> np.ndarray:
    return structure(SyntheticCorpus(language=2, shared_language=1 if overlap else None, overlap=overlap))


@pytest.mark.parametrize("overlap", [0.0, 0.25, 0.5, 1.0])
def test_overlap_is_the_share_of_words_with_shared_followers(overlap: float) -> None:
    same = (table(overlap) == BASE).all(axis=1)
    assert same.mean() == pytest.approx(overlap, abs=1e-9)


def test_a_larger_overlap_holds_the_smaller_ones() -> None:
    shared = [(table(overlap) == BASE).all(axis=1) for overlap in (0.1, 0.4, 0.9)]
    assert all((small <= large).all() for small, large in pairwise(shared))


def test_documents_follow_the_structure_and_are_the_same_every_time() -> None:
    spec = SyntheticCorpus(language=2, shared_language=1, overlap=0.5, num_documents=40)
    found = [document.text for document in documents(spec, Path())]
    assert found == [document.text for document in documents(spec, Path())]
    longer = SyntheticCorpus(language=2, shared_language=1, overlap=0.5, num_documents=50)
    assert [document.text for document in documents(longer, Path())][:40] == found
    number = {word: i for i, word in enumerate(words(512))}
    rules = structure(spec)
    counts = np.zeros(8, int)
    for text in found:
        spoken = [number[word] for word in text.replace(".", "").split()]
        for here, there in pairwise(spoken):
            (place,) = np.flatnonzero(rules[here] == there)
            counts[place] += 1
    assert (np.diff(counts) < 0).all(), "followers come with falling frequency"
    assert counts[0] / counts.sum() == pytest.approx(0.4 / (1 - 0.6**8), abs=0.02)


def test_words_differ() -> None:
    assert len(set(words(2000))) == 2000
    assert words(2000)[:512] == words(512)


def test_recipe_and_bad_settings() -> None:
    spec = SyntheticCorpus(language=1, max_tokens=5)
    assert recipe(spec, Path()) == recipe(SyntheticCorpus(language=1), Path())
    assert recipe(spec, Path()) != recipe(SyntheticCorpus(language=2), Path())
    with pytest.raises(ValueError, match=r"overlap 0.5 needs shared_language"):
        SyntheticCorpus(language=1, overlap=0.5)


def test_large_vocabularies() -> None:
    rules = structure(SyntheticCorpus(language=1, num_words=5000))
    assert rules.shape == (5000, 8)
    assert rules.max() < 5000
