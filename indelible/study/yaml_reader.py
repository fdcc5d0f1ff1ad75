"""Study files and `--set` values as YAML that says what its writer means.

YAML 1.1, which PyYAML reads, takes `no` for false, `2024-01-01` for a date, `017` for fifteen and `1:30` for ninety,
and of a key that stands twice it drops the first. Here only true, false and null are words, only decimal and
hexadecimal numbers are numbers, all else is text, and a key stands once. What is left to misread is refused.
"""

import codecs
import math
import re
from collections.abc import Mapping
from typing import Any

import yaml

from indelible.errors import UserError
from indelible.files import printable
from indelible.strict import parse_count

_TAG = "tag:yaml.org,2002:"
_INTEGER = re.compile(r"[-+]?(0|[1-9][0-9_]*|0x[0-9a-fA-F]+)$")
_FLOAT = re.compile(
    r"[-+]?((0|[1-9][0-9_]*)\.[0-9_]*|\.[0-9]+|(0|[1-9][0-9_]*)(?=[eE]))([eE][-+]?[0-9]+)?$|[-+]?\.inf$|\.nan$",
    re.IGNORECASE,
)
_WORDS = {"true": True, "false": False, "null": None, "~": None, "": None}
_BREAKS = "\n\r\x85\u2028\u2029\ufeff"
_DEEPEST = 50  # parts of the path of a field; a study has about six levels
_MAX_DIGITS = 4_000  # Python itself refuses to read longer integers
_MAX_VALUES = 1_000_000  # of a file with its aliases written out: a few lines of aliases can stand for billions
_MARKS = {
    codecs.BOM_UTF32_LE: "UTF-32", codecs.BOM_UTF32_BE: "UTF-32", codecs.BOM_UTF16_LE: "UTF-16",
    codecs.BOM_UTF16_BE: "UTF-16",
}  # fmt: skip


def _tag_of(text: str) -> str:
    """The tag of a plain scalar: the one place where it is decided what a bare word means."""
    if text.lower() in _WORDS and text in (text.lower(), text.upper(), text.capitalize()):
        return _TAG + ("null" if _WORDS[text.lower()] is None else "bool")
    if _INTEGER.match(text):
        return _TAG + "int"
    if _FLOAT.match(text) and ("inf" in text.lower() or not math.isinf(_as_float(text))):
        return _TAG + "float"  # 12e4567 is rather a commit than a number
    return _TAG + "str"


def _as_float(text: str) -> float:
    return float(text.replace("_", "").lower().replace(".inf", "inf").replace(".nan", "nan"))


class _Plain:
    """For loader and dumper alike: plain scalars by `_tag_of`, not by the rules of YAML 1.1."""

    def resolve(self, kind: Any, value: Any, implicit: Any) -> str:
        """The tag of a node that has none of its own."""
        if kind is yaml.ScalarNode and implicit[0]:
            return _tag_of(value)
        return super().resolve(kind, value, (False, False))  # type: ignore[misc]


class _Loader(_Plain, yaml.SafeLoader):
    pass


class _Dumper(_Plain, yaml.SafeDumper):
    pass


def _text_node(dumper: yaml.SafeDumper, text: str) -> yaml.Node:
    """Text in one line; double quotes where the other styles would fold a line break of some kind."""
    style = '"' if any(mark in text for mark in _BREAKS) else None
    return dumper.represent_scalar(_TAG + "str", text, style)


_Dumper.add_representer(str, _text_node)


def write_yaml(tree: Mapping[str, Any]) -> str:
    """A study as text that `read_mapping` reads as the same study: what would be misread stands in quotes."""
    return yaml.dump(dict(tree), Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=10**6)


def decode(data: bytes, where: str) -> str:
    """The text of a file that must be UTF-8, without its byte order mark.

    Raises:
        UserError: it is in another encoding; the message names it, or the line and byte.
    """
    for mark, name in _MARKS.items():
        if data.startswith(mark):
            raise UserError(f"{where}: the file is {name} (by its byte order mark); save it as UTF-8.")
    data = data.removeprefix(codecs.BOM_UTF8)
    if b"\0" in data:
        raise UserError(
            f"{where}: holds zero bytes, so it is no text in UTF-8 (UTF-16, or not text); save it as UTF-8."
        )
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise UserError(
            f"{where} line {line}: not UTF-8 (byte {data[error.start]:#x}; Latin-1 or Windows-1252?); save the file as "
            "UTF-8."
        ) from None
    if (at := text.find("\ufeff")) >= 0:
        line = text.count("\n", 0, at) + 1
        raise UserError(f"{where} line {line}: a byte order mark inside the text, as joined files have; remove it.")
    return text


def read_mapping(data: bytes, where: str) -> dict[str, Any]:
    """The mapping at the top of a study file.

    Args:
        data: bytes of the file.
        where: its name, for messages.

    Raises:
        UserError: not UTF-8, not YAML, a key stands twice, or something else than a mapping is at the top.
    """
    raw = read_value(decode(data, where), where)
    if not isinstance(raw, dict):
        found = "nothing" if raw is None else type(raw).__name__
        raise UserError(f"{where}: expected a mapping of settings at the top, found {found}.")
    return raw


