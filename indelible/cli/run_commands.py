"""`run`, `reproduce`, `status` and `gc`."""

import json
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from indelible.cli.options import ExecutorOption, ForceOption, JsonOption, SetOption, StudyArgument, WorkersOption
from indelible.cli.terminal import console
from indelible.cli.track_commands import TrackOption, following
from indelible.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Callable

    from rich.console import Console

    from indelible.study.load import Study

DirectoryArgument = Annotated[Path, typer.Argument(help="Folder of a study run.", metavar="DIR")]


def run(
    study: StudyArgument,
    out: Annotated[Path, typer.Option(help="Folder of the study run.")],
    workers: WorkersOption = None,
    executor: ExecutorOption = "local",
    overrides: SetOption = None,
    force: ForceOption = False,
    attempts: Annotated[
        int | None, typer.Option(help="Attempts in a row a run may lose to the infrastructure; default 3.")
    ] = None,
    lease_seconds: Annotated[
        float | None, typer.Option(help="Patience with a silent worker on another host, seconds; default 60.")
    ] = None,
    until_settled: Annotated[
        str | None,
        typer.Option(
            metavar="CLAIM", help="Add seeds in blocks until this claim is supported, contradicted or futile."
        ),
    ] = None,
    max_seeds: Annotated[int | None, typer.Option(help="With --until-settled: the most seeds; default 24.")] = None,
    looks: Annotated[
        str | None, typer.Option(help="With --until-settled: seeds at which one looks; default 3,5,8,12,16,24.")
    ] = None,
    track: TrackOption = None,
    only_prepare: Annotated[
        bool,
        typer.Option("--only-prepare", help="Plan, checks and tokens; `indelible work` trains, here or elsewhere."),
    ] = False,
) -> None:
    """Run a study; the same command continues after anything that stopped it."""
    from indelible.study.load import load_study

    if only_prepare and (until_settled or track):
        raise UserError("--only-prepare trains nothing, so neither --until-settled nor --track goes with it.")
    loaded = load_study(study, overrides)

    def run_once(wanted: "Study") -> int:
        return _run(wanted, out, workers, executor, force, attempts, lease_seconds, track, is_launched=not only_prepare)

    if until_settled is None:
        if max_seeds is not None or looks is not None:
            raise UserError("--max-seeds and --looks go with --until-settled CLAIM.")
        raise typer.Exit(run_once(loaded))
    _settle(loaded, out, until_settled, run_once, max_seeds, looks)


def _settle(
    study: "Study",
    out: Path,
    claim: str,
    run_once: "Callable[[Study], int]",
    max_seeds: int | None,
    looks: str | None,
) -> None:
    """Adds seeds until the claim is settled; says after each look what it said, those of earlier calls first."""
    from indelible.claims.looks import look_text, read_looks
    from indelible.workflow.settling import MAX_SEEDS, planned_looks, settle

    try:
        numbers = [int(part) for part in looks.split(",")] if looks else None
    except ValueError:
        raise UserError(f"--looks {looks}: expected numbers of seeds with commas between them, e.g. 3,5,8.") from None

    def run_or_leave(wanted: "Study") -> None:
        if code := run_once(wanted):
            raise typer.Exit(code)

    planned = planned_looks(numbers, max_seeds if max_seeds is not None else max(numbers or [MAX_SEEDS]))
    past = [one for one in read_looks(out) if one.claim == claim and one.planned == planned]
    for found in chain([past], settle(study, out, claim, run_or_leave, looks=planned)):
        for one in found:
            typer.echo(look_text(one))


def _run(
    study: "Study",
    out: Path,
    workers: int | None,
    executor: str,
    force: bool,
    attempts: int | None = None,
    lease_seconds: float | None = None,
    track: str | None = None,
    *,
    is_launched: bool = True,
) -> int:
    """Runs a study before the user's eyes; returns the exit code."""
    from indelible.cli.token_bars import token_bars
    from indelible.console.packing_view import print_notes, print_packing
    from indelible.scheduling.failures import MAX_ATTEMPTS
    from indelible.scheduling.launcher import check_launch
    from indelible.scheduling.lease import LEASE_SECONDS
    from indelible.tracking.trackers import check_tracker
    from indelible.workflow.running import prepare_run

    most = MAX_ATTEMPTS if attempts is None else attempts
    patience = LEASE_SECONDS if lease_seconds is None else lease_seconds
    check_launch(workers, executor, most, patience)
    tracker = check_tracker(track) if track is not None else None
    screen = console()
    with token_bars(screen) as report:
        prepare_run(study, out, workers, force=force, report=report)
    print_packing(out, screen)
    print_notes(out, screen)
    if not is_launched:
        print(f"{out}: prepared; `indelible work {out}` trains it, here and wherever this folder is mounted.")
        return 0
    with following(out, tracker):
        return watched_launch(out, screen, workers, executor, max_attempts=most, lease_seconds=patience)


