"""The commands that read a run folder: results, report, verdicts, compare."""

import json
import sys
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from indelible.analysis.arms import plural, value_text, word
from indelible.analysis.claims import paper_verdicts, study_verdicts
from indelible.analysis.compare import Comparison
from indelible.analysis.contrasts import Contrast, contrasts, gains, where
from indelible.analysis.join import read_tables
from indelible.analysis.paper import CITATION
from indelible.analysis.runs import read_study_run
from indelible.analysis.summary import summary_text
from indelible.analysis.table import table_bytes, write_table
from indelible.analysis.verdicts import CONTRADICTED, NOT_TESTED, SUPPORTED, Verdict
from indelible.errors import UserError
from indelible.files import write_text
from indelible.report.contents import report_contents, table_contents
from indelible.report.export import write_figures
from indelible.report.page import report_html

_TABLE = (
    "The folder that `indelible run --out` wrote, or a results table as `indelible results` writes it. "
    "Several are joined: parts of one study, wherever they were run."
)
_Tables = Annotated[list[Path], typer.Argument(metavar="DIR|TABLE...", help=_TABLE)]

_COLORS = {SUPPORTED: typer.colors.GREEN, CONTRADICTED: typer.colors.RED}


def register(app: typer.Typer) -> None:
    """Adds the commands to the application."""
    app.command("results")(results)
    app.command("report")(report)
    app.command("verdicts")(verdicts)
    app.command("compare")(compare)


def results(
    places: _Tables,
    format_name: Annotated[str, typer.Option("--format", help="csv, json or parquet.")] = "csv",
    output: Annotated[
        Path | None,
        typer.Option("-o", "--output", help="File; parquet of one folder goes to DIR/results.parquet."),
    ] = None,
    is_summary: Annotated[bool, typer.Option("--summary", help="Print mean and spread over seeds by arm.")] = False,
) -> None:
    """Prints or writes the results table: one row a chain, losses in nats per token."""
    table = read_tables(places)
    if is_summary:
        typer.echo(summary_text(table))
        return
    if output is None and format_name == "parquet":
        if len(places) > 1 or places[0].is_file():
            raise UserError("results --format parquet: of tables or several folders it needs a file to write, -o FILE.")
        output = places[0] / "results.parquet"
    if output is None:
        sys.stdout.write(table_bytes(table, format_name).decode())
        return
    write_table(table, output, format_name)
    typer.echo(f"{output}: {table.height} chains")


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
    path = output or _report_path(places)
    is_folder = len(places) == 1 and not places[0].is_file()
    contents = report_contents(read_study_run(places[0])) if is_folder else table_contents(read_tables(places))
    write_text(path, report_html(contents))
    typer.echo(f"{path}: {path.stat().st_size / 1e6:.1f} MB")
    if figures is not None:
        written = write_figures(list(contents.figures.values()), figures)
        typer.echo(f"{figures}: {len(written)} files, {len(contents.figures)} charts")


def _report_path(places: list[Path]) -> Path:
    if len(places) > 1:
        raise UserError("report: of several places it needs a file to write, -o FILE.")
    return places[0].with_suffix(".html") if places[0].is_file() else places[0] / "report.html"


def verdicts(
    places: Annotated[list[Path] | None, typer.Argument(metavar="[DIR|TABLE]...", help=_TABLE)] = None,
    is_paper: Annotated[bool, typer.Option("--paper", help="Judge the paper's own values instead.")] = False,
    is_json: Annotated[bool, typer.Option("--json", help="Print JSON, with every run id.")] = False,
    is_family_wise: Annotated[
        bool, typer.Option("--family-wise", help="Holm over all findings: 5 % risk for all together.")
    ] = False,
) -> None:
    """Says of each claim of the paper: supported, contradicted, inconclusive or not tested."""
    if (not places) != is_paper:
        raise UserError("verdicts: give either the folder of a study run or --paper, and not both.")
    if is_paper and is_family_wise:
        raise UserError("verdicts --paper --family-wise: the paper has one seed, so there is no p value to adjust.")
    found = study_verdicts(read_tables(places), is_family_wise=is_family_wise) if places else paper_verdicts()
    if is_json:
        typer.echo(json.dumps([_flat(one) for one in found], indent=1, ensure_ascii=False, allow_nan=False))
        return
    for line in _verdict_lines(found):
        typer.echo(line)
    typer.echo(_footnote(is_paper=is_paper, is_family_wise=is_family_wise))


def _flat(verdict: Verdict) -> dict[str, object]:
    found = asdict(verdict.finding)
    return {"claim": verdict.claim, "source": verdict.source, "text": verdict.text, **found}


