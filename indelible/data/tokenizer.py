"""The tokenizer of a study: a byte-level BPE trained on it, or any Hugging Face tokenizer; one folder either way."""

import re
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from pydantic import BaseModel, Field, TypeAdapter
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from indelible.errors import UserError, refusing
from indelible.files import file_sha256, read_as, read_json, write_json
from indelible.models.given import model_folder
from indelible.strict import LARGEST, Positive
from indelible.study.corpus_spec import BpeTokenizer, HfTokenizer

END_OF_TEXT = "<|endoftext|>"
FILES = (
    "tokenizer",
    "special_tokens_map",
    "added_tokens",
    "vocab",
    "merges",
    "chat_template",
    "spiece",
    "sentencepiece",
)
_LONGEST_RUN = 5_000  # characters of one kind that the trainer sees in a row
_RUN = re.compile(r"[^\W\d_]+|\d+|\s+|[^\w\s]+|_+")
_BLANKS = re.compile(rf"\s{{{_LONGEST_RUN}}}")


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
    tokenizer.train_from_iterator((piece for text in texts for piece in _with_short_runs(text)), trainer)
    return tokenizer


def _with_short_runs(text: str) -> Iterator[str]:
    """A text in pieces of which none has a longer run of letters, digits, signs or blanks than `_LONGEST_RUN`.

    The trainer takes the square of a run's length; a DNA sequence or an endless line of dashes would take hours.
    """
    if len(text) < _LONGEST_RUN or not (_BLANKS.search(text) or max(map(len, text.split()), default=0) >= _LONGEST_RUN):
        yield text
        return
    first = 0
    for run in _RUN.finditer(text):
        while run.end() - first > _LONGEST_RUN and run.end() - run.start() > _LONGEST_RUN:
            cut = max(first, run.start()) + _LONGEST_RUN
            if cut >= run.end():
                break
            yield text[first:cut]
            first = cut
    yield text[first:]


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

    place = model_folder(spec.path) or spec.path  # a name of the model catalogue, a folder, or a hub id

    def message(reason: str) -> str:
        return (
            f"tokenizer {spec.path!r} could not be loaded ({reason}); give the path of a folder with tokenizer.json, "
            "or a name on the hub and a network."
        )

    with refusing(message):
        loaded = AutoTokenizer.from_pretrained(place, revision=spec.revision or "main", trust_remote_code=False)
    if not getattr(loaded, "is_fast", False):
        raise UserError(
            f"tokenizer {spec.path!r} has no tokenizer.json (fast form); convert it with transformers first."
        )
    if loaded.eos_token_id is None:
        raise UserError(
            f"tokenizer {spec.path!r} has no end-of-text token (eos_token); documents could not be told apart."
        )
    folder.mkdir(parents=True)
    with refusing(lambda reason: f"tokenizer {spec.path!r} cannot be written and read again ({reason}); repair it."):
        loaded.save_pretrained(folder)
        _write_info(folder, Tokenizer.from_file(str(folder / "tokenizer.json")), loaded.eos_token_id)


def folder_files(folder: Path) -> dict[str, str]:
    """sha256 of every file of a folder that a tokenizer is read from, by name: whichever changes, tokens may change."""
    names = [path for path in sorted(folder.iterdir()) if path.is_file() and path.name.startswith(FILES)]
    found = {path.name: file_sha256(path) for path in names}
    with suppress(UserError, AttributeError):  # what transformers takes from the model's config to choose the class
        config = read_json(folder / "config.json")
        found["config.json"] = repr([config.get(key) for key in ("model_type", "tokenizer_class")])
    return found


def _write_info(folder: Path, tokenizer: Tokenizer, eos_id: int) -> None:
    vocab_size = max(tokenizer.get_vocab(with_added_tokens=True).values()) + 1
    sha256 = file_sha256(folder / "tokenizer.json")
    write_json(folder / "indelible.json", {"vocab_size": vocab_size, "eos_id": eos_id, "tokenizer_sha256": sha256})


class Made(BaseModel):
    """indelible.json of a tokenizer's folder: what is known of it without loading it."""

    vocab_size: Positive
    eos_id: Annotated[int, Field(ge=0, le=LARGEST)]
    tokenizer_sha256: str = ""


_MADE = TypeAdapter(Made)


def read_made(folder: Path) -> Made:
    """What was written beside a tokenizer when it was made.

    Raises:
        UserError: there is nothing, or it was edited.
    """
    return read_as(folder / "indelible.json", _MADE)


def open_tokenizer(folder: Path) -> TokenizerInfo:
    """Reads what `train_bpe` or `copy_hf` wrote.

    Raises:
        UserError: the folder's tokenizer.json is not the one that was written with it.
    """
    info = read_made(folder)
    if file_sha256(folder / "tokenizer.json") != info.tokenizer_sha256:
        raise UserError(f"{folder}: tokenizer.json changed since it was made; delete the folder and run again.")
    return TokenizerInfo(folder / "tokenizer.json", info.vocab_size, info.eos_id)


def load_fast(path: Path) -> Tokenizer:
    """The tokenizer itself; text that looks like a special token is encoded as the text that it is."""
    tokenizer = Tokenizer.from_file(str(path))
    tokenizer.encode_special_tokens = True
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer
