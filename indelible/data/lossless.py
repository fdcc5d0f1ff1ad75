"""Whether a tokenizer keeps all of a text: letters that it has no token for are dropped, or all become one token."""

import json
from typing import Any

from tokenizers import Tokenizer, pre_tokenizers

from indelible.errors import UserError

_SHOWN = 8  # characters in a message


def keeps_every_byte(tokenizer: Tokenizer) -> bool:
    """True if every text can be had back from its tokens, because each byte has a token of its own."""
    parts: dict[str, Any] = json.loads(tokenizer.to_str())
    vocabulary = tokenizer.get_vocab(with_added_tokens=True)
    if parts["model"].get("byte_fallback"):
        return all(f"<0x{byte:02X}>" in vocabulary for byte in range(256))
    before = parts.get("pre_tokenizer") or {}
    steps = [before, *before.get("pretokenizers", ())]
    if any(step.get("type") == "ByteLevel" for step in steps):
        return all(letter in vocabulary for letter in pre_tokenizers.ByteLevel.alphabet())
    return False


class LossCheck:
    """Looks at texts for characters that a tokenizer loses."""

    def __init__(self, tokenizer: Tokenizer, name: str) -> None:
        self._tokenizer = tokenizer
        self._name = name
        model = json.loads(tokenizer.to_str())["model"]
        unknown = model.get("unk_token")
        self._unknown: int | None = tokenizer.token_to_id(unknown) if isinstance(unknown, str) else model.get("unk_id")
        self._is_needed = not keeps_every_byte(tokenizer)

    def check(self, texts: list[str], corpus: str) -> None:
        """Refuses texts of which a character, blanks and control characters aside, is in no token.

        Raises:
            UserError: the first such text, with the characters.
        """
        if not self._is_needed:
            return
        for text, encoded in zip(texts, self._tokenizer.encode_batch(texts, add_special_tokens=False), strict=True):
            covered = bytearray(len(text))
            for number, (start, end) in zip(encoded.ids, encoded.offsets, strict=True):
                if number != self._unknown:
                    covered[start:end] = b"\1" * (end - start)
            lost = [
                c for c, kept in zip(text, covered, strict=True) if not kept and c.isprintable() and not c.isspace()
            ]
            if lost:
                some = ", ".join(map(repr, list(dict.fromkeys(lost))[:_SHOWN]))
                raise UserError(
                    f"corpus {corpus}: {self._name} has no tokens for {len(lost)} of the {len(text)} characters of a "
                    f"document ({some}): they would be lost without a trace. Take a tokenizer whose vocabulary has "
                    f"every byte (kind: bpe makes one), or take such text out. The document begins {text[:40]!r}."
                )
