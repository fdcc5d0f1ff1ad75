"""Parsers of the chemistry sources: records of compounds and descriptions of the elements."""

import sqlite3
from collections.abc import Iterator

from indelible.corpora.document import Parsed
from indelible.corpora.wheels import Archive

_FIELDS = ("PubChem CID", "CAS", "Formula", "Molecular weight", "SMILES", "InChI", "InChIKey", "IUPAC name", "Name")
_FILES = (
    "chemical identifiers pubchem large.tsv",
    "chemical identifiers pubchem small.tsv",
    "Inorganic db.tsv",
    "Anion db.tsv",
    "Cation db.tsv",
)
_ELEMENT: tuple[str, ...] = ("atomic_number", "symbol", "electronic_configuration", "atomic_weight", "density")
_ELEMENT += ("discoverers", "discovery_year", "discovery_location", "name_origin", "sources", "uses")


def record(line: str) -> str:
    """One tab-separated line as a labelled record; empty and unknown (-1) fields are left out."""
    cells = line.rstrip("\r\n").split("\t")
    values = dict(zip(_FIELDS, cells, strict=False))
    names = ("Name", "IUPAC name", "Formula", "Molecular weight", "SMILES", "InChI", "InChIKey", "CAS", "PubChem CID")
    lines = [f"{field}: {values[field]}" for field in names if values.get(field) not in (None, "", "-1")]
    if synonyms := [cell for cell in cells[len(_FIELDS) :] if cell]:
        lines.append("Synonyms: " + "; ".join(synonyms))
    return "\n".join(lines)


def chemicals(archive: Archive) -> Iterator[Parsed]:
    """One record a compound."""
    for name in _FILES:
        for line in archive.read(f"chemicals/Identifiers/{name}").decode("utf-8").split("\n"):
            if line.strip():
                yield Parsed(record(line))


def elements(archive: Archive) -> Iterator[Parsed]:
    """One document an element."""
    connection = sqlite3.connect(":memory:")
    try:
        connection.deserialize(archive.read("mendeleev/elements.db"))
        columns = ", ".join(("name", "description", *_ELEMENT))
        for row in connection.execute(f"SELECT {columns} FROM elements ORDER BY atomic_number"):
            facts = zip(_ELEMENT, row[2:], strict=True)
            lines = [f"{field.replace('_', ' ').capitalize()}: {value}" for field, value in facts if value is not None]
            yield Parsed("\n".join((row[0], "", row[1] or "", "", *lines)))
    finally:
        connection.close()
