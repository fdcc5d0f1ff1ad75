"""Cutting and cleaning of text that every parser needs."""

import html
import re
from collections.abc import Iterator

_TAG = re.compile(r"<[^<>]{0,2000}>")
_BREAK = re.compile(r"(?i)</?(p|br|li|ul|ol|div|h\d|tr|table|note|important|dl|dt|dd)\b[^<>]*>")
_SPACES = re.compile(r"[ \t\u00a0]+")
_BLANK_LINES = re.compile(r"\n\s*\n+")


def cut(text: str, size: int) -> Iterator[str]:
    """Cuts text into pieces of about ``size`` characters: at blank lines, else at line ends, else anywhere.

    Nothing but the blank space at the cuts is lost; a text of up to 1.5 x size stays whole.
    """
    text = text.strip()
    while len(text) > size * 3 // 2:
        at = max(text.rfind("\n\n", size // 2, size), 0) or max(text.rfind("\n", size // 2, size), 0)
        at = at or max(text.rfind(" ", size // 2, size), 0) or size
        yield text[:at].strip()
        text = text[at:].strip()
    if text:
        yield text


def strip_html(text: str) -> str:
    """Plain text of a fragment of HTML: block tags become line breaks, other tags vanish, entities are decoded."""
    text = _TAG.sub("", _BREAK.sub("\n", text))
    lines = (_SPACES.sub(" ", line).strip() for line in html.unescape(text).split("\n"))
    return _BLANK_LINES.sub("\n", "\n".join(lines)).strip()
