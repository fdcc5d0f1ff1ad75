"""The committed reference tables: the tool says of them what the documents say."""

import re
from collections import defaultdict
from functools import cache
from pathlib import Path

import pytest
import typer
from polars import read_csv
from typer.testing import CliRunner

from indelible.claims.paper_claims import study_verdicts
from indelible.cli.results_commands import register
from indelible.results.table import read_table
from indelible.statistics.contrasts import contrasts, gains, where
from indelible.statistics.inference import paired

ROOT = Path(__file__).parents[2]
REFERENCE = ROOT / "reference"
EFFECT = re.compile(r"([+-]\d+\.\d{3}) \[([+-]\d+\.\d{3}), ([+-]\d+\.\d{3})\]")
COMMAND = re.compile(r"^indelible (verdicts|compare) reference/(\S+)(\.csv|\.parquet)(.*)$", re.M)
SEEDS = re.compile(r"\(([^()]*?) ?(?:new )?seeds?\)")
CURVE = re.compile(r"^\| (3[ab]) \| (\d+)k \| (L_\w+) \|((?: \d+\.\d{3} \|)+)$", re.M)
NANO_SIZES = ("30", "150", "300")
EXPOSURE = [0, 0.25, 0.5, 0.75, 1]
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
def known() -> dict[Numbers | None, set[str]]:
    """Every effect with its interval that the listed commands print, in three decimals: the new seeds beside it."""
    found: dict[Numbers | None, set[str]] = defaultdict(set)
    for command, path, options in commands():
        table = where(read_table(path), [options[at + 1] for at, option in enumerate(options) if option == "--where"])
        if command == "verdicts":
            for one in (verdict.finding for verdict in study_verdicts(table)):
                found[shown(one.effect, one.low, one.high)].add(one.new_seeds.text if one.new_seeds else "")
            continue
        values = [options[at + 1] for at, option in enumerate(options) if option == "--within"]
        by = options[options.index("--by") + 1]
        against = options[options.index("--against") + 1] if "--against" in options else None
        for one in contrasts(gains(table) if "--gain" in options else table, by, against, values):
            for comparison in one.losses.values():
                result = comparison.result
                needed = comparison.new_seeds()
                found[shown(result.effect, result.low, result.high)].add(needed.text if needed else "")
    for effect in relearned():
        found[effect].add("")
    return dict(found)


def relearned() -> list[Numbers | None]:
    """What exposure changes after relearning, setting by setting and of untouched checkpoints."""
    rows = read_csv(REFERENCE / "audit" / "relearned.csv")
    told = []
    for _, own in rows.group_by("adapt", "lr"):
        sides = [own.filter(exposure_fraction=fraction).sort("seed") for fraction in (0, 1)]
        for column in own.columns[4:]:
            change = paired(dict(enumerate((sides[1][column] - sides[0][column]).to_list())))
            told.append(shown(change.effect, change.low, change.high))
    return told


@pytest.mark.parametrize("document", ["README.md", "docs/findings.md", "docs/unknowns.md"])
def test_every_interval_of_a_document_follows_from_the_tables(document):
    effects = EFFECT.findall((ROOT / document).read_text(encoding="utf-8"))
    assert effects
    assert [effect for effect in effects if effect not in known()] == []


def test_the_new_seeds_follow_from_the_tables():
    text = (ROOT / "docs/findings.md").read_text(encoding="utf-8")
    rows = [(row, SEEDS.findall(row)) for row in text.splitlines() if "inconclusive (" in row]
    assert len(rows) > 20
    for row, (told, *_) in rows:
        ranges = told.split("; ")
        effects = EFFECT.findall(row)[-len(ranges) :]  # where several losses stand in a row, the verdict is on the last
        for text, effect in zip(ranges, effects, strict=True):
            words = {needed.replace(" new seeds", "").replace(" new seed", "") for needed in known()[effect]}
            assert text in words, row


def test_the_committed_verdicts_are_those_of_the_tables():
    application = typer.Typer()
    register(application)
    written = [(path, options) for command, path, options in commands() if command == "verdicts"]
    assert len(written) >= 3
    for path, options in written:
        told = CliRunner().invoke(application, ["verdicts", str(path), *options])
        assert told.stdout == path.with_name(f"{path.stem}-verdicts.txt").read_text(encoding="utf-8")


def test_the_curves_of_one_seed_are_those_of_the_nano_table():
    """One seed has no interval, so that its losses stand in the page as they are: both figures, all sizes."""
    table = read_table(REFERENCE / "nano.parquet")
    assert table["seed"].unique().to_list() == [0]
    assert len(table) == 30
    rows = CURVE.findall((ROOT / "docs/findings.md").read_text(encoding="utf-8"))
    assert {row[:3] for row in rows} >= {(f, n, x) for f in ("3a", "3b") for n in NANO_SIZES for x in ("L_im", "L_ret")}
    for figure, thousands, loss, cells in rows:
        chains = table.filter(arm=f"fig{figure}", post_tokens=int(thousands) * 1000).sort("exposure_fraction")
        assert chains["exposure_fraction"].to_list() == EXPOSURE
        assert [f"{value:.3f}" for value in chains[loss]] == cells.replace("|", " ").split()
