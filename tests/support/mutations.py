"""A seeded mutator of files: what editors, transfers and half-finished writes make of them, and some malice."""

import json
import math
import random
from collections.abc import Iterator, Sequence
from typing import Any

_NUMBERS = b"0 -1 1e308 1e-400 .inf -.inf .nan nan infx 1x 9223372036854775808 1e5 0x10 1_0 1:30".split()
_PLAIN = b"0 1 2 3 4 8 16 64 100 0.5 0.1 1000 2k".split()
_WORDS = [
    *(
        b"null",
        b"true",
        b"no",
        b"~",
        b"''",
        b"[]",
        b"{}",
        b"[[]]",
        b"&a",
        b"*a",
        b"<<",
        b"!!python/name:os.system",
        b"%",
    ),
    *(
        b"\xef\xbb\xbf",
        b"\xff\xfe",
        b"\xe9",
        b"\x00",
        b"\x85",
        b"\xed\xa0\x80",
        b"\\ud800",
        b"\xf0\x9f\x98\x80",
        b"\r\n",
    ),
    *(b"{", b"}", b"[", b"]", b":", b": ", b"- ", b"#", b"|", b">", b'"', b"'", b",", b"\t", b"\n", b"\n\n", b"---\n"),
    *(b"9" * 5000, b"[" * 3000, b'{"a":' * 2000, b"a" * 20000, b"../..", b"~/x", b"/dev/null", b"<script>", b"[/bold]"),
]


def mutants(data: bytes, count: int, seed: int, words: Sequence[bytes] = ()) -> Iterator[bytes]:
    """``count`` mutants of ``data``, the same at every call.

    Args:
        data: the original.
        count: how many.
        seed: of the choices.
        words: pieces of this kind of file, to be put in and to stand for one another.
    """
    for number in range(count):
        source = random.Random(f"{seed} {number}")
        mutant = data
        for _ in range(source.choice((1, 1, 1, 2, 3, 6))):
            mutant = _changed(mutant, source, [*_WORDS, *words])
        yield mutant


def _changed(data: bytes, source: random.Random, words: list[bytes]) -> bytes:
    if not data:
        return source.choice(words)
    at = source.randrange(len(data))
    end = min(len(data), at + source.choice((1, 1, 2, 4, 8, 32, 200)))
    kind = source.randrange(11)
    if kind == 0:
        return data[:at] + bytes([data[at] ^ 1 << source.randrange(8)]) + data[at + 1 :]
    if kind == 1:
        return data[:at] + data[end:]
    if kind == 2:
        return data[:end] + data[at:]
    if kind == 3:
        return data[:at]
    if kind == 4:
        return data[:at] + source.randbytes(end - at) + data[end:]
    if kind == 5:
        other = source.randrange(len(data))
        return data[:at] + data[other : other + end - at] + data[end:]
    if kind in (6, 7, 8) and source.random() < 0.9:
        return _number_replaced(data, source)
    if kind == 8:
        return _in_another_encoding(data, source)
    return data[:at] + source.choice(words) + data[source.choice((at, end)) :]


def _number_replaced(data: bytes, source: random.Random) -> bytes:
    """Another number, or no number at all, for one that stands there."""
    places = [at for at in range(len(data)) if data[at : at + 1].isdigit() and not data[at - 1 : at].isdigit()]
    if not places:
        return data
    first = last = source.choice(places)
    while data[last : last + 1].isdigit():
        last += 1
    odd = source.random() < 0.5
    return data[:first] + source.choice([*_NUMBERS, *_WORDS[:9]] if odd else _PLAIN) + data[last:]


def _in_another_encoding(data: bytes, source: random.Random) -> bytes:
    text = data.decode("utf-8", "replace")
    return text.encode(source.choice(("utf-16", "utf-16-be", "utf-32", "latin-1", "cp1252", "utf-8-sig")), "replace")


_VALUES: list[Any] = [
    *(None, True, False, 0, 1, -1, 7, 10**30, 2**63, 1e308, -0.5, "", "x", "../..", "\ud800", "nan", "a\x00b", [], {}),
    *([[]], {"a": {}}, math.nan, math.inf, "\u2028", "[/bold]", "0", "9" * 5000),
]


def json_mutants(value: Any, count: int, seed: int) -> Iterator[bytes]:
    """``count`` mutants of a JSON file that are JSON still: other values, keys that are gone, double or new.

    Args:
        value: what the file holds.
        count: how many.
        seed: of the choices.
    """
    for number in range(count):
        source = random.Random(f"json {seed} {number}")
        mutant = json.loads(json.dumps(value))
        for _ in range(source.choice((1, 1, 1, 2, 4))):
            mutant = _edited(mutant, source)
        yield json.dumps(mutant, indent=source.choice((None, 1))).encode()


def _edited(value: Any, source: random.Random) -> Any:
    places = list(_places(value))
    if not places or source.random() < 0.02:
        return source.choice(_VALUES)
    holder, key = source.choice(places)
    kind, other = source.randrange(6), source.choice(places)
    if kind == 0:
        del holder[key]
    elif kind == 1:
        holder[key] = json.loads(json.dumps(other[0][other[1]]))
    elif kind == 2 and isinstance(holder, dict):
        holder[source.choice(("x", "", "../x", "class", f"{key} "))] = holder.pop(key)
    elif kind == 2:
        holder.append(holder[key])
    else:
        holder[key] = source.choice(_VALUES)
    return value


def _places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Every place of a value: what holds it, and under which key."""
    keys = value if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ()
    for key in keys:
        yield value, key
        yield from _places(value[key])
