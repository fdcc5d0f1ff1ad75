"""Whatever a file or a `--set` string holds, a command reads it or says in one message what is wrong.

A hundred mutants of each kind; ``FUZZ_MUTANTS=2000`` takes more (docs/security.md has the figures).
"""

import gzip
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fuzzing import COUNT, expect_both, feed
from mutations import mutants
from tiny_engine import TINY
from tiny_models import tiny_model

from indelible.corpora import documents
from indelible.corpora.zst import zstd
from indelible.data.encode import Encoder
from indelible.data.fingerprint import fingerprints
from indelible.data.tokenizer import copy_hf, train_bpe
from indelible.models.given import check_tokenizer, find_checkpoint
from indelible.models.load_given import given_shape, load_given
from indelible.study.architecture import architecture_of
from indelible.study.corpus_spec import BpeTokenizer, DataSpec, HfTokenizer, LocalCorpus, SyntheticCorpus
from indelible.study.load import load_study
from indelible.study.yaml_reader import write_yaml
from indelible.workflow.planning import plan_study

ROWS = [{"text": f"Document {n} on matter {n * 7}, caf\xe9 {'x' * n}.", "src": "ab"[n % 2], "n": n} for n in range(30)]


STUDY = write_yaml(
    {**TINY, "name": "étude", "seeds": [0, 1], "exposure": {"fraction": [0, 0.5], "placement": "early"}}
    | {"arms": {"plain": {}, "lora": {"posttrain": {"method": "lora", "lora": {"r": 4, "targets": ["o_proj"]}}}}}
    | {"finetune": {**TINY["finetune"], "lr": ["0.3x", "1x"], "replay_fraction": 0.1}}
)
KEYS = [
    f"{key}:".encode() for key in ("finetune", "lr", "tokens", "seeds", "arms", "corpora", "exposure", "kind", "init")
]


def test_study_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INDELIBLE_CACHE", str(tmp_path / "cache"))

    def plan(data: bytes) -> None:
        (tmp_path / "study.yaml").write_bytes(data)
        planned = plan_study(load_study(str(tmp_path / "study.yaml")))
        json.dumps(planned.summary, allow_nan=False)
        write_yaml(planned.study.raw).encode()

    expect_both(feed(mutants(STUDY.encode(), COUNT, 1, KEYS), plan))


PATHS = [
    *("finetune.lr", "finetune.tokens", "pretrain.max_tokens", "posttrain.betas", "exposure.fraction", "seeds", "name"),
    *(
        "exposure",
        "arms.lora.posttrain.lora.r",
        "data.split.seed",
        "data.split.heldout_fraction",
        "tokenizer",
        "corpora",
    ),
    *("corpora.ft.num_words", "model.num_heads", "execution.workers", "execution", "init.from", "seq_len", "precision"),
    *(
        "finetune.warmup_steps",
        "evaluation.windows",
        "scale",
        "pipeline.ft",
        "data",
        "",
        ".",
        "a.b.c",
        "arms",
        "corpora",
    ),
]
VALUES = [
    *(
        "1e-4",
        "[0, 1]",
        "[0.3x, 1x]",
        "null",
        "{}",
        "[]",
        "1k",
        "no",
        "true",
        "-1",
        "0",
        "{kind: local, path: x}",
        "1e308",
    ),
    *(
        ".inf",
        "nan",
        "1e308",
        "[[0, 1], [2, 3]]",
        "[a, [b]]",
        "'é'",
        "\udce9",
        "{a: {b: c}}",
        "9" * 30,
        "1:30",
        "0.5x",
        "pico",
    ),
]


def test_set_strings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INDELIBLE_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "study.yaml").write_text(STUDY)
    plain = [f"{path}={value}" for path in PATHS for value in VALUES]
    originals = [plain[number * 37 % len(plain)] for number in range(COUNT)]

    def changed() -> Iterator[list[str]]:
        for number, text in enumerate(originals):
            data = text.encode("utf-8", "surrogateescape")
            one = next(mutants(data, 1, number)) if number % 2 else data
            yield [one.decode("utf-8", "surrogateescape")[:30_000]]

    expect_both(feed(changed(), lambda overrides: plan_study(load_study("study.yaml", overrides))))


def lines(rows: list[dict[str, Any]]) -> bytes:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()


