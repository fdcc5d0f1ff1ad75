"""Arguments and options that several commands share."""

from pathlib import Path
from typing import Annotated

import typer

StudyArgument = Annotated[str, typer.Argument(help="A study file, or the name of a shipped study.", metavar="STUDY")]
SetOption = Annotated[list[str] | None, typer.Option("--set", help="Override a field, e.g. finetune.lr=1e-4.")]
JsonOption = Annotated[bool, typer.Option("--json", help="For machines.")]
WorkersOption = Annotated[
    int | None, typer.Option(help="Worker processes; by default those of the study, or as many as the machine carries.")
]
ExecutorOption = Annotated[str, typer.Option(help="local or slurm.")]
ForceOption = Annotated[
    bool, typer.Option("--force", help="Take a folder that holds another study; its runs and its plan are kept.")
]
ArmOption = Annotated[
    list[str] | None,
    typer.Option("--arm", help="Only chains with this number, arm name or column=value, e.g. seed=0; may be repeated."),
]
TABLE_HELP = (
    "The folder that `indelible run --out` wrote, a bundle of it, or a results table as `indelible results` writes it. "
    "Several are joined: parts of one study, wherever they were run."
)
TablesArgument = Annotated[list[Path], typer.Argument(metavar="DIR|TABLE...", help=TABLE_HELP)]
