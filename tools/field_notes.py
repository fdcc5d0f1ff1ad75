"""What the source says of a model's fields: the comment beside each, and the modules that read it."""

import ast
import inspect
import io
import tokenize
from functools import cache
from pathlib import Path

from pydantic import BaseModel

import indelible

PACKAGE = Path(indelible.__file__).parent
MANY = 4  # a name that more modules read is a common word


def comments_of(model: type[BaseModel]) -> dict[str, str]:
    """The comment of each field, those of the classes that it inherits from included."""
    found: dict[str, str] = {}
    for one in reversed(model.__mro__):
        if issubclass(one, BaseModel) and one.__module__.startswith("indelible."):
            found |= comments_in(inspect.getsource(one))
    return found


def comments_in(source: str) -> dict[str, str]:
    """Field to comment: at the end of its line, going on below it; or above it where there is none at the end."""
    said = {
        token.start[0]: token.string.lstrip("# ")
        for token in tokenize.generate_tokens(io.StringIO(source).readline)
        if token.type == tokenize.COMMENT
    }
    own_line = {at for at, line in enumerate(source.splitlines(), 1) if line.strip().startswith("#")}
    (tree,) = ast.parse(inspect.cleandoc(source) if source[0] == " " else source).body
    assert isinstance(tree, ast.ClassDef)
    fields = [node for node in tree.body if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name)]
    found = {}
    for node in fields:
        lines = []
        above = node.lineno - 1
        ends = [at for at in range(node.lineno, (node.end_lineno or 0) + 1) if at in said]
        if not ends:
            while above in own_line:
                lines.insert(0, said[above])
                above -= 1
        lines += [said[at] for at in ends]
        below = (node.end_lineno or 0) + 1
        while ends and below in own_line and not _is_of_the_next(below, fields, said, own_line):
            lines.append(said[below])
            below += 1
        found[node.target.id] = " ".join(lines)
    return found


def _is_of_the_next(at: int, fields: list[ast.AnnAssign], said: dict[int, str], own_line: set[int]) -> bool:
    """Whether a comment line belongs to the field below it: that one has no comment of its own."""
    while at in own_line:
        at += 1
    following = [node for node in fields if node.lineno == at]
    return any(not any(line in said for line in range(node.lineno, (node.end_lineno or 0) + 1)) for node in following)


@cache
def _attributes() -> dict[str, set[str]]:
    """The names that each module reads of something (`something.name`), by its path in the package."""
    found = {}
    for file in sorted(PACKAGE.rglob("*.py")):
        tree = ast.parse(file.read_text(encoding="utf-8"))
        loads = (node for node in ast.walk(tree) if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Load))
        found[file.relative_to(PACKAGE).as_posix()] = {node.attr for node in loads}
    return found


def readers_of(field: str, model: type[BaseModel], rooms: tuple[str, ...]) -> list[str]:
    """The modules of ``rooms`` that read a field of this name, but for the model's own; none for a common word."""
    own = model.__module__.removeprefix("indelible.").replace(".", "/") + ".py"
    found = [name for name, read in _attributes().items() if field in read and name.split("/")[0] in rooms]
    elsewhere = [name for name in found if name != own] or found
    return elsewhere if len(elsewhere) <= MANY else []
