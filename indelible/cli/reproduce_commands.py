"""`reproduce`: plan, run, report and verdicts of one of the paper's figures in one go."""

from pathlib import Path
from typing import Annotated

import typer

from indelible.cli import analysis_commands, run_commands
from indelible.errors import UserError
from indelible.study.grid import load_scale
from indelible.study.load import shipped_studies


def reproduce(
    figure: Annotated[str, typer.Argument(help="A shipped study, e.g. fig3a.", metavar="FIGURE")],
    scale: Annotated[str, typer.Option(help="pico, nano, 135m or 1b.")] = "pico",
    seeds: Annotated[int, typer.Option(help="Number of seeds.", min=1)] = 3,
    out: Annotated[Path | None, typer.Option(help="Folder of the study run; default runs/FIGURE-SCALE.")] = None,
    workers: Annotated[int | None, typer.Option(help="Worker processes.")] = None,
    executor: Annotated[str, typer.Option(help="local or slurm.")] = "local",
    overrides: Annotated[list[str] | None, typer.Option("--set", help="Override a field.")] = None,
) -> None:
    """Run a figure of the paper at a scale, write its report and print its verdicts."""
    if figure not in shipped_studies():
        raise UserError(f"{figure!r} is not a shipped study; they are {', '.join(shipped_studies())}.")
    load_scale(scale)  # refuses an unknown scale before anything is made
    folder = out or Path("runs") / f"{figure}-{scale}"
    settings = [f"scale={scale}", f"seeds={list(range(seeds))}", *(overrides or [])]
    code = 0
    try:
        run_commands.run(figure, folder, workers=workers, executor=executor, overrides=settings)
    except typer.Exit as done:
        code = done.exit_code
    analysis_commands.report([folder])
    analysis_commands.verdicts([folder])
    raise typer.Exit(code)


def register(app: typer.Typer) -> None:
    """Adds this command to the application."""
    app.command()(reproduce)
