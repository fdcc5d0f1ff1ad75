"""MinHash estimates the similarity that it says, and the leak check finds and removes what it must."""

import json
from pathlib import Path

import numpy as np
import pytest
from datasketch import MinHash

from indelible.corpora import documents
from indelible.corpora.document import content_hash
from indelible.data import minhash
from indelible.data.leaks import NearIndex
from indelible.data.prepare import fingerprints, prepare
from indelible.data.split import document_keys, threshold
from indelible.data.store import TokenStore
from indelible.errors import UserError
from indelible.study.corpus_spec import DataSpec, SyntheticCorpus


def shingles(text: str) -> set[bytes]:
    data = " ".join(text.lower().split()).encode()
    return {data[i : i + minhash.WINDOW] for i in range(len(data) - minhash.WINDOW + 1)}


def jaccard(a: str, b: str) -> float:
    left, right = shingles(a), shingles(b)
    return len(left & right) / max(1, len(left | right))


def edited(text: str, edits: int, rng: np.random.Generator) -> str:
    words = text.split()
    for at in rng.choice(len(words), edits, replace=False):
        words[at] = "changed" + str(rng.integers(10**6))
    return " ".join(words)


@pytest.fixture(scope="module")
def texts() -> list[str]:
    spec = SyntheticCorpus(language=3, num_documents=120, document_words=250)
    return [document.text for document in documents(spec, Path())]


def test_estimates_agree_with_the_true_similarity_and_with_datasketch(texts: list[str]) -> None:
    rng = np.random.default_rng(0)
    pairs = [(text, edited(text, int(rng.integers(0, 40)), rng)) for text in texts]
    found = minhash.similarity(*(minhash.signatures([pair[side] for pair in pairs]) for side in (0, 1)))
    true = np.array([jaccard(*pair) for pair in pairs])
    assert true.min() < 0.5 < 0.95 < true.max()
    assert abs(found - true).mean() < 0.04
    assert abs(found - true).max() < 0.15
    library = []
    for pair in pairs[:20]:
        sketches = [MinHash(num_perm=128) for _ in pair]
        for sketch, text in zip(sketches, pair, strict=True):
            sketch.update_batch(list(shingles(text)))
        library.append(sketches[0].jaccard(sketches[1]))
    assert abs(found[:20] - np.array(library)).max() < 0.2


def test_signatures_do_not_depend_on_the_batch(texts: list[str]) -> None:
    mixed = [texts[0], "", "short", texts[1], "x" * 200_000, texts[2]]
    together = minhash.signatures(mixed)
    for row, text in zip(together, mixed, strict=True):
        assert (row == minhash.signatures([text])[0]).all()
    assert (together[1] == minhash.EMPTY).all()
    assert (minhash.signatures([texts[0].upper().replace(" ", "\n  ")])[0] == together[0]).all(), "case and blanks"


def test_near_index_finds_the_best_and_nothing_else(texts: list[str]) -> None:
    rng = np.random.default_rng(1)
    asked = [edited(text, 2, rng) for text in texts[:40]] + texts[100:]
    index = NearIndex(minhash.signatures(texts[:100]))
    best, score = index.best(minhash.signatures(asked), 0.7)
    assert best[:40].tolist() == list(range(40))
    assert (best[40:] == -1).all()
    assert (score[40:] == 0).all()
    assert NearIndex(minhash.signatures([])).best(minhash.signatures(texts[:2]), 0.7)[0].tolist() == [-1, -1]


def test_many_alike_documents_stay_cheap() -> None:
    base = "the same words come again and again in every one of these documents, but for a number "
    alike = minhash.signatures([base * 5 + str(i) for i in range(5000)])
    best, _ = NearIndex(alike).best(alike[:3000], 0.8)
    assert (best >= 0).all()


def write(path: Path, rows: list[str]) -> str:
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in rows))
    return str(path)


def leaky(tmp_path: Path, texts: list[str], **leaks: object) -> tuple[DataSpec, list[str], list[str]]:
    """Two corpora: `post` holds the texts; `pre` holds others, copies and near copies of texts of `post`."""
    rng = np.random.default_rng(2)
    others = [document.text for document in documents(SyntheticCorpus(language=9, num_documents=80), tmp_path)]
    copies, near = texts[:30], [edited(text, 3, rng) for text in texts[30:60]]
    corpora = {
        "pre": {"kind": "local", "path": write(tmp_path / "pre.jsonl", others + copies + near)},
        "post": {"kind": "local", "path": write(tmp_path / "post.jsonl", texts)},
    }
    settings = {
        "corpora": corpora,
        "tokenizer": {"vocab_size": 512, "kind": "bpe"},
        "split": {"heldout_fraction": 0.3},
        "leaks": leaks,
        "pre_corpora": ["pre"],
    }
    return DataSpec.model_validate(settings), copies, near


def sides(tokens: Path, data: DataSpec, cache: Path) -> dict[tuple[str, str], set[str]]:
    import polars as pl

    names = fingerprints(data, cache)
    return {
        (corpus, side): set(
            pl.read_parquet(tokens / names.store_folder(corpus) / f"{side}-00000.documents.parquet")["content"]
        )
        for corpus in data.corpora
        for side in ("train", "heldout")
    }


