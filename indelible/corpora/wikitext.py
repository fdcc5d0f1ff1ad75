"""Wikitext to plain text: templates, tables, references and files go; words, headings and link texts stay."""

import re

from indelible.corpora.textcut import strip_html

_INNER_TEMPLATE = re.compile(r"\{\{[^{}]*\}\}")
_INNER_TABLE = re.compile(r"\{\|(?:(?!\{\|).)*?\|\}", re.DOTALL)
_COMMENT = re.compile(r"<!--.*?-->", re.DOTALL)
_REFERENCE = re.compile(r"(?is)<ref[^<>]*?/>|<(ref|math|gallery|timeline|score)\b[^<>]*>.*?</\1>")
_INNER_FILE = re.compile(r"(?i)\[\[(?:file|image|category|[a-z]{2,3}(?:-[a-z]+)?):[^\[\]]*\]\]")
_LINK = re.compile(r"\[\[(?:[^\[\]|]*\|)?([^\[\]|]*)\]\]")
_EXTERNAL = re.compile(r"\[(?:https?:)?//\S+\s*([^\]]*)\]")
_HEADING = re.compile(r"^=+\s*(.*?)\s*=+\s*$", re.MULTILINE)
_TAIL = re.compile(r"(?im)^==\s*(references|external links|further reading|notes|see also|bibliography)\s*==[\s\S]*")
_NESTING = 12  # depth of templates that is unfolded; deeper ones are broken markup


def _innermost_first(pattern: re.Pattern[str], replacement: str, text: str) -> str:
    for _ in range(_NESTING):
        text, found = pattern.subn(replacement, text)
        if not found:
            break
    return text


def strip_wikitext(text: str) -> str:
    """Plain text of an article; what follows the references heading is left out."""
    text = _REFERENCE.sub("", _COMMENT.sub("", text))
    text = _innermost_first(_INNER_TEMPLATE, "", text)
    text = _innermost_first(_INNER_TABLE, "", text)
    text = _TAIL.sub("", text)
    for _ in range(3):  # a caption may hold links, so files are unfolded in turns with links
        text = _INNER_FILE.sub("", text)
        text = _LINK.sub(r"\1", text)
    text = _HEADING.sub(r"\n\1\n", _EXTERNAL.sub(r"\1", text))
    text = re.sub(r"'{2,}", "", text)
    paragraphs = re.split(r"\n\s*\n", text)
    return "\n\n".join(clean for paragraph in paragraphs if (clean := strip_html(paragraph)))
