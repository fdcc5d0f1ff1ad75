"""Conversations to token ids, by the tokenizer's own chat template, and which of the tokens are trained on."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
from tokenizers import Encoding

from indelible.corpora.messages import Message
from indelible.data.chat_template import ChatTemplate, Rendered, open_template
from indelible.data.tokenizer import load_fast
from indelible.errors import UserError

ASSISTANT, COMPLETION = 1, 2  # bits of a token: of an assistant's turn, of the last one
_STANDINS = 0xF0000  # private characters: what looks like special token k in a text stands as the k-th of them


@dataclass(frozen=True)
class EncodedChat:
    """The tokens of one conversation."""

    ids: npt.NDArray[np.uint32]  # (N,)
    parts: npt.NDArray[np.uint8]  # (N,) bits `ASSISTANT` and `COMPLETION`; all 0 where `why_not` says so
    why_not: str = ""  # why it is not known what the assistant said


@dataclass(frozen=True)
class EncodedPair:
    """The tokens of two conversations that begin alike."""

    prompt: npt.NDArray[np.uint32]  # (P,) what both have in common, the mark that the assistant is to speak included
    better: npt.NDArray[np.uint32]  # (N,) the rest of the one with the better answer
    worse: npt.NDArray[np.uint32]  # (M,)
    parts: npt.NDArray[np.uint8]  # (P + N + M,) bits `ASSISTANT` and `COMPLETION` of the answers; 0 in the prompt


class ChatTokenizer:
    """A tokenizer with its chat template.

    The template's special tokens are the tokenizer's own; what only looks like one inside a message is text, so that
    no message can end its own turn.
    """

    def __init__(self, folder: Path) -> None:
        """Loads a tokenizer folder.

        Raises:
            UserError: it has no chat template.
        """
        self._text = load_fast(folder / "tokenizer.json")  # knows no special tokens
        decoder = self._text.get_added_tokens_decoder()
        special = {token.content for token in decoder.values() if token.special and token.content}
        longest_first = sorted(special, key=lambda mark: (-len(mark), mark))
        template = open_template(folder, longest_first)
        if template is None:
            raise UserError(
                f"tokenizer {folder.name} has no chat template, so messages cannot be written as its model knows them; "
                "take the tokenizer of a chat model (tokenizer: {kind: hf, path: ...}), or put a chat_template.jinja "
                "into a copy of its folder."
            )
        self._template: ChatTemplate = template
        self._marked = load_fast(folder / "tokenizer.json")
        self._marked.encode_special_tokens = False
        self._pattern = re.compile("|".join(map(re.escape, longest_first)) or r"(?!)")
        self._standin = {mark: chr(_STANDINS + k) for k, mark in enumerate(longest_first)}

    def encode(self, messages: Sequence[Message]) -> EncodedChat:
        """The tokens of a conversation; no end-of-text token is added to what the template writes.

        Raises:
            UserError: the template refuses the conversation.
        """
        return self._encode(self._hidden(messages), messages)[0]

    def encode_pair(self, better: Sequence[Message], worse: Sequence[Message], shared: int) -> EncodedPair:
        """The tokens of two conversations that begin with one prompt: of each those of the whole conversation.

        Args:
            better: with the better answer.
            worse: with the worse one.
            shared: messages at their start that are the prompt.

        Raises:
            UserError: the template refuses one, does not tell what the assistant says, or writes the prompt otherwise
                once an answer follows.
        """
        before = self._template.text(self._hidden(better[:shared]), is_prompt=True)
        sides = []
        for messages in (better, worse):
            encoded, text, ends = self._encode(self._hidden(messages), messages)
            if not encoded.why_not and not text.startswith(before):
                raise UserError(
                    "the chat template writes the prompt otherwise once an answer follows, so that two answers have "
                    "no prompt in common; take another template."
                )
            if encoded.why_not:
                raise UserError(f"{encoded.why_not} Take a template with {{% generation %}} marks.")
            is_before = ends <= len(before)
            parts = np.where(is_before, np.uint8(0), encoded.parts)
            if not parts.any():
                raise UserError("the chat template gives an answer no token of its own; take another template.")
            sides.append((encoded.ids, parts, int(np.argmin(is_before))))
        (ids, parts, size), (other_ids, other_parts, other_size) = sides
        most = min(size, other_size)  # a token across the border belongs to its answer
        differ = np.flatnonzero(ids[:most] != other_ids[:most])
        prompt = int(differ[0]) if len(differ) else most
        return EncodedPair(
            ids[:prompt], ids[prompt:], other_ids[prompt:], np.concatenate([parts, other_parts[prompt:]])
        )

    def _hidden(self, messages: Sequence[Message]) -> list[Message]:
        return [Message(role, self._pattern.sub(self._hide, content)) for role, content in messages]

    def _encode(
        self, hidden: list[Message], messages: Sequence[Message]
    ) -> tuple[EncodedChat, str, npt.NDArray[np.int64]]:
        """The tokens, the text that they stand for, as long as the true one, and where in it each token ends."""
        is_forged = hidden != list(messages)
        rendered = self._template.render(hidden)
        ids, starts, ends = self._encode_text(rendered.text) if not is_forged else self._encode_pieces(rendered.text)
        parts = np.zeros(len(ids), np.uint8)
        for number, (start, end) in enumerate(rendered.spans, 1):
            # a token of blanks may have no width: it stands where it ends
            inside = np.where(starts < ends, (ends > start) & (starts < end), (ends > start) & (ends <= end))
            parts[inside] |= ASSISTANT | (COMPLETION if number == len(rendered.spans) else 0)
        return EncodedChat(ids, parts, rendered.why_not), rendered.text, ends

    def render(self, messages: Sequence[Message]) -> Rendered:
        """The text of a conversation; see `ChatTemplate.render`."""
        return self._template.render(messages)

    def _hide(self, hit: re.Match[str]) -> str:
        return self._standin[hit.group()] * len(hit.group())  # as long, so that places stay

    def _shown(self, text: str) -> str:
        for mark, standin in self._standin.items():
            text = text.replace(standin * len(mark), mark)
        return text

    def _encode_text(self, text: str) -> tuple[npt.NDArray[np.uint32], npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        return _arrays(self._marked.encode(text, add_special_tokens=False), 0)

    def _encode_pieces(self, text: str) -> tuple[npt.NDArray[np.uint32], npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """Between the template's special tokens all is text, whatever it looks like."""
        pieces, at = [], 0
        for hit in [*self._pattern.finditer(text), None]:
            between = text[at : hit.start() if hit else len(text)]
            if between:
                pieces.append(_arrays(self._text.encode(self._shown(between), add_special_tokens=False), at))
            if hit:
                pieces.append(_arrays(self._marked.encode(hit.group(), add_special_tokens=False), hit.start()))
                at = hit.end()
        ids, starts, ends = zip(*pieces, strict=True)
        return np.concatenate(ids), np.concatenate(starts), np.concatenate(ends)


