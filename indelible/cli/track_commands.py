"""`track`: sends the metrics of a study run to a tracker."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from indelible.records import TrackerName

TrackOption = Annotated[
    str | None,
    typer.Option("--track", metavar="TRACKER", help="Send metrics as they come: tensorboard, trackio or wandb."),
]


def track(
    directory: Annotated[Path, typer.Argument(help="Folder of a study run.", metavar="DIR")],
    to: Annotated[str, typer.Option("--to", metavar="TRACKER", help="tensorboard, trackio or wandb.")],
) -> None:
    """Send what was not sent yet of a study run's metrics, losses and lineage to a tracker.

    It reads the files of the folder; what was sent before is not sent again.
    """
    from indelible.tracking.sending import send_all, sent_text, unsent_text
    from indelible.tracking.trackers import check_tracker

    name = check_tracker(to)
    sent = send_all(directory, name)
    typer.echo(sent_text(name, sent))
    if warning := unsent_text(name, directory, sent):
        typer.echo(warning, err=True)
        raise typer.Exit(1)


@contextmanager
def following(out: Path, name: "TrackerName | None") -> Iterator[None]:
    """Sends to a tracker beside a launch, in a process of its own; says at the end what was sent and what was not."""
    if name is None:
        yield
        return
    from indelible.tracking.follow import LAST_SECONDS, Follower
    from indelible.tracking.sending import sent_text, unsent_text

    follower = Follower(out, name)
    try:
        yield
    finally:
        typer.echo(f"{name}: sending what is left (at most {LAST_SECONDS:.0f} s)")
        sent = follower.finish()
        typer.echo(sent_text(name, sent))
        if warning := unsent_text(name, out, sent):
            typer.echo(f"Warning: {warning}", err=True)


def register(app: typer.Typer) -> None:
    """Adds the command to the application."""
    app.command()(track)
