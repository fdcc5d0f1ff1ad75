"""The script that draws the page's charts: Vega-Lite with all that it needs, in one text."""

import hashlib
from contextlib import suppress
from functools import cache

import vl_convert

from indelible.corpora.sources import default_cache_dir
from indelible.errors import UserError
from indelible.files import write_text

VEGA_LITE = "6.4"


@cache
def vega_bundle() -> str:
    """The script. To put it together takes longer than the rest of a small page, so it is kept in the user's cache.

    What is kept begins with its checksum; a file that does not fit it, or cannot be read, is made anew.
    """
    version = vl_convert.__version__  # type: ignore[attr-defined]
    try:
        path = default_cache_dir() / "charts" / f"vega-lite-{VEGA_LITE}-{version}.js"
    except UserError:  # no home folder: then nothing is kept
        return _made()
    with suppress(OSError, UnicodeDecodeError):
        digest, _, text = path.read_text(encoding="utf-8").partition("\n")
        if digest == _digest(text):
            return text
    text = _made()
    with suppress(OSError):
        write_text(path, f"{_digest(text)}\n{text}")
    return text


def _made() -> str:
    return vl_convert.javascript_bundle(vl_version=VEGA_LITE)  # type: ignore[call-arg]


def _digest(text: str) -> str:
    return f"// sha256 {hashlib.sha256(text.encode()).hexdigest()}"
