"""From documents to stores: the whole path on small corpora."""

import json
from concurrent.futures import Future
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from indelible.data import prepare as prepare_module
from indelible.data.prepare import fingerprints, prepare
from indelible.data.store import TokenStore
from indelible.data.tokenizer import load_fast, open_tokenizer
from indelible.files import file_sha256
from indelible.study.corpus_spec import DataSpec, SyntheticCorpus


def small(**changes: object) -> DataSpec:
    corpora = {
        "one": SyntheticCorpus(language=1, num_documents=300, document_words=60),
        "two": SyntheticCorpus(language=2, num_documents=200, document_words=60, seed=5),
    }
    settings = {"corpora": corpora, "tokenizer": {"kind": "bpe", "vocab_size": 600}, "split": {"heldout_fraction": 0.1}}
    return DataSpec.model_validate(settings | changes)


def tree(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[DataSpec, Path, Path]:
    root = tmp_path_factory.mktemp("made")
    prepare(small(), root / "tokens", root / "cache")
    return small(), root / "tokens", root / "cache"


def test_every_token_of_the_shards_is_a_document_of_the_corpus(made: tuple[DataSpec, Path, Path]) -> None:
    data, tokens, cache = made
    names = fingerprints(data, cache)
    tokenizer = load_fast(open_tokenizer(tokens / names.tokenizer_folder).path)
    from indelible.corpora import documents

    for corpus in data.corpora:
        folder = tokens / names.store_folder(corpus)
        texts = {document.text for document in documents(data.corpora[corpus], cache)}
        found: list[str] = []
        for split in ("train", "heldout"):
            ids = np.load(folder / f"{split}-00000.npy")
            table = pl.read_parquet(folder / f"{split}-00000.documents.parquet")
            for start, size in table.select("start", "tokens").iter_rows():
                assert ids[start + size - 1] == 0, "each document ends with the end-of-text token"
                found.append(tokenizer.decode(ids[start : start + size - 1].tolist()))
            assert table["tokens"].sum() == len(ids)
        assert sorted(found) == sorted(texts), "no document is lost, doubled or on both sides"


def test_windows_read_what_numpy_reads(made: tuple[DataSpec, Path, Path]) -> None:
    data, tokens, cache = made
    folder = tokens / fingerprints(data, cache).store_folder("one")
    store = TokenStore.open(folder, verify=True)
    raw = np.load(folder / "train-00000.npy")
    assert raw.dtype == np.uint16
    count = store.num_windows("train", 32)
    assert count == (len(raw) - 1) // 32
    windows, mask = store.read("train", np.array([0, count - 1, 3]), 32)
    assert mask is None
    assert windows.dtype == np.int64
    assert windows.shape == (3, 33)
    for row, i in zip(windows, (0, count - 1, 3), strict=True):
        assert (row == raw[i * 32 : i * 32 + 33]).all()
    with pytest.raises(IndexError, match="which has"):
        store.read("train", np.array([count]), 32)
    assert store.bytes_per_token("train") == pytest.approx(store.manifest["fates"]["train"]["bytes"] / len(raw))


def test_again_does_nothing_and_elsewhere_gives_the_same_bytes(
    made: tuple[DataSpec, Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, tokens, cache = made
    prepare(data, tmp_path / "again", cache)
    first, second = tree(tokens), tree(tmp_path / "again")
    assert first == second
    monkeypatch.setattr(prepare_module, "_make", lambda *a: pytest.fail("worked again"))
    prepare(data, tokens, cache)


def test_stores_are_those_of_version_0_1(made: tuple[DataSpec, Path, Path]) -> None:
    """Names and token shards as version 0.1 gave them for this very recipe, so that its folders are still read."""
    _, tokens, _ = made
    written = {
        "one-d1ce9251850b/heldout-00000.npy": "40716b5b14bd4c45",
        "one-d1ce9251850b/train-00000.npy": "645ed7a9f0b5a8e8",
        "two-c9bea88f15ea/heldout-00000.npy": "00c8e9a64b571c23",
        "two-c9bea88f15ea/train-00000.npy": "69c5eac498a9fac0",
    }
    assert {str(path.relative_to(tokens)): file_sha256(path)[:16] for path in tokens.rglob("*.npy")} == written
    assert (tokens / "tokenizer-0ab293d56302" / "indelible.json").exists()


def test_a_deleted_store_comes_back_equal(made: tuple[DataSpec, Path, Path], tmp_path: Path) -> None:
    import shutil

    data, tokens, cache = made
    shutil.copytree(tokens, tmp_path / "tokens")
    victim = tmp_path / "tokens" / fingerprints(data, cache).store_folder("two")
    shutil.rmtree(victim)
    prepare(data, tmp_path / "tokens", cache)
    assert tree(tmp_path / "tokens") == tree(tokens)


def test_fingerprints_move_with_what_decides_the_tokens(tmp_path: Path) -> None:
    base = fingerprints(small(), tmp_path)
    assert base == fingerprints(small(), tmp_path / "other")
    for change in (
        {"split": {"heldout_fraction": 0.2}},
        {"tokenizer": {"kind": "bpe", "vocab_size": 700}},
        {"leaks": {"near": False}},
        {"pre_corpora": ["one"]},
    ):
        changed = fingerprints(small(**change), tmp_path)
        assert all(changed.stores[name] != base.stores[name] for name in base.stores), change
    assert fingerprints(small(leaks={"near": False}), tmp_path).tokenizer == base.tokenizer


def test_manifest_counts_add_up(made: tuple[DataSpec, Path, Path]) -> None:
    data, tokens, cache = made
    folder = tokens / fingerprints(data, cache).store_folder("one")
    manifest = json.loads((folder / "manifest.json").read_text())
    assert sum(sums["documents"] for sums in manifest["fates"].values()) == 300
    for side in ("train", "heldout"):
        total = manifest["fates"][side]["tokens"]
        assert total == sum(shard["tokens"] for shard in manifest["shards"][side])
        assert total == sum(source[side]["tokens"] for source in manifest["sources"].values())
    assert 0.04 < manifest["fates"]["heldout"]["documents"] / 300 < 0.18


def test_a_hub_stream_ends_at_max_tokens_and_its_commit_is_recorded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import datasets

    from indelible.data import parts

    monkeypatch.setattr(datasets.config, "SLEEP_TIME_ON_THREADS_SHUTDOWN", 0)
    monkeypatch.setattr(parts, "CHUNK_BYTES", 3_000)
    monkeypatch.setattr(parts.Pool, "submit", lambda self, *args: _done(parts.encode_chunk(*args)))
    (tmp_path / "set").mkdir()
    rng = np.random.default_rng(0)
    rows = [" ".join(f"w{n}" for n in rng.integers(0, 300, 30)) for _ in range(400)]
    frame = pl.DataFrame({"text": rows, "src": [f"s{i % 3}" for i in range(400)]})
    frame.write_parquet(tmp_path / "set" / "train-00000-of-00001.parquet")
    hub = {"kind": "hub", "id": str(tmp_path / "set"), "revision": "v1", "source_column": "src", "shuffle_buffer": 50}
    data = small(corpora={"web": hub | {"max_tokens": 4000}}, split={"heldout_fraction": 0.2})
    prepare(data, tmp_path / "tokens", tmp_path / "cache")
    store = TokenStore.open(tmp_path / "tokens" / fingerprints(data, tmp_path / "cache").store_folder("web"))
    manifest = store.manifest
    assert 3800 < store.num_tokens("train") + store.num_tokens("heldout") <= 4000
    assert manifest["provenance"] == {"data_set": str(tmp_path / "set"), "commit": manifest["provenance"]["commit"]}
    assert len(manifest["provenance"]["commit"]) == 40
    read = sum(sums["documents"] for sums in manifest["fates"].values())
    assert read < 250, "the stream was left when there was enough"
    assert set(manifest["sources"]) == {"s0", "s1", "s2"}


def _done(value: tuple[int, int]) -> "Future[tuple[int, int]]":
    future: Future[tuple[int, int]] = Future()
    future.set_result(value)
    return future
