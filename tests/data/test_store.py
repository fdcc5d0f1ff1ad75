"""Shards, masks and windows of a store; and what is refused when it is opened."""

import json
import shutil
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from indelible.data import shards
from indelible.data import store as store_module
from indelible.data.prepare import fingerprints, prepare
from indelible.data.store import TokenStore
from indelible.data.tokenizer import load_fast, open_tokenizer
from indelible.errors import UserError
from indelible.study.corpus_spec import DataSpec


def chat_spec(tmp_path: Path) -> DataSpec:
    rows = [{"q": f"What is {i} plus {i}?", "a": f"It is {2 * i}, I think."} for i in range(200)]
    (tmp_path / "chat.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    corpus = {
        "kind": "local",
        "path": str(tmp_path / "chat.jsonl"),
        "prompt_column": "q",
        "completion_column": "a",
        "template": "Q: {prompt} A: {completion}",
    }
    return DataSpec.model_validate(
        {
            "corpora": {"chat": corpus},
            "tokenizer": {"kind": "bpe", "vocab_size": 512},
            "split": {"heldout_fraction": 0.1},
            "leaks": {"near": False},
        }
    )


def make(data: DataSpec, root: Path, corpus: str) -> Path:
    prepare(data, root / "tokens", root / "cache")
    return root / "tokens" / fingerprints(data, root / "cache").store_folder(corpus)


def test_the_mask_marks_the_completion_with_its_end_of_text(tmp_path: Path) -> None:
    data = chat_spec(tmp_path)
    store = TokenStore.open(make(data, tmp_path, "chat"))
    tokenizer = load_fast(
        open_tokenizer(tmp_path / "tokens" / fingerprints(data, tmp_path / "cache").tokenizer_folder).path
    )
    ids = np.load(store.folder / "train-00000.npy")
    mask = np.load(store.folder / "train-00000.mask.npy")
    assert (mask.dtype, mask.shape) == (np.bool_, ids.shape)
    table = pl.read_parquet(store.folder / "train-00000.documents.parquet")
    for start, size, prompt in table.select("start", "tokens", "prompt_tokens").iter_rows():
        assert tokenizer.decode(ids[start : start + prompt].tolist()).startswith("Q: What is")
        assert tokenizer.decode(ids[start : start + prompt].tolist()).endswith("A: ")
        assert tokenizer.decode(ids[start + prompt : start + size - 1].tolist()).startswith("It is")
        assert not mask[start : start + prompt].any()
        assert mask[start + prompt : start + size].all()
    shard = store.manifest["shards"]["train"][0]
    assert shard["completion_tokens"] == mask.sum()
    assert store.manifest["fates"]["train"]["prompt_tokens"] == len(mask) - mask.sum() == table["prompt_tokens"].sum()
    assert store.manifest["sources"]["chat.jsonl"]["train"] == store.manifest["fates"]["train"]
    tokens, targets = store.read("train", np.arange(5), 16)
    assert targets is not None
    for i in range(5):
        assert (tokens[i] == ids[i * 16 : i * 16 + 17]).all()
        assert (targets[i] == mask[i * 16 + 1 : i * 16 + 17]).all()


