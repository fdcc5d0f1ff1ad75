"""The commands that read what a study has left: results, report, verdicts, compare, bundle."""

import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from indelible.cli.options import ArmOption
from indelible.cli.terminal import counted
from indelible.errors import UserError

if TYPE_CHECKING:
    import polars as pl

    from indelible.claims.verdicts import Verdict
    from indelible.statistics.inference import Inference
    from indelible.workflow.reporting import WrittenReport

_TABLE = (
    "The folder that `indelible run --out` wrote, a bundle of it, or a results table as `indelible results` writes it. "
    "Several are joined: parts of one study, wherever they were run."
)
_Tables = Annotated[list[Path], typer.Argument(metavar="DIR|TABLE...", help=_TABLE)]


def register(app: typer.Typer) -> None:
    """Adds the commands to the application."""
    for command in (results, report, verdicts, compare, bundle):
        app.command()(command)


def results(
    places: _Tables,
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
    places: _Tables,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="Default: DIR/report.html; of a table: beside it.")
    ] = None,
    figures: Annotated[
        Path | None, typer.Option(help="Folder for each chart as PDF, SVG, PNG and its data as CSV.")
    ] = None,
) -> None:
    """Writes the report: one HTML file with verdicts, linked charts, cost and methods.

    Of a run folder it has everything; tables, and several places joined, have no curves, ledgers and specifications.
    """
    from indelible.workflow.reading import open_runs
    from indelible.workflow.reporting import write_report

    print_report(write_report(open_runs(*places), output, figures), figures)


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
    places: Annotated[list[Path] | None, typer.Argument(metavar="[DIR|TABLE]...", help=_TABLE)] = None,
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


def compare(
    places: _Tables,
    by: Annotated[
        str | None, typer.Option(help="The setting whose values are compared, e.g. placement; a column's name.")
    ] = None,
    by_document: Annotated[
        tuple[str, str] | None,
        typer.Option(metavar="RUN_A RUN_B", help="Two checkpoints, paired by held-out document; ids or beginnings."),
    ] = None,
    corpus: Annotated[str | None, typer.Option(help="With --by-document: only this corpus; default: all.")] = None,
    against: Annotated[str | None, typer.Option(help="The value to compare with; default: the first.")] = None,
    within: Annotated[list[str] | None, typer.Option(help="Compare for each value of this setting by itself.")] = None,
    conditions: Annotated[
        list[str] | None,
        typer.Option("--where", metavar="SETTING=VALUE", help="Only such chains; of one setting several: any of them."),
    ] = None,
    arm: ArmOption = None,
    is_gain: Annotated[
        bool, typer.Option("--gain", help="Compare what exposure changes (against lambda 0) instead of the losses.")
    ] = False,
    is_json: Annotated[bool, typer.Option("--json", help="Print JSON, with every run id.")] = False,
) -> None:
    """What a setting does to the losses, paired over seeds, or what differs between two checkpoints, by document.

    --by compares the values of a setting with each other at equal other settings. --by-document compares RUN_B with
    RUN_A on each held-out document.
    """
    if (by is None) == (by_document is None):
        raise UserError("compare: give either --by SETTING or --by-document RUN_A RUN_B, and not both.")
    if by_document is not None:
        if against or within or conditions or arm or is_gain:
            raise UserError(
                "compare --by-document: two checkpoints are named already; "
                "--against, --within, --where, --arm and --gain go with --by."
            )
        _compare_documents(places, by_document, corpus, is_json=is_json)
        return
    if corpus is not None:
        raise UserError(f"compare --corpus {corpus}: goes with --by-document; --by shows all losses.")
    assert by is not None
    from indelible.claims.wording import compare_footnote
    from indelible.cli.findings_text import contrast_lines
    from indelible.study.selection import OTHER_NAMES
    from indelible.workflow.reading import open_runs

    runs = open_runs(*places)
    found = runs.compare(by, against, within=within or [], where=conditions or [], arms=arm or [], gain=is_gain)
    if is_json:
        typer.echo(json.dumps([asdict(one) for one in found], indent=1, allow_nan=False))
        return
    shown = OTHER_NAMES.get(by, by)
    for one in found:
        for line in contrast_lines(one, shown, "change of " if is_gain else ""):
            typer.echo(line)
    typer.echo(compare_footnote(runs.inference, list(dict.fromkeys(loss for one in found for loss in one.losses))))


def _compare_documents(places: Sequence[Path], runs: tuple[str, str], corpus: str | None, *, is_json: bool) -> None:
    from indelible.claims.wording import documents_footnote
    from indelible.cli.findings_text import document_lines
    from indelible.workflow.reading import open_runs

    opened = open_runs(*places)
    found = opened.compare_documents(*runs, corpus)
    if is_json:
        typer.echo(json.dumps([asdict(one) for one in found], indent=1, allow_nan=False))
        return
    typer.echo(typer.style(f"{found[0].run_b} against {found[0].run_a}", bold=True))
    for one in found:
        for line in document_lines(one.corpus, one.found):
            typer.echo(line)
    typer.echo(documents_footnote(opened.inference))
