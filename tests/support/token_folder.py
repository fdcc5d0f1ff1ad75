"""Token stores, a tokenizer and a plan made directly of arrays: engine tests that need no text."""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from tokenizers import AddedToken, Tokenizer, models, pre_tokenizers

from indelible.study.corpus_spec import has_pairs
from indelible.study.load import resolve_study
from indelible.study.stage_data import Stores
from indelible.workflow.planning import given_checkpoints, planned_with
from indelible.workflow.precision import resolved_precision
from indelible.workflow.preparing import plan_record

DOCUMENT_TOKENS = 70  # of every document of an array; no multiple of a window's length


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


def write_store(
    tokens_dir: Path,
    corpus: str,
    train: np.ndarray,
    heldout: np.ndarray,
    vocab_size: int,
    completions: Callable[[int], np.ndarray] | None = None,
) -> str:
    """Writes a token store as docs/token-store.md says; returns its folder's name.

    Args:
        tokens_dir: where the store's folder is made.
        corpus: its name.
        train: tokens of the training split.
        heldout: tokens of the held-out split.
        vocab_size: decides the width of the numbers on disk.
        completions: gives for so many tokens the mask of those that belong to a completion; None = no prompts.
    """
    dtype = np.uint16 if vocab_size <= 1 << 16 else np.uint32
    digest = hashlib.sha256(train.astype(dtype).tobytes() + heldout.astype(dtype).tobytes()).hexdigest()
    folder = tokens_dir / f"{corpus}-{digest[:12]}"
    folder.mkdir(parents=True, exist_ok=True)
    shards = {}
    for side, tokens in (("train", train), ("heldout", heldout)):
        paths = [folder / f"{side}-00000.npy"]
        np.save(paths[0], tokens.astype(dtype))
        if completions is not None:
            paths.append(folder / f"{side}-00000.mask.npy")
            np.save(paths[1], completions(len(tokens)))
        paths.append(folder / f"{side}-00000.documents.parquet")
        pq.write_table(pa.table({"start": np.arange(0, len(tokens), DOCUMENT_TOKENS)}), paths[-1])
        files = [{"name": path.name, "bytes": path.stat().st_size, "sha256": ""} for path in paths]
        shards[side] = [{"tokens": len(tokens), "bytes": 4 * len(tokens), "files": files}]
    manifest = {"format": 1, "corpus": corpus, "fingerprint": digest, "has_mask": completions is not None, "fates": {}}
    (folder / "manifest.json").write_text(json.dumps({**manifest, "shards": shards}))
    return folder.name


def write_pair_store(
    tokens_dir: Path, corpus: str, vocab_size: int, seed: int, counts: tuple[int, int] = (48, 24), too_long: int = 2
) -> str:
    """Writes a store of pairs; returns its folder's name. Better answers can be learned, worse ones are random.

    Args:
        tokens_dir: where the store's folder is made.
        corpus: its name.
        vocab_size: of the tokenizer; token 0 ends a text.
        seed: of everything.
        counts: pairs of the training and of the held-out split that fit into 32 tokens; every third shares the prompt
            of the pair before it.
        too_long: further pairs, among the first ones, that do not fit.
    """
    source, dtype = np.random.Generator(np.random.PCG64(seed)), np.uint16
    folder = tokens_dir / f"{corpus}-{hashlib.sha256(f'{corpus} {seed} {counts} {too_long}'.encode()).hexdigest()[:12]}"
    folder.mkdir(parents=True, exist_ok=True)
    shards = {}
    for side, count in zip(("train", "heldout"), counts, strict=True):
        rows, tokens, prompt = [], [], np.zeros(0, np.int64)
        for number in range(count + too_long):
            if number % 3 != 2:
                prompt = source.integers(1, 64, source.integers(3, 12))
            better = 1 + markov_tokens(int(source.integers(2, 12)), 63, seed)
            worse = source.integers(1, vocab_size, 40 if number in range(1, 1 + too_long) else source.integers(2, 12))
            parts = [prompt, better, [0], worse, [0]]
            size = sum(map(len, parts))
            rows.append({"start": sum(map(len, tokens)), "tokens": size, "prompt_tokens": len(prompt),
                         "chosen_tokens": len(better) + 1})  # fmt: skip
            tokens.append(np.concatenate(parts))
        stem = folder / f"{side}-00000"
        joined = np.concatenate(tokens).astype(dtype)
        np.save(stem.with_suffix(".npy"), joined)
        pq.write_table(pa.Table.from_pylist(rows), stem.with_suffix(".documents.parquet"))
        files = [{"name": p.name, "bytes": p.stat().st_size, "sha256": ""} for p in sorted(folder.glob(f"{side}-*"))]
        files.sort(key=lambda file: not file["name"].endswith(".npy"))
        shards[side] = [{"tokens": len(joined), "bytes": 4 * len(joined), "files": files}]
    manifest = {"format": 1, "corpus": corpus, "fingerprint": folder.name.rpartition("-")[2] * 6, "has_mask": False,
                "has_pairs": True, "fates": {}}  # fmt: skip
    (folder / "manifest.json").write_text(json.dumps({**manifest, "shards": shards}))
    return folder.name


def write_tokenizer(
    folder: Path, vocab_size: int, prefix: str = "w", *, added: tuple[str, ...] = (), chat_template: str = ""
) -> Path:
    """A tokenizer of ``vocab_size`` whole words ``<prefix>0``, ``<prefix>1``, ...; returns its folder.

    ``added`` tokens come behind the words, as ids of their own.
    """
    folder.mkdir(parents=True, exist_ok=True)
    vocabulary = {f"{prefix}{number}": number for number in range(vocab_size)}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token=f"{prefix}0"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.add_special_tokens([AddedToken(token, special=True) for token in added])
    tokenizer.save(str(folder / "tokenizer.json"))
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": f"{prefix}0"}
    if chat_template:
        (folder / "chat_template.jinja").write_text(chat_template)
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    size = vocab_size + len(added)
    (folder / "indelible.json").write_text(json.dumps({"vocab_size": size, "eos_id": 0}))
    return folder


def plan_on_arrays(
    out: Path,
    raw: dict[str, Any],
    vocab_size: int,
    tokens: int = 4096,
    completions: Callable[[int], np.ndarray] | None = None,
    heldout_tokens: int = 1024,
) -> Path:
    """Writes ``out``/tokens and ``out``/plan.json for a raw study; returns ``out``.

    Args:
        out: folder of the study run.
        raw: the study file. Its corpora pre, post and ft always have the same tokens, others come after them.
        vocab_size: words of the tokenizer.
        tokens: of each training split.
        completions: see `write_store`.
        heldout_tokens: of each held-out split.
    """
    study = resolve_study(raw)
    tokenizer = write_tokenizer(out / "tokens" / "tokenizer-arrays", vocab_size).name
    used = (*study.data.corpora, *study.evaluation_corpora)
    specs = {name: spec for arm in study.arms for name, spec in arm.corpora.items()}
    names = {}
    for seed, corpus in enumerate(dict.fromkeys(("pre", "post", "ft", *used))):
        if corpus in used and has_pairs(specs[corpus]):
            names[corpus] = write_pair_store(out / "tokens", corpus, vocab_size, seed)
        elif corpus in used:
            train, heldout = np.split(markov_tokens(tokens + heldout_tokens, vocab_size, seed), [tokens])
            names[corpus] = write_store(out / "tokens", corpus, train, heldout, vocab_size, completions)
    planned = planned_with(
        study, Stores(names, tokenizer), given_checkpoints(study), resolved_precision(study.execution)
    )
    plan_record(planned).write(out / "plan.json")
    return out
