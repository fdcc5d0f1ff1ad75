"""`ledger` and `studies`."""

import json
from pathlib import Path
from typing import Annotated

import typer

from indelible.cli.options import ArmOption, JsonOption, SetOption, StudyArgument
from indelible.cli.terminal import console
from indelible.errors import UserError


def ledger(
    study: StudyArgument,
    out: Annotated[
        Path | None, typer.Option(help="Folder of the study run; default: one in the cache. Missing tokens are made.")
    ] = None,
    overrides: SetOption = None,
    arm: ArmOption = None,
    parquet: Annotated[Path | None, typer.Option(help="Folder for the raw ledgers; default: OUT/ledgers.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Show which tokens each stage sees: asked against realised, nesting, disjointness; write the raw ledgers."""
    from indelible.cli.token_bars import token_bars
    from indelible.console.ledger_view import print_audit
    from indelible.study.load import load_study
    from indelible.workflow.ledgers import audit_ledgers

    screen = console() if console().is_terminal else console(width=132)
    with token_bars(console(quiet=as_json)) as report:  # a machine wants nothing but its JSON on standard output
        found = audit_ledgers(load_study(study, overrides), out, arm or [], parquet, report=report)
    if as_json:
        print(json.dumps({**found.audit.as_json(), "notes": found.notes, "parquet": str(found.folder)}, indent=1))
    else:
        print_audit(found.audit, screen)
        for note in found.notes:
            screen.print(f"Note: {note}", highlight=False, soft_wrap=True)
        print(f"raw ledgers, one Parquet file a stage run: {found.folder}")
    if not found.audit.holds:
        raise typer.Exit(1)


studies_app = typer.Typer(help="The studies that come with indelible.", no_args_is_help=True)


@studies_app.command("list")
def studies_list(as_json: JsonOption = False) -> None:
    """List the shipped studies."""
    from indelible.study.load import read_study_file, shipped_studies

    entries = [(name, read_study_file(name).get("description", "")) for name in shipped_studies()]
    if as_json:
        print(json.dumps([{"name": name, "description": description} for name, description in entries], indent=1))
        return
    for name, description in entries:
        print(f"{name:22} {description}")


@studies_app.command("show")
def studies_show(name: Annotated[str, typer.Argument(help="Name of a shipped study.")]) -> None:
    """Print the YAML of a shipped study."""
    from indelible.study.load import shipped_studies

    found = shipped_studies()
    if name not in found:
        raise UserError(f"{name!r} is not a shipped study; they are {', '.join(found)}.")
    print(found[name].read_text(encoding="utf-8"), end="")


def register(app: typer.Typer) -> None:
    """Adds these commands to the application."""
    app.command()(ledger)
    app.add_typer(studies_app, name="studies")
