"""Writes the report of a study run, and its charts as files."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from indelible.errors import UserError

if TYPE_CHECKING:
    from indelible.report.export import PaperStyle
    from indelible.report.next_steps import NextStep
    from indelible.workflow.reading import StudyRuns


@dataclass(frozen=True)
class WrittenReport:
    """What `write_report` has written."""

    path: Path  # the page
    figures: tuple[Path, ...] = ()  # files of the charts
    num_charts: int = 0
    steps: "tuple[NextStep, ...]" = ()  # what to run next


def write_report(
    runs: "StudyRuns",
    path: str | Path | None = None,
    figures: str | Path | None = None,
    style: "PaperStyle | None" = None,
) -> WrittenReport:
    """Writes the report, and its charts as files where a folder for them is given; see `StudyRuns.report`.

    Raises:
        UserError: it would not be HTML by its name, or would take the place of what it is made of.
    """
    from indelible.files import write_text
    from indelible.report.contents import report_contents, table_contents
    from indelible.report.page import report_html
    from indelible.results.table import refuse_input

    target = _report_path(runs) if path is None else Path(path)
    if target.suffix.lower() not in (".html", ".htm"):
        raise UserError(f"report -o {target}: the report is HTML; end the file's name in .html.")
    refuse_input(target, runs.places)
    contents = report_contents(runs.read()) if runs.is_folder else table_contents(runs.results(), runs.places)
    write_text(target, report_html(contents))
    if figures is None:
        return WrittenReport(target, steps=tuple(contents.steps))
    from indelible.report.export import PaperStyle, write_figures

    chosen = style or PaperStyle()
    files = write_figures(list(contents.figures.values()), Path(figures), chosen)
    count = len(set(chosen.names)) or len(contents.figures)
    return WrittenReport(target, tuple(files), count, tuple(contents.steps))


def _report_path(runs: "StudyRuns") -> Path:
    if len(runs.places) > 1:
        raise UserError("report: of several places it needs a file to write, -o FILE.")
    place = runs.places[0]
    return place.with_suffix(".html") if place.is_file() else place / "report.html"
