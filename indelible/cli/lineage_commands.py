"""`show` and `diff`: one stage run, and in what two of them differ."""

import json
from pathlib import Path
from typing import Annotated

import typer

from indelible.cli.options import JsonOption
from indelible.cli.terminal import console
from indelible.errors import UserError

RunArgument = Annotated[
    Path, typer.Argument(help="Folder of a stage run, or DIR/<beginning of its id>; with --arm the study folder.")
]
ArmOption = Annotated[
    list[str] | None,
    typer.Option("--arm", help="Of the chains with this number, arm name or column=value; may be repeated."),
]
StageOption = Annotated[str | None, typer.Option("--stage", help="With --arm: which stage; default: the last.")]


def show(run: RunArgument, arm: ArmOption = None, stage: StageOption = None, as_json: JsonOption = False) -> None:
    """Show a stage run: where it comes from, its settings, losses, timings and attempts."""
    from indelible.console import lineage
    from indelible.console.selection import chosen_run

    run_dir = chosen_run(run, arm or [], stage) if arm or stage else lineage.find_run(run)
    if as_json:
        print(json.dumps(lineage.describe(run_dir), indent=1))
    else:
        console().print(lineage.render(run_dir), highlight=False)


def diff(
    run_a: RunArgument,
    run_b: Annotated[Path | None, typer.Argument(help="The other stage run; none with --arm.")] = None,
    arm: ArmOption = None,
    stage: StageOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show the fields in which two stage runs differ. With --arm, a column that is given twice tells them apart."""
    from indelible.console import lineage
    from indelible.console.selection import chosen_pair

    if run_b is None and not (arm or stage):
        raise UserError("diff: give two stage runs, or the study folder and --arm, e.g. --arm seed=0 --arm seed=1.")
    if run_b is not None and (arm or stage):
        raise UserError("diff: give either two stage runs, or the study folder and --arm.")
    pair = chosen_pair(run_a, arm or [], stage) if run_b is None else (lineage.find_run(run_a), lineage.find_run(run_b))
    if as_json:
        fields = lineage.differences(*pair)
        print(
            json.dumps(
                {"runs": [one.name for one in pair], "same": lineage.sameness(*pair), "fields": fields}, indent=1
            )
        )
    else:
        console().print(lineage.render_differences(*pair), highlight=False)


def register(app: typer.Typer) -> None:
    """Adds these commands to the application."""
    for command in (show, diff):
        app.command()(command)
