"""Token stores, a tokenizer and a plan made directly of arrays: engine tests that need no text."""

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import Tokenizer, models

from indelible.study.graph import Stores, build_graph, plan_chains, plan_runs
from indelible.study.load import resolve_study
from indelible.study.stages import StageInit


def markov_tokens(count: int, vocab_size: int, seed: int) -> np.ndarray:
    """Tokens that can be learned: 64 of the vocabulary, and on each one only four others follow."""
    source = np.random.Generator(np.random.PCG64(seed))
    followers = source.integers(0, 64, (64, 4)) % vocab_size
    choices = source.integers(0, 4, count)
    tokens = np.empty(count, np.int64)
    token = 0
    for place, choice in enumerate(choices):
        tokens[place] = token = followers[token, choice]
    return tokens


def write_store(tokens_dir: Path, corpus: str, train: np.ndarray, heldout: np.ndarray, vocab_size: int) -> str:
    """Writes a token store as docs/token-store.md says; returns its folder's name."""
    dtype = np.uint16 if vocab_size <= 1 << 16 else np.uint32
    digest = hashlib.sha256(train.astype(dtype).tobytes() + heldout.astype(dtype).tobytes()).hexdigest()
    folder = tokens_dir / f"{corpus}-{digest[:12]}"
    folder.mkdir(parents=True, exist_ok=True)
    shards = {}
    for side, tokens in (("train", train), ("heldout", heldout)):
        path = folder / f"{side}-00000.npy"
        np.save(path, tokens.astype(dtype))
        files = [{"name": path.name, "bytes": path.stat().st_size, "sha256": ""}]
        shards[side] = [{"tokens": len(tokens), "bytes": 4 * len(tokens), "files": files}]
    manifest = {"format": 1, "corpus": corpus, "fingerprint": digest, "has_mask": False, "shards": shards}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return folder.name


def write_tokenizer(folder: Path, vocab_size: int, prefix: str = "w") -> Path:
    """A tokenizer of ``vocab_size`` whole words ``<prefix>0``, ``<prefix>1``, ...; returns its folder."""
    folder.mkdir(parents=True, exist_ok=True)
    vocabulary = {f"{prefix}{number}": number for number in range(vocab_size)}
    Tokenizer(models.WordLevel(vocabulary, unk_token=f"{prefix}0")).save(str(folder / "tokenizer.json"))
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": f"{prefix}0"}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    (folder / "indelible.json").write_text(json.dumps({"vocab_size": vocab_size, "eos_id": 0}))
    return folder


def plan_on_arrays(
    out: Path, raw: dict[str, Any], vocab_size: int, tokens: int = 4096, init: StageInit | None = None
) -> Path:
    """Writes ``out``/tokens and ``out``/plan.json for a raw study of the corpora pre, post and ft; returns ``out``."""
    tokenizer = write_tokenizer(out / "tokens" / "tokenizer-arrays", vocab_size).name
    names = {}
    for seed, corpus in enumerate(("pre", "post", "ft")):
        train, heldout = np.split(markov_tokens(tokens + 1024, vocab_size, seed), [tokens])
        names[corpus] = write_store(out / "tokens", corpus, train, heldout, vocab_size)
    study = resolve_study(raw)
    graph = build_graph(study, Stores(names, tokenizer), init)
    costs = {name: {"tokens": 0, "flops": 0.0} for name in graph.runs}
    plan = {
        "format": 1,
        "stores": names,
        "tokenizer": tokenizer,
        "execution": study.execution.model_dump(mode="json"),
        "stage_runs": plan_runs(graph, costs),
        "chains": plan_chains(graph),
    }
    (out / "plan.json").write_text(json.dumps(plan))
    return out