def test_leaks_are_found_listed_and_removed_from_the_training_side(tmp_path: Path, texts: list[str]) -> None:
    data, copies, near = leaky(tmp_path, texts)
    prepare(data, tmp_path / "tokens", tmp_path / "cache")
    found = sides(tmp_path / "tokens", data, tmp_path / "cache")
    heldout = found["pre", "heldout"] | found["post", "heldout"]
    for corpus in ("pre", "post"):
        assert not found[corpus, "train"] & heldout, "no held-out document is in any training split"
    assert not found["pre", "train"] & found["post", "train"], "D_pre does not hold D_post"

    def is_heldout(text: str) -> bool:
        from indelible.corpora.document import Document

        return document_keys(Document(text, 0, "", ""), 0)[2] < threshold(0.3)

    hashes = {content_hash(text).hex() for text in near if not is_heldout(text)}
    assert not hashes & found["pre", "train"], "near copies of training documents of D_post are gone from D_pre"
    store = TokenStore.open(tmp_path / "tokens" / fingerprints(data, tmp_path / "cache").store_folder("pre"))
    counts = store.manifest["leaks"]["documents"]
    in_train = [text for text in copies if not is_heldout(text)]
    assert counts["exact leak of post train"] == len(in_train)
    assert counts["near leak of post train"] + counts["near leak of post heldout"] == len(hashes)
    fates = store.manifest["fates"]
    assert fates["exact leak"]["documents"] == len(in_train)
    assert fates["near leak"]["documents"] == len(hashes)
    listed = [json.loads(line) for line in (store.folder / "leaks.jsonl").read_text().splitlines()]
    assert len(listed) == sum(counts.values())
    assert {entry["document"] for entry in listed if entry["kind"] == "near leak"} == hashes
    assert all(entry["of_corpus"] == "post" and entry["similarity"] >= 0.8 for entry in listed)


def test_leaks_can_be_reported_only(tmp_path: Path, texts: list[str]) -> None:
    data, _, _ = leaky(tmp_path, texts, remove=False)
    prepare(data, tmp_path / "tokens", tmp_path / "cache")
    found = sides(tmp_path / "tokens", data, tmp_path / "cache")
    assert found["pre", "train"] & found["post", "train"]
    store = TokenStore.open(tmp_path / "tokens" / fingerprints(data, tmp_path / "cache").store_folder("pre"))
    assert store.manifest["leaks"]["documents"]["exact leak of post train"] > 0
    assert store.manifest["fates"]["exact leak"]["documents"] == 0


def test_without_near_only_equal_texts_are_found(tmp_path: Path, texts: list[str]) -> None:
    data, _, _ = leaky(tmp_path, texts, near=False)
    prepare(data, tmp_path / "tokens", tmp_path / "cache")
    store = TokenStore.open(tmp_path / "tokens" / fingerprints(data, tmp_path / "cache").store_folder("pre"))
    assert store.manifest["fates"]["near leak"]["documents"] == 0
    assert store.manifest["fates"]["exact leak"]["documents"] > 0


def test_what_was_left_out_is_said_where_a_corpus_is_too_short(tmp_path: Path, texts: list[str]) -> None:
    data, _, _ = leaky(tmp_path, texts)
    prepare(data, tmp_path / "tokens", tmp_path / "cache")
    names = fingerprints(data, tmp_path / "cache")
    pre = TokenStore.open(tmp_path / "tokens" / names.store_folder("pre"))
    tokens = pre.manifest["fates"]["exact leak"]["tokens"]
    assert f"Left out of what was read: {tokens:,} tokens as exact leak, " in pre.left_out()


def test_a_corpus_that_is_all_copies_is_refused(tmp_path: Path, texts: list[str]) -> None:
    data, _, _ = leaky(tmp_path, texts)
    write(tmp_path / "pre.jsonl", texts[:100])
    with pytest.raises(UserError, match=r"corpus pre: the leak check found every .* exact leak of post"):
        prepare(data, tmp_path / "tokens", tmp_path / "cache")


def test_a_cap_on_held_out_tokens_does_not_leak(tmp_path: Path, texts: list[str]) -> None:
    """With different caps a text may be held out in one corpus and a candidate that fell to training in the other."""
    data, _, _ = leaky(tmp_path, texts, near=False)
    capped = data.model_copy(update={"split": data.split.model_copy(update={"max_heldout_tokens": 4000})})
    prepare(capped, tmp_path / "tokens", tmp_path / "cache")
    found = sides(tmp_path / "tokens", capped, tmp_path / "cache")
    heldout = found["pre", "heldout"] | found["post", "heldout"]
    assert found["pre", "heldout"] != found["post", "heldout"]
    for corpus in ("pre", "post"):
        assert not found[corpus, "train"] & heldout
        store = TokenStore.open(
            tmp_path / "tokens" / fingerprints(capped, tmp_path / "cache").store_folder(corpus), verify=True
        )
        assert 0 < store.num_tokens("heldout") <= 4000