def _arrays(encoding: Encoding, at: int) -> tuple[npt.NDArray[np.uint32], npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Ids, and where in the text each token starts and ends."""
    places = np.array(encoding.offsets, np.int64).reshape(-1, 2) + at
    return np.array(encoding.ids, np.uint32), places[:, 0], places[:, 1]


def encode_chat(
    tokenizer: ChatTokenizer,
    messages: Sequence[Message],
    loss_on: Literal["all", "completion", "assistant"],
) -> tuple[npt.NDArray[np.uint32], npt.NDArray[np.bool_]]:
    """The tokens of a conversation, and which of them are trained on.

    Args:
        tokenizer: with its chat template.
        messages: in order.
        loss_on: all tokens, those of every assistant turn, or those of the last one (the completion).

    Returns:
        Ids uint32 (N,) and bool (N,).

    Raises:
        UserError: the template refuses the conversation, or, unless all is trained on, does not tell what the assistant
            says.
    """
    encoded = tokenizer.encode(messages)
    if loss_on == "all":
        return encoded.ids, np.ones(len(encoded.ids), np.bool_)
    if encoded.why_not:
        raise UserError(encoded.why_not)
    return encoded.ids, (encoded.parts & (ASSISTANT if loss_on == "assistant" else COMPLETION)) != 0
