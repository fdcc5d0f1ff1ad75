"""Generated languages that share a chosen part of their structure.

A language is a rule for which words may follow which: each word has eight followers with falling probability. Two
languages have the same words. With overlap o, a share o of the words has the followers of the shared language and the
others have followers of their own, so that learning one language tells o of the other, and contradicts the rest.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np

from indelible.corpora.document import Document
from indelible.study.corpus_spec import SyntheticCorpus, text_recipe

GENERATOR_VERSION = 1
FOLLOWERS = 8
_WEIGHTS = 0.6 ** np.arange(FOLLOWERS)
_CUMULATIVE = np.cumsum(_WEIGHTS / _WEIGHTS.sum())
_CONSONANTS, _VOWELS = "bdfgklmnprstvz", "aeiou"


def words(count: int) -> list[str]:
    """The vocabulary: ``count`` different pronounceable words, the same in every language."""
    syllables = [c + v for c in _CONSONANTS for v in _VOWELS]
    rng = np.random.default_rng(11)
    made: dict[str, None] = {}
    while len(made) < count:
        made["".join(rng.choice(syllables, size=rng.integers(2, 5)))] = None
    return list(made)


def _followers(language: int, num_words: int) -> np.ndarray:
    """Followers of every word, most frequent first: int64 (num_words, FOLLOWERS)."""
    rng = np.random.default_rng([17, language])
    return (
        np.argsort(rng.random((num_words, num_words)), axis=1)[:, :FOLLOWERS]
        if num_words <= 4096
        else (rng.integers(0, num_words, (num_words, FOLLOWERS)))
    )


def structure(spec: SyntheticCorpus) -> np.ndarray:
    """The followers of every word in a corpus's language: int64 (num_words, FOLLOWERS).

    Which words take the shared followers is one order for all overlaps, so a larger overlap holds the smaller ones.
    """
    table = _followers(spec.language, spec.num_words)
    if spec.shared_language is None:
        return table
    shared = _followers(spec.shared_language, spec.num_words)
    order = np.random.default_rng([19, spec.shared_language]).permutation(spec.num_words)
    taken = order[: round(spec.overlap * spec.num_words)]
    table[taken] = shared[taken]
    return table


def synthetic_documents(spec: SyntheticCorpus) -> Iterator[Document]:
    """Random walks through the corpus's structure, in sentences; document i is the same whatever their number."""
    table, vocabulary = structure(spec), words(spec.num_words)
    for number in range(spec.num_documents):
        rng = np.random.default_rng([23, spec.language, spec.seed, number])
        length = int(rng.integers(spec.document_words // 2, spec.document_words * 3 // 2 + 1))
        choices = np.searchsorted(_CUMULATIVE, rng.random(length), side="right").clip(max=FOLLOWERS - 1)
        word = int(rng.integers(spec.num_words))
        spoken = []
        for choice in choices:
            spoken.append(vocabulary[word])
            word = int(table[word, choice])
        sentences = (" ".join(spoken[i : i + 12]) for i in range(0, length, 12))
        yield Document(". ".join(sentences) + ".", 0, f"language-{spec.language}", "generated")


def synthetic_recipe(spec: SyntheticCorpus) -> dict[str, Any]:
    """What decides the documents."""
    return {"generator": GENERATOR_VERSION, **text_recipe(spec)}
