"""A document: the unit that is split, deduplicated and counted."""

import hashlib
from dataclasses import dataclass
from typing import NamedTuple

from indelible.corpora.messages import Message


@dataclass(frozen=True, slots=True)
class Document:
    """One text.

    ``text`` is the whole document; its first ``prompt_chars`` characters are a prompt (0 = no prompt).
    ``source`` names where it came from and ``licence`` under which terms. Documents of one ``group`` (questions on one
    passage) fall on the same side of the held-out split; empty = the document stands alone.
    """

    text: str
    prompt_chars: int
    source: str
    licence: str
    group: str = ""
    marks: tuple[tuple[int, int], ...] = ()  # of the prompt, [start, end) characters that the template wrote
    messages: tuple[Message, ...] = ()  # of a conversation: what the tokenizer's chat template writes; `text` stands
    # for it where texts are compared
    rejected: str = ""  # the worse answer to the prompt; ``text`` ends with the better one. Empty = no pair
    worse: tuple[Message, ...] = ()  # of a pair of conversations: the one with the worse answer, prompt included
    prompt_messages: int = 0  # how many messages at their start both share

    @property
    def content(self) -> str:
        """All that makes it what it is: its text, and of a pair the worse answer too."""
        return f"{self.text}\x1e{self.rejected}" if self.rejected else self.text


class Parsed(NamedTuple):
    """What a parser makes of one source: a document that does not know its source yet."""

    text: str
    prompt_chars: int = 0
    group: str = ""
    rejected: str = ""


def content_hash(text: str) -> bytes:
    """Sixteen bytes that identify a text: equal texts, and only those, share it (blank space at the ends aside)."""
    return hashlib.blake2b(text.strip().encode("utf-8", "surrogatepass"), digest_size=16).digest()
