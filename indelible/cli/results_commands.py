"""The commands that read what a study has left: results, report, verdicts, bundle."""

import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from indelible.cli.options import TABLE_HELP, TablesArgument
from indelible.cli.terminal import counted
from indelible.errors import UserError

if TYPE_CHECKING:
    import polars as pl

    from indelible.claims.verdicts import Verdict
    from indelible.report.export import PaperStyle
    from indelible.report.next_steps import NextStep
    from indelible.statistics.inference import Inference
    from indelible.workflow.reporting import WrittenReport


def register(app: typer.Typer) -> None:
    """Adds the commands to the application."""
    for command in (results, report, verdicts, bundle):
        app.command()(command)


def results(
    places: TablesArgument,
    format_name: Annotated[
        str | None, typer.Option("--format", help="csv, json or parquet; default: by the file's ending, else csv.")
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option("-o", "--output", help="File; parquet of one folder goes to DIR/results.parquet."),
    ] = None,
    is_summary: Annotated[bool, typer.Option("--summary", help="Print mean and spread over seeds by arm.")] = False,
    has_losses: Annotated[
        bool, typer.Option("--losses", help="The long table: a row for each checkpoint of a chain and each corpus.")
    ] = False,
    has_curves: Annotated[
        bool, typer.Option("--curves", help="The long table of curves: a row for each step of a stage run.")
    ] = False,
) -> None:
    """Prints or writes the results table: one row a chain, losses in nats per token."""
    from indelible.results.summary import summary_text
    from indelible.workflow.reading import open_runs

    if is_summary + has_losses + has_curves > 1:
        raise UserError("results: --summary, --losses and --curves are three tables; ask for one at a time.")
    runs = open_runs(*places)
    if is_summary:
        if output is not None or format_name is not None:
            raise UserError("results --summary: a text for people; it takes neither --format nor -o.")
        typer.echo(summary_text(runs.results()))
        print_next(runs.next_steps())
        return
    name = "losses" if has_losses else "curves" if has_curves else "results"
    table = getattr(runs, name)()
    _write_or_print(table, name, places, format_name, output)


def _write_or_print(
    table: "pl.DataFrame", name: str, places: Sequence[Path], format_name: str | None, output: Path | None
) -> None:
    from indelible.results.table import FORMATS, refuse_input, table_bytes, write_table

    ending = output.suffix.lstrip(".") if output is not None else ""
    if output is not None and format_name is None and ending not in FORMATS:
        raise UserError(f"-o {output}: the ending says no format; end it in .{', .'.join(FORMATS)}, or say --format.")
    if format_name is not None and ending in FORMATS and ending != format_name:
        raise UserError(f"-o {output}: ends in .{ending}, and --format says {format_name}; make them agree.")
    chosen = format_name or ending or "csv"
    if output is None and chosen == "parquet":
        if len(places) > 1 or places[0].is_file():
            raise UserError("results --format parquet: of tables or several folders it needs a file to write, -o FILE.")
        output = places[0] / f"{name}.parquet"
    if output is None:
        sys.stdout.write(table_bytes(table, chosen).decode())
        return
    refuse_input(output, places)
    write_table(table, output, chosen)
    typer.echo(f"{output}: {counted(table.height, 'chain' if name == 'results' else 'row')}")


def report(
    places: TablesArgument,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="Default: DIR/report.html; of a table: beside it.")
    ] = None,
    figures: Annotated[
        Path | None, typer.Option(help="Folder for each chart as PDF, SVG, PNG and its data as CSV.")
    ] = None,
    figure: Annotated[
        list[str] | None, typer.Option(help="With --figures: only this chart, e.g. retention; may be repeated.")
    ] = None,
    width: Annotated[
        int | None, typer.Option(help="With --figures: points, e.g. 240 for one of two columns; default: the page's.")
    ] = None,
    is_own: Annotated[
        bool, typer.Option("--no-paper", help="With --figures: without the panels of the paper's own values.")
    ] = False,
) -> None:
    """Writes the report: one HTML file with verdicts, linked charts, cost and methods.

    Of a run folder it has everything; tables, and several places joined, have no curves, ledgers and specifications.
    """
    from indelible.workflow.reading import open_runs
    from indelible.workflow.reporting import write_report

    if figures is None and (figure or width is not None or is_own):
        raise UserError("report: --figure, --width and --no-paper go with --figures DIR.")
    written = write_report(open_runs(*places), output, figures, _style(figure, width, has_paper=not is_own))
    print_report(written, figures)
    print_next(written.steps)