def parquet(rows: list[dict[str, Any]]) -> bytes:
    sink = pa.BufferOutputStream()
    pq.write_table(pa.Table.from_pylist(rows), sink, row_group_size=10)
    return sink.getvalue().to_pybytes()


FILES: dict[str, bytes] = {
    "a.jsonl": lines(ROWS),
    "a.txt": "\n\n".join(row["text"] for row in ROWS).encode(),
    "a.parquet": parquet(ROWS),
    "a.jsonl.gz": gzip.compress(lines(ROWS), mtime=0),
    "a.jsonl.zst": zstd.compress(lines(ROWS[:15])) + zstd.compress(lines(ROWS[15:])),
}


@pytest.mark.parametrize("name", FILES)
def test_text_files(tmp_path: Path, name: str) -> None:
    settings = {} if name == "a.txt" else {"source_column": "src", "filter": {"n": tuple(range(25))}}
    spec = LocalCorpus.model_validate({"path": str(tmp_path / name), **settings})

    def read(data: bytes) -> None:
        (tmp_path / name).write_bytes(data)
        for document in documents(spec, tmp_path / "cache"):
            document.text.encode()
            document.source.encode()

    pack = {"a.jsonl.gz": gzip.compress, "a.jsonl.zst": zstd.compress}.get(name)

    def packed() -> Iterator[bytes]:
        """Of an archive one half is damaged outside and the other inside."""
        outside = COUNT // 2 if pack else COUNT
        yield from mutants(FILES[name], outside, 2, words)
        if pack:
            yield from map(pack, mutants(FILES["a.jsonl"], COUNT - outside, 5, words))

    words = [b'"text"', b'{"text": "a"}\n', b'"n": 3']
    expect_both(feed(packed(), read))


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tokenizer") / "tok"
    train_bpe(BpeTokenizer(vocab_size=512), [row["text"] for row in ROWS], folder)
    (folder / "special_tokens_map.json").write_text('{"eos_token": "<|endoftext|>"}')
    return folder


@pytest.mark.parametrize("name", ["tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"])
def test_tokenizer_folders(tmp_path: Path, tokenizer: Path, name: str) -> None:
    import shutil

    folder = shutil.copytree(tokenizer, tmp_path / "tok")
    texts = list(documents(SyntheticCorpus(language=1, num_documents=3), tmp_path))
    data = DataSpec(corpora={"a": SyntheticCorpus(language=1)}, tokenizer=HfTokenizer(path=str(folder)))

    def copy(content: bytes) -> None:
        (folder / name).write_bytes(content)
        shutil.rmtree(tmp_path / "copy", ignore_errors=True)
        fingerprints(data, tmp_path)
        copy_hf(HfTokenizer(path=str(folder)), tmp_path / "copy")
        for ids in Encoder(tmp_path / "copy" / "tokenizer.json").encode(texts, "a"):
            assert np.concatenate(ids).dtype == np.uint32

    words = [b'"eos_token"', b'"<|endoftext|>"', b'"tokenizer_class"', b'"auto_map"', b'"special": true', b"null"]
    feed(mutants((folder / name).read_bytes(), COUNT, 3, words), copy)


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_checkpoint_folders(tmp_path: Path, tokenizer: Path, name: str) -> None:
    folder = tmp_path / "ckpt"
    tiny_model("llama", vocab_size=512, num_hidden_layers=1, tie_word_embeddings=True).save_pretrained(folder)
    original = (folder / name).read_bytes()
    if name == "config.json":
        original = json.dumps(json.loads(original), indent=1).encode()

    def load(data: bytes) -> None:
        (folder / name).write_bytes(data)
        found = find_checkpoint(str(folder))
        check_tokenizer(found.folder, tokenizer, found.vocab_size)
        assert architecture_of(found.config).num_parameters > 0
        given_shape(found.folder)
        load_given(found.folder)

    words = [
        b'"auto_map": {}',
        b'"model_type"',
        b'"llama"',
        b'"gpt2"',
        b'"quantization_config"',
        b"F32",
        b"I8",
        b'"dtype"',
    ]
    head = original if name == "config.json" else original[:4096]
    rest = b"" if name == "config.json" else original[4096:]
    expect_both(feed((mutant + rest for mutant in mutants(head, COUNT, 4, words)), load))
