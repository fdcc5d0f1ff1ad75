"""`plan` and `bench`: what a study costs before it is run, and how fast this machine is."""

import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from indelible.cli.options import JsonOption, SetOption, StudyArgument
from indelible.cli.terminal import console, counted

if TYPE_CHECKING:
    from indelible.measure.speed import Speed
    from indelible.workflow.estimate import Estimate, ModelSize


def plan(
    study: StudyArgument,
    overrides: SetOption = None,
    out: Annotated[
        Path | None, typer.Option(help="A study folder: what is done there is counted, and its speed taken.")
    ] = None,
    flops_per_second: Annotated[
        float | None, typer.Option(help="Speed of a worker; default: measured (see bench), else 5e10.")
    ] = None,
    workers: Annotated[
        int | None,
        typer.Option(help="Worker processes; default: those of the study, or as many as this machine carries."),
    ] = None,
    resolved: Annotated[
        bool, typer.Option("--resolved", help="Print every setting of every arm as YAML, and nothing else.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Show what a study would run and what it costs, without running it."""
    from indelible.console.packing_view import print_packing
    from indelible.study.load import load_study, resolved_arms
    from indelible.workflow.estimate import estimate
    from indelible.workflow.planning import plan_study

    loaded = load_study(study, overrides)
    if resolved:
        print(resolved_arms(loaded), end="")
        return
    planned = plan_study(loaded)
    found = estimate(planned, out, workers=workers, flops_per_second=flops_per_second)
    if as_json:
        print(json.dumps(found.as_json(), indent=1))
    else:
        _print_plan(found)
        if out is not None:
            print_packing(out, console())


def _print_plan(found: "Estimate") -> None:
    from rich.table import Table

    table = Table(title=f"{found.study} at {found.scale}: {found.chains:,} chains")
    for heading in ("stage", "runs", "without sharing", "tokens, at most", "FLOPs, at most"):
        table.add_column(heading, justify="left" if heading == "stage" else "right")
    for stage, entry in found.stages.items():
        numbers = (f"{entry['runs']:,}", f"{entry['runs_without_sharing']:,}", f"{entry['tokens']:,}")
        table.add_row(stage, *numbers, f"{entry['flops']:.2e}")
    screen = console()
    screen.print(table)
    estimate = " (an estimate: the model is of a family that is not counted exactly)" if found.flops_estimated else ""
    unreachable = f" ({found.unreachable:,} behind a run that diverged)" if found.unreachable else ""
    for note in found.notes:
        screen.print(f"Note: {note}", highlight=False)
    workers = counted(found.workers, "worker")
    screen.print(
        f"{found.stage_runs:,} stage runs, {found.already_done:,} of them done{unreachable}; {found.evaluations:,} "
        f"evaluations, {found.evaluations_done:,} of them done: {found.remaining}.\n"
        f"{found.tokens:,} tokens and {found.flops:.2e} FLOPs{estimate} at most, trained in {found.precision}.\n"
        f"{_models_text(found.models)}\n"
        f"Sharing stages saves a factor of {found.saving:.2f} against running every chain alone.\n"
        f"Storage: checkpoints {_size(found.kept_bytes)} and tokens {_size(found.token_bytes)} are kept; "
        f"{_size(found.peak_bytes)} at the peak, with the resume states of {workers}.\n"
        f"At {found.flops_per_second:.1e} FLOP/s a worker ({found.rate_source}) and {workers}: "
        f"{_time(found.hours)} at most for what is left; early stopping ends most stage-2 runs before their cap.",
        highlight=False,
    )


def _models_text(models: "tuple[ModelSize, ...]") -> str:
    if len(models) == 1:
        return f"Model: {models[0].parameters:,} parameters."
    parts = []
    for model in models:
        where = ", ".join(f"{name} {value}" for name, value in model.where.items())
        parts.append(f"{model.parameters:,} parameters in {model.chains:,} chains{f' ({where})' if where else ''}")
    return f"Models: {'; '.join(parts)}."


def _time(hours: float) -> str:
    """Hours, and below one hour minutes and seconds."""
    from indelible.console.live import duration

    return f"{hours:,.2f} hours" if hours >= 1 else duration(3600 * hours)


def _size(num_bytes: float) -> str:
    for unit, scale in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6)):
        if num_bytes >= scale:
            return f"{num_bytes / scale:.2f} {unit}"
    return f"{num_bytes / 1e3:.0f} kB"


def bench(
    scale: Annotated[str, typer.Option(help="pico, nano, 135m or 1b.")] = "pico",
    seconds: Annotated[float, typer.Option(help="How long tokens are counted, for each line of the table.")] = 5.0,
    workers: Annotated[
        int | None, typer.Option(help="Workers at once, beside one alone; default: as many as this machine carries.")
    ] = None,
    overrides: SetOption = None,
    as_json: JsonOption = False,
) -> None:
    """Measure how fast this machine trains at a scale; `plan` tells hours from it."""
    from indelible.workflow.speeds import kept_in, measure_speeds

    speeds = []
    for speed in measure_speeds(scale, seconds, workers, overrides or [], _say):
        speeds.append(speed)
        if not as_json:
            _print_speed(speed, is_first=len(speeds) == 1)
    if as_json:
        print(json.dumps({"speeds": [asdict(one) for one in speeds], "file": str(kept_in())}, indent=1))
    else:
        print(f"Kept in {kept_in()} for `indelible plan`.")


def _say(text: str) -> None:
    """For people who wait; standard output is for the speeds."""
    print(text, file=sys.stderr, flush=True)


def _print_speed(speed: "Speed", *, is_first: bool) -> None:
    if is_first:
        print(f"{speed.scale} on {speed.machine}: {speed.device}, {counted(speed.threads, 'thread')} a worker")
    alone = "1 worker alone" if speed.workers == 1 else f"each of {speed.workers} workers"
    print(f"{alone:>18}: {speed.tokens_per_second:,.0f} tokens/s, {speed.flops_per_second:.2e} FLOP/s", flush=True)


def register(app: typer.Typer) -> None:
    """Adds these commands to the application."""
    for command in (plan, bench):
        app.command()(command)