def read_value(text: str, where: str) -> Any:
    """One YAML value.

    Raises:
        UserError: it is not YAML, or could be misread; the message names ``where`` and the line.
    """
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        raise UserError(f"{printable(where)}: holds bytes that are not UTF-8; write it in UTF-8.") from None
    try:
        node = yaml.compose(text, _Loader)
    except yaml.YAMLError as error:
        raise UserError(f"{where}: this is not YAML: {error}") from None
    except RecursionError:
        raise UserError(f"{where}: not a study: lists or mappings are nested hundreds deep.") from None
    return _Builder(where).value(node) if node is not None else None


class _Builder:
    """Nodes to values, with the place of each for messages."""

    def __init__(self, where: str) -> None:
        self._where = where
        self._open: set[int] = set()  # nodes that are being built: one that comes up again holds itself
        self._count = 0

    def _error(self, node: yaml.Node, what: str) -> UserError:
        return UserError(f"{self._where} line {node.start_mark.line + 1}: {what}")

    def value(self, node: yaml.Node) -> Any:
        """The value of a node."""
        self._count += 1
        if self._count > _MAX_VALUES:
            raise self._error(node, f"with its aliases written out the file holds more than {_MAX_VALUES:,} values.")
        if id(node) in self._open:
            raise self._error(node, "an alias (*name) stands inside what it stands for; write the value out.")
        if isinstance(node, yaml.ScalarNode):
            return self._scalar(node)
        self._open.add(id(node))
        kind = "map" if isinstance(node, yaml.MappingNode) else "seq"
        if node.tag != _TAG + kind:
            raise self._error(node, f"the tag {_shown(node.tag)} is not read; write the value without it.")
        if isinstance(node, yaml.MappingNode):
            built: Any = self._mapping(node)
        else:
            built = [self.value(item) for item in node.value]
        self._open.discard(id(node))
        return built

    def _mapping(self, node: yaml.MappingNode) -> dict[str, Any]:
        found: dict[str, Any] = {}
        lines: dict[str, int] = {}
        below: dict[str, Any] = {}
        for key_node, value_node in node.value:
            if not isinstance(key_node, yaml.ScalarNode):
                raise self._error(key_node, "a list or mapping stands where a name is expected (quote { and [).")
            key = key_node.value
            if key in lines:
                raise self._error(
                    key_node, f"the key {key!r} stands twice, first in line {lines[key]}; keep one of the two."
                )
            lines[key] = key_node.start_mark.line + 1
            if key == "<<" and key_node.style is None:
                for layer in self._layers(value_node):
                    below = layer | below
            else:
                found[key] = self.value(value_node)
        return below | found

    def _layers(self, node: yaml.Node) -> list[dict[str, Any]]:
        """What `<<:` merges in: a mapping or several, the first before the others."""
        layers = self.value(node)
        layers = layers if isinstance(layers, list) else [layers]
        if not all(isinstance(layer, dict) for layer in layers):
            raise self._error(node, "<<: takes a mapping or a list of mappings.")
        return layers

    def _scalar(self, node: yaml.ScalarNode) -> Any:
        text, kind = node.value, node.tag.removeprefix(_TAG)
        if kind == "str":
            return text
        if node.tag != _tag_of(text):
            raise self._error(node, f"the tag {_shown(node.tag)} is not read; write the value without it.")
        if len(text) > _MAX_DIGITS:
            raise self._error(node, f"a number of {len(text):,} digits; no setting takes so large a one.")
        if kind == "int":
            digits = text.replace("_", "").lower()
            return int(digits, 16 if "x" in digits else 10)
        return _as_float(text) if kind == "float" else _WORDS[text.lower()]


def _shown(tag: str) -> str:
    return f"!!{tag.removeprefix(_TAG)}" if tag.startswith(_TAG) else tag


def split_path(tree: Mapping[str, Any], dotted: str) -> tuple[str, ...]:
    """The keys that a dotted path names; a key of the tree that holds dots itself (``dropout-0.02``) counts as one.

    Raises:
        UserError: a part of the path is empty, or there are far more of them than a study has levels.
    """
    parts, here = dotted.strip().split("."), tree
    if len(parts) > _DEEPEST:
        raise UserError(
            f"--set {dotted[:60]}...: a path of {len(parts):,} parts; no field of a study lies so deep, write it as "
            "stage.field, e.g. finetune.lr."
        )
    path: list[str] = []
    while parts:
        length = 1
        if isinstance(here, Mapping):
            known = (n for n in range(len(parts), 0, -1) if ".".join(parts[:n]) in here)
            length = next(known, 1)
        key, parts = ".".join(parts[:length]).strip(), parts[length:]
        if not key:
            raise UserError(
                f"--set {dotted}=...: a part of the path is empty; write it as stage.field, e.g. finetune.lr."
            )
        path.append(key)
        here = here.get(key, {}) if isinstance(here, Mapping) else {}
    return tuple(path)


def canonical_setting(value: Any) -> Any:
    """A hashable form of a value, equal for one setting in two spellings: 0 and 0.0, 1000 and 1k; not 1 and true."""
    if isinstance(value, bool) or value is None:
        return "word", value
    if isinstance(value, Mapping):
        return "mapping", tuple(sorted((key, repr(canonical_setting(item))) for key, item in value.items()))
    if isinstance(value, list | tuple):
        return "list", tuple(canonical_setting(item) for item in value)
    try:
        number = parse_count(value)
        number = float(number) if isinstance(number, str) else number
    except ValueError:  # text, or beyond all counts
        return "text", value
    return ("number", number) if math.isfinite(number) else ("text", str(value))
