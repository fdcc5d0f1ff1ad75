"""`plan` and `bench`: what a study costs before it is run, and how fast this machine is."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from indelible.cli.study_commands import JsonOption, Planned, SetOption, StudyArgument, plan_study, vocabulary_of
from indelible.corpora.sources import default_cache_dir
from indelible.errors import UserError
from indelible.files import read_json
from indelible.lab.host import default_workers
from indelible.lab.speed import Speed, chosen_device, find_speed, keep_speeds
from indelible.study import cost
from indelible.study.grid import apply_overrides
from indelible.study.load import Study, resolve_study

CPU_FLOPS_PER_CORE = 5e10  # a cautious rate for `plan` where no speed was measured
_ANY_SCALE = {"name": "bench", "pipeline": {"pre": "general", "post": "music", "ft": "chemistry"}, "seeds": [0]}


def measured_rate(out: Path) -> float | None:
    """FLOP/s of one worker, from the finished runs of a study folder; None if there are none."""
    results = [read_json(path) for path in (out / "runs").glob("*/result.json")]
    seconds = sum(result["total_seconds"] for result in results)
    return sum(result["flops"] for result in results) / seconds if seconds else None


def _rate(given: float | None, out: Path | None, study: Study, workers: int) -> tuple[float, str, str]:
    """FLOP/s of one worker, whether it was given, measured or assumed, and a phrase that says where it comes from."""
    if given:
        return given, "given", "given"
    rate = measured_rate(out) if out else None
    if rate:
        return rate, "measured", f"measured on the finished runs of {out}"
    device, threads = chosen_device(study.execution.device), study.execution.threads or 1
    speed = find_speed(default_cache_dir(), study.scale, device, threads, workers)
    if speed is not None:
        return speed.flops_per_second, "measured", f"measured by `indelible bench`, {speed.workers} at work"
    return CPU_FLOPS_PER_CORE, "assumed", f"assumed; `indelible bench --scale {study.scale}` measures it"


def _folder_bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def plan_facts(
    planned: Planned, out: Path | None, flops_per_second: float | None, workers: int | None
) -> dict[str, Any]:
    """Everything that `plan` shows."""
    study = planned.study
    done = {run for run in planned.graph.runs if out and (out / "runs" / run / "result.json").exists()}
    device, per_run = study.execution.device, study.execution.devices_per_run
    state_bytes = planned.summary["resume_bytes_per_worker"]
    fitting = default_workers(device, len(planned.graph.runs), per_run, state_bytes)
    num_workers = workers or study.execution.workers or fitting
    rate, origin, source = _rate(flops_per_second, out, study, num_workers)
    work, longest = cost.remaining_flops(planned.graph, planned.costs, done)
    token_bytes = _folder_bytes(out / "tokens") if out and (out / "tokens").is_dir() else planned.summary["token_bytes"]
    return {
        "study": study.name,
        "scale": study.scale,
        **planned.summary,
        "already_done": len(done),
        "token_bytes": token_bytes,
        # a new resume state is written whole before the one before it is removed
        "peak_bytes": planned.summary["kept_bytes"] + token_bytes + 2 * num_workers * state_bytes,
        "flops_per_second": rate,
        "rate": origin,
        "rate_source": source,
        "workers": num_workers,
        "hours": max(work / num_workers, longest) / rate / 3600,
    }


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
        int | None, typer.Option(help="Workers; default: those of the study, or as many as this machine carries.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Show what a study would run and what it costs, without running it."""
    if workers is not None and workers < 1:
        raise UserError(f"--workers {workers}: at least 1 is needed.")
    facts = plan_facts(plan_study(study, overrides or []), out, flops_per_second, workers)
    if as_json:
        print(json.dumps(facts, indent=1))
    else:
        _print_plan(facts)


def _print_plan(facts: dict[str, Any]) -> None:
    table = Table(title=f"{facts['study']} at {facts['scale']}: {facts['chains']:,} chains")
    for heading in ("stage", "runs", "without sharing", "tokens, at most", "FLOPs, at most"):
        table.add_column(heading, justify="left" if heading == "stage" else "right")
    for stage, entry in facts["stages"].items():
        numbers = (f"{entry['runs']:,}", f"{entry['runs_without_sharing']:,}", f"{entry['tokens']:,}")
        table.add_row(stage, *numbers, f"{entry['flops']:.2e}")
    console = Console()
    console.print(table)
    console.print(
        f"{facts['stage_runs']:,} stage runs, {facts['already_done']:,} of them done; {facts['tokens']:,} tokens and "
        f"{facts['flops']:.2e} FLOPs at most.\n"
        f"Sharing stages saves a factor of {facts['saving']:.2f} against running every chain alone.\n"
        f"Storage: checkpoints {_size(facts['kept_bytes'])} and tokens {_size(facts['token_bytes'])} are kept; "
        f"{_size(facts['peak_bytes'])} at the peak, with the resume states of {facts['workers']} workers.\n"
        f"At {facts['flops_per_second']:.1e} FLOP/s a worker ({facts['rate_source']}) and {facts['workers']} workers: "
        f"{facts['hours']:,.2f} hours at most; early stopping ends most stage-2 runs before their cap.",
        highlight=False,
    )


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
    from indelible.lab.bench import measure

    if seconds <= 0:
        raise UserError(f"--seconds {seconds:g}: more than 0 are needed.")
    if workers is not None and workers < 1:
        raise UserError(f"--workers {workers}: at least 1 is needed.")
    study = resolve_study(apply_overrides({**_ANY_SCALE, "scale": scale}, overrides or []), where="bench")
    most = workers or study.execution.workers or default_workers(study.execution.device, _MANY_RUNS)
    speeds = []
    for count in sorted({1, most}):
        speeds.append(measure(study, vocabulary_of(study), count, seconds))
        if not as_json:
            _print_speed(speeds[-1], is_first=len(speeds) == 1)
    path = keep_speeds(default_cache_dir(), speeds)
    if as_json:
        print(json.dumps({"speeds": [asdict(speed) for speed in speeds], "file": str(path)}, indent=1))
    else:
        print(f"Kept in {path} for `indelible plan`.")


_MANY_RUNS = 1_000_000  # so that the number of runs does not limit the workers


def _print_speed(speed: Speed, *, is_first: bool) -> None:
    if is_first:
        print(f"{speed.scale} on {speed.machine}: {speed.device}, {speed.threads} thread(s) a worker")
    alone = "1 worker alone" if speed.workers == 1 else f"each of {speed.workers} workers"
    print(f"{alone:>18}: {speed.tokens_per_second:,.0f} tokens/s, {speed.flops_per_second:.2e} FLOP/s", flush=True)


def register(app: typer.Typer) -> None:
    """Adds these commands to the application."""
    for command in (plan, bench):
        app.command()(command)
