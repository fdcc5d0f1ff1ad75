"""Parser of ABC tune books: one tune a document, one document a melody."""

import re
from collections.abc import Iterator

from indelible.corpora.document import Parsed
from indelible.corpora.wheels import Archive

_TUNE_START = re.compile(r"(?m)^X:")
_HEADER = re.compile(r"^[A-Za-z]:")
# Chord names and fingerings, decorations, grace notes, in-line fields: not part of the melody.
_ORNAMENT = re.compile(r'"[^"\n]*"|![^!\n]*!|\{[^}\n]*\}|\[[A-Za-z]:[^\]\n]*\]|%.*')
_NOT_MELODY = re.compile(r"[^A-Ga-gz^_=,'0-9/<>]")


def _decode(raw: bytes) -> str:
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError:
        return raw.decode("latin-1")


def melody(tune: str) -> str:
    """The notes alone (pitch, accidental, octave, length): equal for two prints of one melody."""
    lines = tune.split("\n")
    key = next((i for i, line in enumerate(lines) if line.startswith("K:")), -1)
    body = "\n".join(line for line in lines[key + 1 :] if not _HEADER.match(line))
    return _NOT_MELODY.sub("", _ORNAMENT.sub("", body))


def clean_tune(tune: str) -> str:
    """A tune without comment lines and transcribers' contact lines (``Z:``), one line break style."""
    lines = (line.rstrip() for line in tune.replace("\r\n", "\n").replace("\r", "\n").split("\n"))
    return "\n".join(line for line in lines if line and not line.startswith(("%", "Z:")) and line != "N:").strip()


def tunes(archive: Archive, folder: str) -> Iterator[Parsed]:
    """The tunes of one collection under ``music21/corpus/<folder>``; tunes without notes are left out."""
    for name in archive.names:
        if not name.startswith(f"music21/corpus/{folder}/") or not name.endswith(".abc"):
            continue
        text = _decode(archive.read(name)).replace("\r\n", "\n").replace("\r", "\n")
        for piece in _TUNE_START.split(text)[1:]:
            tune = clean_tune("X:" + piece)
            if len(melody(tune)) >= 8:
                yield Parsed(tune)
