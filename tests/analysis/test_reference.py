"""The committed reference tables: the tool says of them what the documents say."""

import re
from functools import cache
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from indelible.analysis.claims import study_verdicts
from indelible.analysis.contrasts import contrasts, gains
from indelible.analysis.table import read_table
from indelible.cli.analysis_commands import register

ROOT = Path(__file__).parents[2]
REFERENCE = ROOT / "reference"
EFFECT = re.compile(r"([+-]\d+\.\d{3}) \[([+-]\d+\.\d{3}), ([+-]\d+\.\d{3})\]")
COMMAND = re.compile(r"^indelible (verdicts|compare) reference/(\S+)(\.csv|\.parquet)(.*)$", re.M)
Numbers = tuple[str, str, str]


def commands() -> list[tuple[str, Path, list[str]]]:
    """What reference/README.md lists: (command, table, options)."""
    text = (REFERENCE / "README.md").read_text(encoding="utf-8")
    found = COMMAND.findall(text)
    return [(name, REFERENCE / (table + suffix), rest.partition(">")[0].split()) for name, table, suffix, rest in found]


def shown(effect: float | None, low: float | None, high: float | None) -> Numbers | None:
    if effect is None or low is None or high is None:
        return None
    return f"{effect:+.3f}", f"{low:+.3f}", f"{high:+.3f}"


@cache
def known() -> frozenset[Numbers | None]:
    """Every effect with its interval that the listed commands print, in three decimals."""
    found: set[Numbers | None] = set()
    for command, path, options in commands():
        table = read_table(path)
        if command == "verdicts":
            found |= {shown(v.finding.effect, v.finding.low, v.finding.high) for v in study_verdicts(table)}
            continue
        values = [options[at + 1] for at, option in enumerate(options) if option == "--within"]
        by = options[options.index("--by") + 1]
        against = options[options.index("--against") + 1] if "--against" in options else None
        for one in contrasts(gains(table) if "--gain" in options else table, by, against, values):
            for comparison in one.losses.values():
                low, high = comparison.result.interval or (None, None)
                found.add(shown(comparison.result.effect, low, high))
    return frozenset(found)


@pytest.mark.parametrize("document", ["README.md", "docs/findings.md", "docs/unknowns.md"])
def test_every_interval_of_a_document_follows_from_the_tables(document):
    effects = EFFECT.findall((ROOT / document).read_text(encoding="utf-8"))
    assert effects
    assert [effect for effect in effects if effect not in known()] == []


def test_the_committed_verdicts_are_those_of_the_tables():
    application = typer.Typer()
    register(application)
    written = [(path, options) for command, path, options in commands() if command == "verdicts"]
    assert len(written) >= 3
    for path, options in written:
        told = CliRunner().invoke(application, ["verdicts", str(path), *options])
        assert told.stdout == path.with_name(f"{path.stem}-verdicts.txt").read_text(encoding="utf-8")
