"""Documents to token ids: a prompt and its completion apart, the marks of a template as the tokenizer's own tokens.

Conversations are written by the tokenizer's chat template; `chat` knows how.
"""

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

import numpy as np
from tokenizers import Tokenizer

from indelible.corpora.document import Document
from indelible.data.chat import ChatTokenizer, EncodedChat, EncodedPair
from indelible.data.lossless import LossCheck
from indelible.data.tokenizer import load_fast
from indelible.errors import UserError

_Written = TypeVar("_Written")

BATCH_BYTES = 400_000  # characters tokenised at once: the tokenizer's own results take a hundred bytes a token


class Encoder:
    """A loaded tokenizer.

    What looks like a special token is text where it stands in a document, and the token where the template wrote it:
    a chat format's marks are what the model was trained on, and a user's text cannot forge them.
    """

    def __init__(self, path: Path) -> None:
        self._text = load_fast(path)  # knows no special tokens
        self._marked = load_fast(path)
        self._marked.encode_special_tokens = False
        self._loss = LossCheck(self._text, str(path.parent.name))
        special = {t.content: number for number, t in self._text.get_added_tokens_decoder().items() if t.special}
        self._special = special
        longest_first = sorted(filter(None, special), key=len, reverse=True)
        self._pattern = re.compile("|".join(map(re.escape, longest_first))) if longest_first else None
        self._folder = path.parent
        self._chat: ChatTokenizer | None = None  # loaded when the first conversation comes

    def encode_chats(self, documents: list[Document], corpus: str) -> Iterator[EncodedChat]:
        """The ids of each conversation, and what of them the assistant says.

        Args:
            documents: with messages, in the order that is wanted.
            corpus: its name, for messages.

        Raises:
            UserError: there is no chat template, it refuses a conversation, or some text has no token.
        """
        chat = self._chat_tokenizer()
        return self._written(documents, corpus, lambda document: chat.encode(document.messages))

    def encode_chat_pairs(self, documents: list[Document], corpus: str) -> Iterator[EncodedPair]:
        """The same of pairs of conversations that begin with one prompt."""
        chat = self._chat_tokenizer()

        def write(document: Document) -> EncodedPair:
            return chat.encode_pair(document.messages, document.worse, document.prompt_messages)

        return self._written(documents, corpus, write)

    def _chat_tokenizer(self) -> ChatTokenizer:
        if self._chat is None:
            self._chat = ChatTokenizer(self._folder)
        return self._chat

    def _written(
        self, documents: list[Document], corpus: str, write: Callable[[Document], _Written]
    ) -> Iterator[_Written]:
        for document in documents:
            self._loss.check([message.content for message in (*document.messages, *document.worse)], corpus)
            try:
                yield write(document)
            except UserError as error:
                raise UserError(f"corpus {corpus}, {document.source}: {error}") from None

    def encode(self, documents: list[Document], corpus: str) -> Iterator[list[np.ndarray]]:
        """The ids of each document: of its prompt and its completion apart, so that no token straddles the border.

        Args:
            documents: in the order that is wanted.
            corpus: its name, for messages.

        Yields:
            For each document uint32 arrays: prompt and completion, of a pair prompt and both answers, or all of a
            document without prompt.

        Raises:
            UserError: the tokenizer has no token for some of the text.
        """
        first, size = 0, 0
        for number, document in enumerate(documents, 1):
            size += len(document.text)
            if size < BATCH_BYTES and number < len(documents):
                continue
            yield from self._batch(documents[first:number], corpus)
            first, size = number, 0

    def _batch(self, batch: list[Document], corpus: str) -> Iterator[list[np.ndarray]]:
        prompts = [self._pieces(document) for document in batch]
        segments = [piece for pieces in prompts for piece in pieces if isinstance(piece, str)]
        completions = [document.text[document.prompt_chars :] for document in batch]
        worse = [document.rejected for document in batch if document.rejected]
        self._loss.check([*segments, *completions, *worse], corpus)
        encoded = iter(_ids(self._text, [*segments, *completions, *worse]))
        heads = [[next(encoded) if isinstance(piece, str) else piece for piece in pieces] for pieces in prompts]
        answers = [next(encoded) for _ in batch]
        for document, pieces, completion in zip(batch, heads, answers, strict=True):
            rejected = [next(encoded)] if document.rejected else []
            head = [np.concatenate(pieces)] if document.prompt_chars else []
            yield [*head, completion, *rejected]

    def _pieces(self, document: Document) -> list[str | np.ndarray]:
        """A prompt as text to be encoded and ids of the template's special tokens."""
        head = document.text[: document.prompt_chars]
        if not head:
            return []
        if self._pattern is None or not document.marks:
            return [head]
        hits = list(self._pattern.finditer(head))
        ours = [hit for hit in hits if any(a <= hit.start() and hit.end() <= b for a, b in document.marks)]
        if not ours:
            return [head]
        if len(ours) == len(hits):  # the text holds none: the tokenizer may cut it up as it always does
            return [*_ids(self._marked, [head])]
        pieces: list[str | np.ndarray] = []
        at = 0
        for hit in ours:
            pieces += [head[at : hit.start()], np.array([self._special[hit.group()]], np.uint32)]
            at = hit.end()
        return [piece for piece in (*pieces, head[at:]) if len(piece)]


def _ids(tokenizer: Tokenizer, texts: list[str]) -> list[np.ndarray]:
    encoded = tokenizer.encode_batch_fast(texts, add_special_tokens=False)
    return [np.array(one.ids, np.uint32) for one in encoded]