def _verdict_lines(found: list[Verdict]) -> Iterator[str]:
    """A heading for each claim that was tested, one line for each scope, and the untested claims in one line."""
    tested = [one for one in found if one.finding.verdict != NOT_TESTED]
    for claim in dict.fromkeys(one.claim for one in tested):
        group = [one for one in tested if one.claim == claim]
        yield f"{typer.style(claim, bold=True)} ({group[0].source}): {group[0].text}"
        for verdict in group:
            one = verdict.finding
            label = typer.style(f"{one.verdict:12}", fg=_COLORS.get(one.verdict))
            interval = None if one.low is None or one.high is None else (one.low, one.high)
            effect = "" if one.effect is None else f"  {_effect_text(one.effect, interval, one.detectable)}"
            yield f"  {label} {one.scope}{effect}, {_seeds_text(one.num_seeds, one.num_same_sign, one.seeds_to_tell)}"
        yield ""
    untested = list(dict.fromkeys(one.claim for one in found if one.finding.verdict == NOT_TESTED))
    if untested:
        yield f"not tested, for want of arms: {', '.join(untested)}"


def _effect_text(effect: float, interval: tuple[float, float] | None, detectable: float | None) -> str:
    between = "" if interval is None else f" [{interval[0]:+.4f}, {interval[1]:+.4f}]"
    return f"{effect:+.4f}{between}" + ("" if detectable is None else f", detectable {detectable:.4f}")


def _seeds_text(num_seeds: int, num_same_sign: int, to_tell: int | None) -> str:
    same_sign = f" ({num_same_sign} of one sign)" if num_seeds > 1 else ""
    return f"n={num_seeds}{same_sign}" + ("" if to_tell is None else f", about {to_tell} would tell")


def _footnote(*, is_paper: bool, is_family_wise: bool) -> str:
    if is_paper:
        return f"Read at face value: one seed, no error bars. {CITATION}."
    risk = "5 % risk over all findings together (Holm)" if is_family_wise else "5 % risk for each finding by itself"
    return (
        "Effects in nats per token, paired over seeds (n), with 95 % intervals: the wider of bootstrap and t interval. "
        f"A direction is named when zero is outside and the effect at least the detectable one (power 0.8); {risk}. "
        '"About N would tell": the seeds that it takes if effect and spread are as found, themselves uncertain. '
        "The runs behind each: --json."
    )


def compare(
    places: _Tables,
    by: Annotated[str, typer.Option(help="The setting whose values are compared, e.g. placement; a column's name.")],
    against: Annotated[str | None, typer.Option(help="The value to compare with; default: the first.")] = None,
    within: Annotated[list[str] | None, typer.Option(help="Compare for each value of this setting by itself.")] = None,
    conditions: Annotated[
        list[str] | None,
        typer.Option("--where", metavar="SETTING=VALUE", help="Only such chains; of one setting several: any of them."),
    ] = None,
    is_gain: Annotated[
        bool, typer.Option("--gain", help="Compare what exposure changes (against lambda 0) instead of the losses.")
    ] = False,
    is_json: Annotated[bool, typer.Option("--json", help="Print JSON, with every run id.")] = False,
) -> None:
    """What a setting does to the losses: its values against each other at equal other settings, paired over seeds."""
    table = where(read_tables(places), conditions or ())
    found = contrasts(gains(table) if is_gain else table, by, against, within or ())
    if is_json:
        typer.echo(json.dumps([asdict(one) for one in found], indent=1, ensure_ascii=False, allow_nan=False))
        return
    for one in found:
        for line in _contrast_lines(one, by, "change of " if is_gain else ""):
            typer.echo(line)
    typer.echo(_footnote(is_paper=False, is_family_wise=False))


def _contrast_lines(one: Contrast, by: str, prefix: str) -> Iterator[str]:
    """A heading and a line for each loss."""
    place = "".join(f"{word(name)} {value_text(name, value)}: " for name, value in one.within.items())
    also = f", which differ also in {', '.join(map(word, one.also))}" if one.also else ""
    heading = f"{place}{word(by)} {value_text(by, one.value)} against {value_text(by, one.against)}"
    yield f"{typer.style(heading, bold=True)}{also}"
    for loss, found in one.losses.items():
        yield f"  {prefix}{loss:6}{_comparison_text(found)}"
    yield ""


def _comparison_text(found: Comparison) -> str:
    result = found.result
    if result.effect is None:
        return "no finished pair at equal settings"
    effect = _effect_text(result.effect, result.interval, result.detectable)
    seeds = _seeds_text(result.n, result.num_same_sign, result.seeds_to_tell())
    return f"{effect}, {seeds}, {plural(found.num_blocks, 'setting')}: {result.conclusion()}"
