"""The sentences of a Markdown page, for the tests of style: code, tables and the addresses of links are left out."""

import re

FENCED = re.compile(r"^```.*?^```$", re.M | re.S)
END = re.compile(r"(?<=[.!?])(?:\*\*|\))?\s+(?=[A-Z*(\[\"])|;\s+")  # behind a semicolon is a clause of its own
ITEM = re.compile(r"^\s*(?:[*-]|\d+\.)\s+")


def paragraphs(page: str) -> list[str]:
    """The paragraphs and list items of a page as plain text."""
    text = FENCED.sub("\n", page)
    text = re.sub(r"<!--.*?-->", "", text, flags=re.S)
    text = re.sub(r"!?\[([^\]]*)\]\([^)]*\)", r"\1", text)
    text = re.sub(r"`[^`]*`", "Code", text)
    found: list[str] = []
    is_open = False
    for line in text.splitlines():
        if not line.strip() or line.startswith(("#", "|")):
            is_open = False
        elif is_open and not ITEM.match(line):
            found[-1] += " " + line.strip()
        else:
            found.append(ITEM.sub("", line).strip())
            is_open = True
    return found


def sentences(page: str) -> list[str]:
    """The sentences of a page."""
    return [one.strip() for paragraph in paragraphs(page) for one in END.split(paragraph) if one.strip()]


def words(sentence: str) -> int:
    """How many words a sentence has; numbers and signs by themselves are none."""
    return len(re.findall(r"[A-Za-z_]+(?:['’-][A-Za-z]+)*", sentence))
