"""`export`: a checkpoint of a study as a folder for transformers or peft, and to the hub when that is asked for."""

from pathlib import Path
from typing import Annotated

import typer

from indelible.errors import UserError

DTYPES = ("fp32", "bf16")


def register(app: typer.Typer) -> None:
    """Adds the command to the application."""
    app.command("export")(export)


def export(
    run: Annotated[Path, typer.Argument(help="Folder of a stage run, or DIR/<beginning of its id>.", metavar="RUN")],
    to: Annotated[Path, typer.Option("--to", help="Folder to be made.", metavar="DIR")],
    dtype: Annotated[str, typer.Option(help="fp32, or bf16: half the size, rounded.")] = "fp32",
    adapters: Annotated[
        bool, typer.Option("--adapters", help="Only the adapters of a LoRA stage with merge: false, for peft.")
    ] = False,
    push: Annotated[
        str | None, typer.Option(help="Also upload it to this repository of the hub (private if new).", metavar="REPO")
    ] = None,
) -> None:
    """Write a checkpoint with a model card that says where it comes from; with --push upload it."""
    from indelible.workflow.exporting import export_run, push_folder

    if dtype not in DTYPES:
        raise UserError(f"--dtype {dtype}: expected {' or '.join(DTYPES)}.")
    found = export_run(run, to, dtype=dtype, adapters=adapters)  # type: ignore[arg-type]
    size = sum(file.stat().st_size for file in to.rglob("*") if file.is_file())
    typer.echo(f"{to}: {'adapters' if adapters else 'checkpoint'} of {found.name}, {size / 1e6:,.1f} MB")
    if push is not None:
        typer.echo(push_folder(to, push))
