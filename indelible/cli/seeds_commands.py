"""`seeds`: which seeds to buy next."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from indelible.cli.options import JsonOption


def register(app: typer.Typer) -> None:
    """Adds the command to the application."""
    app.command()(seeds)


def seeds(
    places: Annotated[
        list[Path],
        typer.Argument(
            metavar="DIR|TABLE...", help="The folder that `indelible run --out` wrote, or results tables; joined."
        ),
    ],
    half_width: Annotated[
        float | None, typer.Option(help="Wanted half-width of the interval, nats per token.", metavar="NATS")
    ] = None,
    core_hours: Annotated[
        float | None, typer.Option(help="The most that may be spent, beside what is there.", metavar="HOURS")
    ] = None,
    loss: Annotated[str, typer.Option(help="The loss whose change is to be known.")] = "L_ret",
    is_json: JsonOption = False,
) -> None:
    """The cheapest new seeds, over all stages, that bring an interval to a wanted width, or the best for some hours.

    The interval is that of a loss at the largest λ minus λ 0, paired over seeds, in each pipeline. Prices are what the
    study's own stage runs took. Nothing is trained.
    """
    from indelible.claims.seed_plan import assumptions_text, plan_text
    from indelible.workflow.reading import open_runs

    runs = open_runs(*places)
    found = runs.next_seeds(half_width=half_width, core_hours=core_hours, loss=loss)
    if is_json:
        typer.echo(json.dumps([{**asdict(one), "new_runs": one.new_runs} for one in found], indent=1, allow_nan=False))
        return
    unit, counted = runs.hours_unit
    for one in found:
        typer.echo(plan_text(one, unit))
    typer.echo(assumptions_text(found, runs.inference, counted))