def watched_launch(out: Path, screen: "Console", workers: int | None, executor: str, **options: Any) -> int:
    """Launches before the user's eyes; returns the exit code."""
    from indelible.console.live import print_outcome, watching
    from indelible.scheduling.launcher import launch

    with watching(screen) as observer:
        outcome = launch(out, workers, executor, observer=observer, **options)
    print_outcome(screen, outcome)
    return outcome.exit_code


def work(
    directory: DirectoryArgument,
    workers: Annotated[int, typer.Option(min=1, help="Worker processes of this call.")] = 1,
    lease_seconds: Annotated[
        float | None, typer.Option(help="Patience with a silent worker on another host, seconds; default 60.")
    ] = None,
) -> None:
    """Work on a study folder that `run` has prepared, wherever it is mounted, until nothing is left to do.

    For a container, a spot machine, a second computer: any number of calls share the work. What failed for good stays
    so; the next `run` tries it again.
    """
    from indelible.scheduling.launcher import check_launch
    from indelible.scheduling.lease import LEASE_SECONDS

    patience = LEASE_SECONDS if lease_seconds is None else lease_seconds
    check_launch(workers, lease_seconds=patience)
    options = {"lease_seconds": patience, "is_retrying": False}
    raise typer.Exit(watched_launch(directory, console(), workers, "local", **options))


def reproduce(
    figure: Annotated[str, typer.Argument(help="A shipped study, e.g. fig3a.", metavar="FIGURE")],
    scale: Annotated[str, typer.Option(help="pico, nano, 135m or 1b.")] = "pico",
    seeds: Annotated[int, typer.Option(help="Number of seeds.", min=1)] = 3,
    out: Annotated[Path | None, typer.Option(help="Folder of the study run; default runs/FIGURE-SCALE.")] = None,
    workers: WorkersOption = None,
    executor: ExecutorOption = "local",
    overrides: SetOption = None,
    force: ForceOption = False,
) -> None:
    """Run a figure of the paper at a scale, write its report and print its verdicts."""
    from indelible.cli.results_commands import print_report, print_verdicts
    from indelible.workflow.loading import load_figure
    from indelible.workflow.reading import open_runs
    from indelible.workflow.reporting import write_report

    study = load_figure(figure, scale, seeds, overrides or [])
    folder = out or Path("runs") / f"{figure}-{scale}"
    code = _run(study, folder, workers, executor, force)
    runs = open_runs(folder)
    print_report(write_report(runs))
    print_verdicts(runs.verdicts(), runs.inference)
    raise typer.Exit(code)


def status(directory: DirectoryArgument, as_json: JsonOption = False) -> None:
    """Show what a study run is doing, from its files."""
    from indelible.console import live
    from indelible.scheduling.snapshot import snapshot_of

    snapshot = snapshot_of(directory)
    if as_json:
        print(json.dumps(snapshot.as_json(), indent=1))
    else:
        screen = console()
        screen.print(live.render(snapshot, width=screen.width), highlight=False)


def gc(
    directory: DirectoryArgument,
    yes: Annotated[bool, typer.Option("--yes", help="Remove it; without this nothing is touched.")] = False,
    as_json: JsonOption = False,
) -> None:
    """List, and with --yes remove, what the current plan of a study folder does not need."""
    from indelible.scheduling import cleanup
    from indelible.scheduling.folder import StudyFolder

    found = cleanup.find_garbage(StudyFolder.open(directory))
    if as_json:
        items = [{"path": str(i.path.relative_to(directory)), "why": i.why, "bytes": i.size} for i in found]
        print(json.dumps({"found": items, "removed_bytes": cleanup.remove(found) if yes else 0}, indent=1))
        return
    for item in found:
        print(f"{item.size / 1e6:10.3f} MB  {item.path.relative_to(directory)}  ({item.why})")
    if yes:
        print(f"Removed {cleanup.remove(found) / 1e6:.3f} MB.")
    else:
        print(f"{sum(item.size for item in found) / 1e6:.3f} MB can go; `indelible gc {directory} --yes` removes it.")


def register(app: typer.Typer) -> None:
    """Adds these commands to the application."""
    for command in (run, work, reproduce, status, gc):
        app.command()(command)