def test_windows_do_not_cross_shards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = chat_spec(tmp_path)
    whole = TokenStore.open(make(data, tmp_path / "one", "chat"))
    monkeypatch.setattr(shards, "SHARD_TOKENS", 1000)
    store = TokenStore.open(make(data, tmp_path / "many", "chat"), verify=True)
    pieces = [np.load(path) for path in sorted(store.folder.glob("train-*[0-9].npy"))]
    masks = [np.load(path) for path in sorted(store.folder.glob("train-*.mask.npy"))]
    assert len(pieces) > 3
    assert max(map(len, pieces)) <= 1000
    assert (np.concatenate(pieces) == np.load(whole.folder / "train-00000.npy")).all()
    assert store.num_tokens("train") == whole.num_tokens("train")
    expected = [(p[i * 32 : i * 32 + 33], m[i * 32 + 1 : i * 32 + 33]) for p, m in zip(pieces, masks, strict=True)
                for i in range((len(p) - 1) // 32)]  # fmt: skip
    assert store.num_windows("train", 32) == len(expected)
    order = np.random.default_rng(0).permutation(len(expected))
    tokens, mask = store.read("train", order, 32)
    assert mask is not None
    for row, targets, number in zip(tokens, mask, order, strict=True):
        assert (row == expected[number][0]).all()
        assert (targets == expected[number][1]).all()


def test_each_target_knows_its_document(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shards, "SHARD_TOKENS", 1000)
    store = TokenStore.open(make(chat_spec(tmp_path), tmp_path, "chat"))
    tables = [pl.read_parquet(path) for path in store.document_tables("train")]
    assert len(tables) > 3
    assert [path.name for path in store.document_tables("train")[:2]] == [
        "train-00000.documents.parquet",
        "train-00001.documents.parquet",
    ]
    expected, before = [], 0
    for table in tables:
        of_token = np.repeat(np.arange(before, before + len(table)), table["tokens"].to_numpy())
        expected += [of_token[i * 32 + 1 : i * 32 + 33] for i in range((len(of_token) - 1) // 32)]
        before += len(table)
    order = np.random.default_rng(0).permutation(store.num_windows("train", 32))
    found = store.target_documents("train", order, 32)
    assert (found.dtype, found.shape) == (np.int64, (len(order), 32))
    assert (found == np.stack(expected)[order]).all()
    assert found.max() == before - 1 or before - 1 not in np.concatenate(expected)
    tokens, _ = store.read("train", order, 32)
    ends = tokens[:, 1:-1] == 0  # the end-of-text token is the last of its document
    assert (np.diff(found, axis=1) == 1)[ends].all()
    assert (np.diff(found, axis=1) == 0)[~ends].all()
    monkeypatch.setattr(store_module, "_document_starts", lambda *_: pytest.fail("read again"))
    assert (store.target_documents("train", order[:3], 32) == found[:3]).all()
    with pytest.raises(IndexError, match="which has"):
        store.target_documents("train", np.array([len(order)]), 32)


def test_a_store_without_a_table_of_documents_is_refused(tmp_path: Path) -> None:
    good = make(chat_spec(tmp_path), tmp_path, "chat")
    manifest = json.loads((good / "manifest.json").read_text())
    for shard in manifest["shards"]["heldout"]:
        shard["files"] = [file for file in shard["files"] if not file["name"].endswith(".parquet")]
    (good / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(UserError, match="names no table of documents; delete the store and run again"):
        TokenStore.open(good).target_documents("heldout", np.arange(1), 16)


def test_the_documented_lines_of_numpy_read_the_same_windows(tmp_path: Path) -> None:
    store = TokenStore.open(make(chat_spec(tmp_path), tmp_path, "chat"))
    page = (Path(__file__).parents[2] / "docs" / "token-store.md").read_text()
    code = page.split("```python\n")[1].split("```")[0]
    assert 'Path("out/tokens/music-0123456789ab")' in code
    scope: dict[str, object] = {}
    exec(code.replace('"out/tokens/music-0123456789ab"', repr(str(store.folder))), scope)
    windows = scope["windows"]
    assert isinstance(windows, list)
    assert len(windows) == store.num_windows("heldout", 128) > 0
    assert (np.stack(windows) == store.read("heldout", np.arange(len(windows)), 128)[0]).all()


def test_damage_is_refused(tmp_path: Path) -> None:
    good = make(chat_spec(tmp_path), tmp_path, "chat")

    def broken(name: str) -> Path:
        shutil.copytree(good, tmp_path / name / good.name)
        return tmp_path / name / good.name

    folder = broken("changed")
    data = bytearray((folder / "train-00000.npy").read_bytes())
    data[-1] ^= 1
    (folder / "train-00000.npy").write_bytes(data)
    TokenStore.open(folder)
    with pytest.raises(UserError, match=r"train-00000.npy: its content is not what the manifest's sha256 says"):
        TokenStore.open(folder, verify=True)
    (folder / "train-00000.npy").write_bytes(data[:-2])
    with pytest.raises(UserError, match=r"train-00000.npy: found \d+ bytes, the manifest says \d+ bytes"):
        TokenStore.open(folder)
    (folder / "train-00000.npy").unlink()
    with pytest.raises(UserError, match="found no file"):
        TokenStore.open(folder)
    with pytest.raises(UserError, match=r"no token store here"):
        TokenStore.open(tmp_path / "nowhere")
    folder = broken("format")
    manifest = json.loads((folder / "manifest.json").read_text())
    (folder / "manifest.json").write_text(json.dumps(manifest | {"format": 99}))
    with pytest.raises(UserError, match="token store of format 99, this version reads 1"):
        TokenStore.open(folder)
    (folder / "manifest.json").write_text(json.dumps(manifest | {"fingerprint": "f" * 64}))
    with pytest.raises(UserError, match="its manifest is that of fingerprint ffffffffffff"):
        TokenStore.open(folder)
    folder = broken("shape")
    manifest["shards"]["train"][0]["tokens"] += 1
    (folder / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(UserError, match="values where the manifest says"):
        TokenStore.open(folder)


def test_a_vocabulary_beyond_sixteen_bits(tmp_path: Path) -> None:
    words = {f"w{i}": i for i in range(70_000)} | {"<eos>": 70_000, "<unk>": 70_001}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<eos>").save_pretrained(tmp_path / "hf")
    rows = [{"text": " ".join(f"w{(i * 997 + j * 31) % 70_000}" for j in range(40))} for i in range(100)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    data = DataSpec.model_validate(
        {
            "corpora": {"rows": {"kind": "local", "path": str(tmp_path / "rows.jsonl")}},
            "tokenizer": {"kind": "hf", "path": str(tmp_path / "hf")},
            "split": {"heldout_fraction": 0.1},
        }
    )
    store = TokenStore.open(make(data, tmp_path, "rows"), verify=True)
    ids = np.concatenate([np.load(store.folder / f"{side}-00000.npy") for side in ("train", "heldout")])
    assert (store.manifest["dtype"], ids.dtype) == ("uint32", np.uint32)
    wanted = [int(word[1:]) for row in rows for word in row["text"].split()] + [70_000] * len(rows)
    assert sorted(ids.tolist()) == sorted(wanted)
