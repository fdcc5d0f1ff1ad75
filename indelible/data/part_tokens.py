"""The tokens of one part: of texts, of conversations, and of pairs of answers; what the assistant says beside them."""

from pathlib import Path

import numpy as np

from indelible.corpora.document import Document
from indelible.data.chat import COMPLETION
from indelible.data.encode import Encoder
from indelible.data.tokenizer import TokenizerInfo
from indelible.files import atomic_write, write_json

Encoded = tuple[np.ndarray, list[int], list[int], list[int]]
"""The tokens of documents; the size of each, of its prompt, and of the better answer of a pair."""

_loaded: dict[Path, Encoder] = {}  # of this process: loading takes longer than a small chunk


def _encoder(path: Path) -> Encoder:
    if path not in _loaded:
        _loaded[path] = Encoder(path)
    return _loaded[path]


def encode_part(documents: list[Document], tokenizer: TokenizerInfo, corpus: str, path: Path) -> Encoded:
    """Tokenises the documents of one part.

    Args:
        documents: all of one kind, in the order that is wanted.
        tokenizer: that they are tokenised with.
        corpus: its name, for messages.
        path: of the part, without ending: what the assistant says is written beside it.

    Raises:
        UserError: some text has no token, or a chat template does not fit.
    """
    kind = _encode_texts
    if documents[0].messages:
        kind = _encode_chat_pairs if documents[0].worse else _encode_chats
    return kind(documents, tokenizer, corpus, path)


def _encode_texts(documents: list[Document], tokenizer: TokenizerInfo, corpus: str, path: Path) -> Encoded:
    """Each document is followed by an end of text, and so is each answer of a pair."""
    pieces: list[np.ndarray] = []
    sizes, prompts, chosen = [], [], []
    end_of_text = np.array([tokenizer.eos_id], np.uint32)
    encoded = _encoder(tokenizer.path).encode(documents, corpus)
    for document, ids in zip(documents, encoded, strict=True):
        ended = [*ids[:-1], end_of_text, ids[-1], end_of_text] if document.rejected else [*ids, end_of_text]
        pieces += ended
        sizes.append(sum(map(len, ended)))
        prompts.append(len(ids[0]) if document.prompt_chars else 0)
        chosen.append(len(ids[-2]) + 1 if document.rejected else 0)
    return np.concatenate(pieces), sizes, prompts, chosen


def _encode_chats(documents: list[Document], tokenizer: TokenizerInfo, corpus: str, path: Path) -> Encoded:
    """The same of conversations; what the assistant says in them is written beside the part."""
    chats = list(_encoder(tokenizer.path).encode_chats(documents, corpus))
    _write_parts(path, [chat.parts for chat in chats], [chat.why_not for chat in chats if chat.why_not])
    prompts = [int(np.count_nonzero(chat.parts & COMPLETION == 0)) for chat in chats]
    return np.concatenate([chat.ids for chat in chats]), [len(chat.ids) for chat in chats], prompts, [0] * len(chats)


def _encode_chat_pairs(documents: list[Document], tokenizer: TokenizerInfo, corpus: str, path: Path) -> Encoded:
    """The same of pairs of conversations: the prompt once, then what follows it in each. Nothing is added to them."""
    pairs = list(_encoder(tokenizer.path).encode_chat_pairs(documents, corpus))
    _write_parts(path, [pair.parts for pair in pairs], [])
    tokens = np.concatenate([ids for pair in pairs for ids in (pair.prompt, pair.better, pair.worse)])
    prompts, chosen = [len(pair.prompt) for pair in pairs], [len(pair.better) for pair in pairs]
    return tokens, [len(pair.parts) for pair in pairs], prompts, chosen


def _write_parts(path: Path, parts: list[np.ndarray], reasons: list[str]) -> None:
    """What the assistant says, token by token, and why it is not known of some conversations."""
    write_array(path.with_suffix(".mask.npy"), np.concatenate(parts))
    write_json(path.with_suffix(".chat.json"), {"unmarked": len(reasons), "why_not": reasons[0] if reasons else ""})


def write_array(path: Path, array: np.ndarray) -> None:
    """Writes an array, whole or not at all."""
    with atomic_write(path) as temporary, open(temporary, "wb") as handle:
        np.save(handle, array, allow_pickle=False)
