"""Verdicts and comparisons as lines for a terminal."""

from collections.abc import Iterator

import typer

from indelible.claims.by_exposure import answer, cells, place_text
from indelible.claims.evidence import CONTRADICTED, MIXED_READING, NOT_TESTED, SUPPORTED
from indelible.claims.verdicts import Verdict
from indelible.claims.wording import comparison_text, documents_text, numbers_text
from indelible.results.labels import value_text, word
from indelible.statistics.by_document import DocumentComparison
from indelible.statistics.by_exposure import ExposureBlock
from indelible.statistics.contrasts import Contrast

_COLORS = {SUPPORTED: typer.colors.GREEN, CONTRADICTED: typer.colors.RED}


def verdict_lines(found: list[Verdict]) -> Iterator[str]:
    """A heading for each claim that was tested, one line for each scope, and the untested claims in one line."""
    tested = [one for one in found if one.finding.verdict != NOT_TESTED]
    for claim in dict.fromkeys(one.claim for one in tested):
        group = [one for one in tested if one.claim == claim]
        yield f"{typer.style(claim, bold=True)} ({group[0].source}): {group[0].text}"
        for verdict in group:
            one = verdict.finding
            label = typer.style(f"{one.verdict:12}", fg=_COLORS.get(one.verdict))
            why = f": {one.reason}" if one.verdict == MIXED_READING else ""
            yield f"  {label} {one.scope}  {numbers_text(one)}{why}"
        yield ""
    untested = list(dict.fromkeys(one.claim for one in found if one.finding.verdict == NOT_TESTED))
    if untested:
        yield f"not tested, for want of arms: {', '.join(untested)}"


def contrast_lines(one: Contrast, by: str, prefix: str) -> Iterator[str]:
    """A heading and a line for each loss."""
    place = "".join(f"{word(name)} {value_text(name, value)}: " for name, value in one.within.items())
    also = f", which differ also in {', '.join(map(word, one.also))}" if one.also else ""
    heading = f"{place}{word(by)} {value_text(by, one.value)} against {value_text(by, one.against)}"
    yield f"{typer.style(heading, bold=True)}{also}"
    width = max(6, *(len(loss) + 1 for loss in one.losses))
    for loss, found in one.losses.items():
        yield f"  {prefix}{loss:{width}}{comparison_text(found)}"
    yield ""


def exposure_lines(block: ExposureBlock) -> Iterator[str]:
    """What to do, and a table of all lambdas."""
    yield typer.style(place_text(block), bold=True)
    yield f"  {answer(block)}"
    rows = cells(block)
    widths = {name: max(len(name), *(len(row[name]) for row in rows)) for name in rows[0]}
    for row in ({name: name for name in widths}, *rows):
        yield "  " + "  ".join(row[name].rjust(width) for name, width in widths.items())
    yield ""


def document_lines(corpus: str, found: DocumentComparison) -> Iterator[str]:
    """A line for a corpus, and one with the documents that got worst."""
    yield f"  {corpus}: {documents_text(found)}"
    if found.worst:
        worst = ", ".join(f"{one.document} ({one.tokens:,} tokens, {one.difference:+.4f})" for one in found.worst)
        yield f"    worst documents: {worst}"
