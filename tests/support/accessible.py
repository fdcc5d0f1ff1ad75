"""What a page must have so that it can be read without a mouse, without colours, and by a screen reader."""

import re
from html.parser import HTMLParser
from itertools import pairwise

_VOID = {"meta", "link", "br", "img", "input", "hr"}


class Page(HTMLParser):
    """The elements of a page: names, attributes, and what stands around each."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None], tuple[str, ...]]] = []
        self.words: list[tuple[str, str]] = []  # innermost element, text
        self._open: list[str] = []
        self.feed(re.sub(r"<(script|style)[^>]*>.*?</\1>", "", text, flags=re.S))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs), tuple(self._open)))
        if tag not in _VOID:
            self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        while self._open and self._open.pop() != tag:
            pass

    def handle_data(self, data: str) -> None:
        if self._open and data.strip():
            self.words.append((self._open[-1], data.strip()))


def faults(text: str) -> list[str]:
    """What is wrong with a page, each in a line; empty where nothing is."""
    page = Page(text)
    found = []
    attributes = [(tag, own) for tag, own, _ in page.elements]
    if ("html", {"lang": "en"}) not in attributes:
        found.append("no language")
    if not any(tag == "title" for tag, _ in page.words):
        found.append("no title")
    levels = [int(tag[1]) for tag, _ in attributes if re.fullmatch(r"h[1-6]", tag)]
    if levels.count(1) != 1 or levels[0] != 1:
        found.append(f"headings begin with {levels[:3]}, and h1 stands {levels.count(1)} times")
    found += [f"h{two} follows h{one}" for one, two in pairwise(levels) if two > one + 1]
    for tag, own, around in page.elements:
        classes = (own.get("class") or "").split()
        if tag == "svg" and not own.get("aria-label"):
            found.append("a chart without a name")
        if "chart" in classes and not (own.get("role") and own.get("aria-label")):
            found.append(f"{own.get('id')}: a chart without a role and a name")
        if "scroll" in classes and not (own.get("tabindex") == "0" and own.get("role") and own.get("aria-label")):
            found.append("a part that scrolls cannot be reached by keyboard, or has no name")
        if tag == "select" and "label" not in around:
            found.append("a menu without a label")
        if tag == "th" and own.get("scope") not in ("col", "row"):
            found.append("a heading of a table without a scope")
        if any(name.startswith("on") for name in own) and tag not in ("button", "select"):
            found.append(f"{tag}: a control that is no control")
    return found


def luminance(color: str) -> float:
    """Of ``#rrggbb``, 0 to 1, as the contrast rules of WCAG 2 have it."""
    parts = [int(color[start : start + 2], 16) / 255 for start in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: str, other: str) -> float:
    """Of two colours, 1 to 21."""
    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


def variables(style: str, mode: str) -> dict[str, str]:
    """The colours that a style sheet declares for ``light`` or ``dark`` on a screen."""
    screen = style.partition("@media print")[0]
    blocks = {"light": r"^:root \{(.*?)\}", "dark": r'^:root\[data-theme="dark"\] \{(.*?)\}'}
    found: dict[str, str] = {}
    for block in re.findall(blocks[mode], screen, flags=re.S | re.M):
        found |= dict(re.findall(r"--([\w-]+):\s*(#[0-9a-f]{6})", block))
    return found
