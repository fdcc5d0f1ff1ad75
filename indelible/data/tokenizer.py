"""The tokenizer of a study: a byte-level BPE trained on it, or any Hugging Face tokenizer; one folder either way."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from indelible.errors import UserError
from indelible.files import file_sha256, read_json, write_json
from indelible.study.corpus_spec import BpeTokenizer, HfTokenizer

END_OF_TEXT = "<|endoftext|>"


@dataclass(frozen=True)
class TokenizerInfo:
    """What the rest of the program needs to know of a tokenizer."""

    path: Path  # its tokenizer.json
    vocab_size: int  # ids are below this
    eos_id: int

    @property
    def dtype(self) -> np.dtype[Any]:
        """uint16 if every id fits, else uint32."""
        return np.dtype(np.uint16 if self.vocab_size <= 1 << 16 else np.uint32)


def bpe(spec: BpeTokenizer, texts: Iterable[str]) -> Tokenizer:
    """A byte-level BPE trained on texts; the same texts give the same tokenizer. Id 0 is the end of text."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=spec.vocab_size,
        special_tokens=[END_OF_TEXT],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


def train_bpe(spec: BpeTokenizer, texts: Iterable[str], folder: Path) -> None:
    """Trains a byte-level BPE and writes it as a Hugging Face folder."""
    tokenizer = bpe(spec, texts)
    folder.mkdir(parents=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": END_OF_TEXT,
        "eos_token": END_OF_TEXT,
        "clean_up_tokenization_spaces": False,
        "model_max_length": 1_000_000_000,
    }
    write_json(folder / "tokenizer_config.json", config)
    _write_info(folder, tokenizer, 0)


def copy_hf(spec: HfTokenizer, folder: Path) -> None:
    """Loads a Hugging Face tokenizer and writes it to ``folder``.

    Raises:
        UserError: it cannot be loaded, has no fast form, or no end-of-text token.
    """
    from transformers import AutoTokenizer  # takes seconds to import and is needed only here

    try:
        loaded = AutoTokenizer.from_pretrained(spec.path, revision=spec.revision or "main")
    except (OSError, ValueError, KeyError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise UserError(
            f"tokenizer {spec.path!r} could not be loaded ({reason}); give the path of a folder with tokenizer.json, "
            "or a name on the hub and a network."
        ) from None
    if not getattr(loaded, "is_fast", False):
        raise UserError(
            f"tokenizer {spec.path!r} has no tokenizer.json (fast form); convert it with transformers first."
        )
    if loaded.eos_token_id is None:
        raise UserError(
            f"tokenizer {spec.path!r} has no end-of-text token (eos_token); documents could not be told apart."
        )
    folder.mkdir(parents=True)
    loaded.save_pretrained(folder)
    _write_info(folder, loaded.backend_tokenizer, loaded.eos_token_id)


def _write_info(folder: Path, tokenizer: Tokenizer, eos_id: int) -> None:
    vocab_size = max(tokenizer.get_vocab(with_added_tokens=True).values()) + 1
    sha256 = file_sha256(folder / "tokenizer.json")
    write_json(folder / "indelible.json", {"vocab_size": vocab_size, "eos_id": eos_id, "tokenizer_sha256": sha256})


def open_tokenizer(folder: Path) -> TokenizerInfo:
    """Reads what `train_bpe` or `copy_hf` wrote.

    Raises:
        UserError: the folder's tokenizer.json is not the one that was written with it.
    """
    info = read_json(folder / "indelible.json")
    if file_sha256(folder / "tokenizer.json") != info["tokenizer_sha256"]:
        raise UserError(f"{folder}: tokenizer.json changed since it was made; delete the folder and run again.")
    return TokenizerInfo(folder / "tokenizer.json", info["vocab_size"], info["eos_id"])


def load_fast(path: Path) -> Tokenizer:
    """The tokenizer itself; text that looks like a special token is encoded as the text that it is."""
    tokenizer = Tokenizer.from_file(str(path))
    tokenizer.encode_special_tokens = True
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer
