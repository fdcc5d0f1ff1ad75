"""Pieces of the generated pages: tables, docstrings and signatures as Markdown."""

import inspect
import re
from collections.abc import Callable
from typing import Any


def cell(text: str) -> str:
    """Text for a cell of a table."""
    return text.replace("``", "`").replace("|", "\\|").replace("\n", " ").strip()


def table(header: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    """A Markdown table; an empty string without rows."""
    if not rows:
        return ""
    lines = [header, ("---",) * len(header), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"


def paragraphs(function: Callable[..., Any]) -> str:
    """The docstring of a function as Markdown: text, and a list for each of its sections."""
    return markdown(inspect.getdoc(function) or "")


def markdown(doc: str) -> str:
    """A Google docstring as Markdown."""
    out: list[str] = []
    for line in doc.splitlines():
        words = line.strip()
        if line in ("Args:", "Returns:", "Raises:", "Attributes:"):
            out += ["", f"*{line[:-1].replace('Args', 'Arguments')}*", ""]
        elif line.startswith("        ") and out:
            out[-1] += f" {words}"
        elif line.startswith("    "):
            name, colon, rest = words.partition(": ")
            out.append(f"* `{name}`: {rest}" if colon and name.isidentifier() else words)
        else:
            out.append(words)
    return "\n".join(out).replace("``", "`") + "\n"


def signature(name: str, function: Callable[..., Any]) -> str:
    """A call as a block of Python, an argument a line if it is long; modules are left out of the types."""
    found = inspect.signature(function)
    arguments = [one for one in found.parameters.values() if one.name != "self"]
    short = []
    for one in arguments:
        said, equals, default = str(one).partition(" = ")
        said = re.sub(r"\b(?:[a-z_]+\.)+(?=[A-Za-z])", "", said).replace("'", "")
        short.append(said + equals + default.replace("'", '"'))
    first = next((at for at, one in enumerate(arguments) if one.kind is one.KEYWORD_ONLY), None)
    if first is not None and not any(one.kind is one.VAR_POSITIONAL for one in arguments):
        short.insert(first, "*")
    line = f"{name}({', '.join(short)})"
    if len(line) >= 100:
        line = "\n".join([f"{name}(", *(f"    {one}," for one in short), ")"])
    return f"```python\n{line}\n```\n"