def _style(names: list[str] | None, width: int | None, *, has_paper: bool) -> "PaperStyle | None":
    if not names and width is None and has_paper:
        return None
    from indelible.report.export import PaperStyle

    return PaperStyle(tuple(names or ()), width, has_paper)


def print_next(steps: "Sequence[NextStep]") -> None:
    """Says what to run next and what it costs, below what was asked for."""
    typer.echo()
    for step in steps:
        command = f"\n      {step.command}" if step.command else ""
        typer.echo(f"{typer.style('Next', bold=True)}  {step.text}{command}")


def bundle(
    directory: Annotated[Path, typer.Argument(help="Folder of a study run.", metavar="DIR")],
    output: Annotated[Path | None, typer.Option("-o", "--output", help="Default: DIR/bundle.zip.")] = None,
    no_curves: Annotated[
        bool, typer.Option("--no-curves", help="Leave the curves inside stage runs out: most of the size.")
    ] = False,
) -> None:
    """Packs tables, page, plan, study file, versions and verdicts into one file for others; no weights, no text.

    `report`, `results`, `verdicts`, `compare` and `seeds` read it like the folder.
    """
    from indelible.workflow.bundling import write_bundle
    from indelible.workflow.reading import open_runs

    written = write_bundle(open_runs(directory), output, has_curves=not no_curves)
    size = written.path.stat().st_size / 1e6
    typer.echo(
        f"{written.path}: {size:.1f} MB, {counted(written.num_chains, 'chain')}, {counted(written.num_files, 'file')}"
    )


def print_report(written: "WrittenReport", figures: Path | None = None) -> None:
    """Says what was written."""
    typer.echo(f"{written.path}: {written.path.stat().st_size / 1e6:.1f} MB")
    if figures is not None:
        typer.echo(f"{figures}: {len(written.figures)} files, {written.num_charts} charts")


def verdicts(
    places: Annotated[list[Path] | None, typer.Argument(metavar="[DIR|TABLE]...", help=TABLE_HELP)] = None,
    is_paper: Annotated[bool, typer.Option("--paper", help="Judge the paper's own values instead.")] = False,
    is_json: Annotated[bool, typer.Option("--json", help="Print JSON, with every run id.")] = False,
    is_uncorrected: Annotated[
        bool, typer.Option("--uncorrected", help="Each finding at the stated level; default: Holm within a claim.")
    ] = False,
) -> None:
    """Says of each claim of the paper: supported, contradicted, inconclusive or not tested."""
    from indelible.claims.looks import looks_text
    from indelible.claims.paper_claims import paper_verdicts
    from indelible.claims.stage_seeds_text import stage_seeds_text
    from indelible.workflow.reading import open_runs

    if (not places) != is_paper:
        raise UserError("verdicts: give either the folder of a study run or --paper, and not both.")
    if is_paper and is_uncorrected:
        raise UserError("verdicts --paper --uncorrected: the paper has one seed, so there is no p value to correct.")
    runs = open_runs(*places) if places else None
    found = paper_verdicts() if runs is None else runs.verdicts(corrected=not is_uncorrected)
    if is_json:
        typer.echo(json.dumps([one.as_json() for one in found], indent=1, allow_nan=False))
        return
    print_verdicts(found, None if runs is None else runs.inference, is_corrected=not is_uncorrected)
    if runs is not None and (looks := runs.looks()):
        typer.echo(looks_text(looks))
    if runs is not None and (note := stage_seeds_text(runs.results(), runs.inference)):
        typer.echo(note)


def print_verdicts(found: "list[Verdict]", inference: "Inference | None", *, is_corrected: bool = True) -> None:
    """Prints verdicts by claim, with a note on how to read them; ``inference`` is None for the paper's own values."""
    from indelible.claims.paper_figures import CITATION
    from indelible.claims.wording import verdicts_footnote
    from indelible.cli.findings_text import verdict_lines

    for line in verdict_lines(found):
        typer.echo(line)
    if inference is None:
        typer.echo(f"Read at face value: one seed, no error bars; frontiers as they are drawn. {CITATION}.")
    else:
        typer.echo(verdicts_footnote(inference, is_corrected=is_corrected))


def _flat(verdict: "Verdict") -> dict[str, object]:
    found = asdict(verdict.finding)
    return {"claim": verdict.claim, "source": verdict.source, "text": verdict.text, **found}
