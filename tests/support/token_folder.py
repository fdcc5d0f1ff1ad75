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
    names = {}
    for seed, corpus in enumerate(dict.fromkeys(("pre", "post", "ft", *used))):
        if corpus in used:
            train, heldout = np.split(markov_tokens(tokens + heldout_tokens, vocab_size, seed), [tokens])
            names[corpus] = write_store(out / "tokens", corpus, train, heldout, vocab_size, completions)
    planned = planned_with(
        study, Stores(names, tokenizer), given_checkpoints(study), resolved_precision(study.execution)
    )
    plan_record(planned).write(out / "plan.json")
    return out
