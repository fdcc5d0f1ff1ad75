"""`run`, `status`, `show`, `diff`, `gc`: thin, they parse, call and print."""

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from indelible.lab import failures, garbage, lease, lineage, runner, runs, watch

RunArgument = Annotated[Path, typer.Argument(help="Folder of a stage run, or DIR/<beginning of its id>.")]
JsonOption = Annotated[bool, typer.Option("--json", help="For machines.")]


def run(
    study: Annotated[str, typer.Argument(help="A study file, or the name of a shipped study.", metavar="STUDY")],
    out: Annotated[Path, typer.Option(help="Folder of the study run.")],
    workers: Annotated[
        int | None, typer.Option(help="Worker processes; by default as many as the machine carries.")
    ] = None,
    executor: Annotated[str, typer.Option(help="local or slurm.")] = "local",
    overrides: Annotated[
        list[str] | None, typer.Option("--set", help="Override a field, e.g. finetune.lr=1e-4.")
    ] = None,
    attempts: Annotated[int, typer.Option(help="Attempts in a row a run may lose to the infrastructure.")] = (
        failures.MAX_ATTEMPTS
    ),
    lease_seconds: Annotated[float, typer.Option(help="Patience with a silent worker on another host, seconds.")] = (
        lease.LEASE_SECONDS
    ),
) -> None:
    """Run a study; the same command continues after anything that stopped it."""
    from indelible.cli.study_commands import write_plan

    write_plan(study, overrides or [], out, {} if workers is None else {"workers": workers})
    code = runner.run_plan(out, workers, executor, max_attempts=attempts, lease_seconds=lease_seconds)
    raise typer.Exit(code)


def status(
    directory: Annotated[Path, typer.Argument(help="Folder of a study run.", metavar="DIR")],
    as_json: JsonOption = False,
) -> None:
    """Show what a study run is doing, from its files."""
    snapshot = runner.snapshot_of(directory)
    if as_json:
        print(json.dumps(snapshot.as_json(), indent=1))
    else:
        console = Console()
        console.print(watch.render(snapshot, width=console.width), highlight=False)


def show(run: RunArgument, as_json: JsonOption = False) -> None:
    """Show a stage run: where it comes from, its settings, losses, timings and attempts."""
    run_dir = lineage.find_run(run)
    if as_json:
        print(json.dumps(lineage.describe(run_dir), indent=1))
    else:
        Console().print(lineage.render(run_dir), highlight=False)


def diff(run_a: RunArgument, run_b: RunArgument, as_json: JsonOption = False) -> None:
    """Show the fields in which two stage runs differ."""
    first, second = lineage.find_run(run_a), lineage.find_run(run_b)
    if as_json:
        print(json.dumps({"runs": [first.name, second.name], "fields": lineage.differences(first, second)}, indent=1))
    else:
        Console().print(lineage.render_differences(first, second), highlight=False)


def gc(
    directory: Annotated[Path, typer.Argument(help="Folder of a study run.", metavar="DIR")],
    yes: Annotated[bool, typer.Option("--yes", help="Remove it; without this nothing is touched.")] = False,
    as_json: JsonOption = False,
) -> None:
    """List, and with --yes remove, what the current plan of a study folder does not need."""
    found = garbage.find_garbage(runs.load_plan(directory))
    if as_json:
        items = [{"path": str(i.path.relative_to(directory)), "why": i.why, "bytes": i.size} for i in found]
        print(json.dumps({"found": items, "removed_bytes": garbage.remove(found) if yes else 0}, indent=1))
        return
    for item in found:
        print(f"{item.size / 1e6:10.3f} MB  {item.path.relative_to(directory)}  ({item.why})")
    if yes:
        print(f"Removed {garbage.remove(found) / 1e6:.3f} MB.")
    else:
        print(f"{sum(item.size for item in found) / 1e6:.3f} MB can go; `indelible gc {directory} --yes` removes it.")


def register(app: typer.Typer) -> None:
    """Adds these commands to the application."""
    for command in (run, status, show, diff, gc):
        app.command()(command)
