"""`indelible theory`: the two-layer linear network as one page and its tables."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from indelible.cli.terminal import console
from indelible.errors import UserError

if TYPE_CHECKING:
    from indelible.theory.overview import Survey
    from indelible.theory.tasks import TheorySpec


def register(app: typer.Typer) -> None:
    """Adds the command `theory` to the application."""
    app.command("theory")(theory)


def theory(
    out: Annotated[Path, typer.Option("-o", "--out", help="Folder for theory.html and the CSV tables.")] = Path(
        "theory"
    ),
    settings: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Change a field of the spec, e.g. alpha=0.5.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the checks and their numbers as JSON.")] = False,
) -> None:
    """Simulate the paper's linear network, check its theorems, and map where they stop holding (under a minute)."""
    from indelible.theory.overview import summary
    from indelible.theory.tasks import spec_from

    spec = spec_from(parsed_settings(settings or []))
    if out.exists() and not out.is_dir():
        raise UserError(f"-o {out}: a file is in the way; the theory writes several files, so name a folder.")
    result = _with_progress(spec)
    files = _write(result, out)
    if as_json:
        print(json.dumps({**summary(result), "files": [str(path) for path in files]}, allow_nan=False))
    else:
        _print_verdicts(result, files[0])


def parsed_settings(settings: list[str]) -> dict[str, str]:
    """`key=value` texts as a dictionary; a later value of a key replaces an earlier one.

    Raises:
        UserError: a text without an equals sign.
    """
    out = {}
    for text in settings:
        key, sign, value = text.partition("=")
        if not sign:
            raise UserError(f"--set {text}: no `=` found; write --set key=value, e.g. --set alpha=0.5.")
        out[key.strip()] = value.strip()
    return out


def _with_progress(spec: "TheorySpec") -> "Survey":
    """Runs the survey with a live bar on standard error."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    from indelible.theory.overview import PARTS, survey

    columns = (
        TextColumn("{task.description:<36}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=console(stderr=True), transient=True) as progress:
        bar = progress.add_task("", total=len(PARTS), completed=-1)

        def advance(part: str) -> None:
            progress.update(bar, description=part, advance=1)

        return survey(spec, advance)


def _write(result: "Survey", out: Path) -> list[Path]:
    """theory.html first, then the tables; each file is complete or absent."""
    from indelible.files import write_text
    from indelible.theory.html import render
    from indelible.theory.overview import csv_tables

    texts = {"theory.html": render(result), **csv_tables(result)}
    for name, text in texts.items():
        write_text(out / name, text)
    return [out / name for name in texts]


def _print_verdicts(result: "Survey", page: Path) -> None:
    """The verdicts as a table, and where the page is."""
    from rich.table import Table

    table = Table(title="The paper's theorems on the linear network", title_justify="left")
    for column in ("theorem", "this spec", "C.4 holds", "claim"):
        table.add_column(column)
    for check, other in zip(result.checks, result.repaired, strict=True):
        table.add_row(check.name, check.verdict, other.verdict, check.claim)
    screen = console()
    screen.print(table)
    a = result.agreement
    screen.print(
        f"Solvers: full matrices against recursion {a.full_relative:.1e} (relative), recursion against closed form "
        f"{a.flow_errors[0]:.1e} at lr and {a.flow_extrapolated:.1e} extrapolated to lr 0; maps against full matrices "
        f"{max(result.map_errors.alpha_beta, result.map_errors.times):.1e}, against the limit of small steps "
        f"{result.map_errors.allocation_limit:.1e}."
    )
    screen.print(f"Page: {page}", soft_wrap=True, highlight=False)
