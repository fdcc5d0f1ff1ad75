"""`audit`: how much of a capability a checkpoint keeps through later fine-tuning, as a card with an exit code."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from indelible.cli.options import ExecutorOption, ForceOption, JsonOption, WorkersOption
from indelible.cli.terminal import console, counted
from indelible.errors import UserError

if TYPE_CHECKING:
    from indelible.durability.card import Audit
    from indelible.durability.run import Auditor, Step
    from indelible.study.load import Study


ModelsArgument = Annotated[
    list[str] | None,
    typer.Argument(help="A folder, hub id or name of the catalogue; several: one recipe.", metavar="MODEL..."),
]
KeepOption = Annotated[str | None, typer.Option(help="Text that shows the capability: a corpus's name, or a file.")]
LaterOption = Annotated[
    list[str] | None, typer.Option(help="What customers may fine-tune on: a corpus's name, or a file. Repeat.")
]
BaseOption = Annotated[str | None, typer.Option(help="The checkpoint before it had the capability: gives shares.")]
AgainstOption = Annotated[
    list[str] | None, typer.Option(help="Another checkpoint to compare with; repeat for several of one recipe.")
]
TaskOption = Annotated[
    list[str] | None, typer.Option("--task", help="A task file (docs/tasks.md): its accuracy before and after. Repeat.")
]
OutOption = Annotated[Path | None, typer.Option(help="Folder of the runs and the card.")]
BudgetOption = Annotated[str, typer.Option(help="Time, e.g. 40m or 2h: as much of the battery as fits is run; or all.")]
BatteryOption = Annotated[
    str | None, typer.Option(help="quick, standard, thorough, or a YAML file; default: by this machine.")
]
BatterySetOption = Annotated[
    list[str] | None, typer.Option("--set", help="Override a field of the battery, e.g. updates=64.")
]
RequireOption = Annotated[
    str | None, typer.Option(help="The bar: a share to keep (0.8), or nats to lose at most (0.1nats).")
]
CustomerOption = Annotated[str, typer.Option("--for", help="Whom the verdict is about: careful, typical or careless.")]
GainOption = Annotated[float, typer.Option("--at", help="Part of the gain on the new data: 0.5 or 0.8.")]
PlanOption = Annotated[bool, typer.Option("--plan", help="Show what would be run and what it costs; run nothing.")]
SchemaOption = Annotated[bool, typer.Option("--schema", help="Print the JSON Schema of audit.json.")]


def register(app: typer.Typer) -> None:
    """Adds the command to the application."""
    app.command("audit")(audit)


def audit(
    models: ModelsArgument = None,
    keep: KeepOption = None,
    later: LaterOption = None,
    base: BaseOption = None,
    against: AgainstOption = None,
    tasks: TaskOption = None,
    out: OutOption = None,
    budget: BudgetOption = "40m",
    battery: BatteryOption = None,
    overrides: BatterySetOption = None,
    require: RequireOption = None,
    customer: CustomerOption = "typical",
    gain: GainOption = 0.8,
    workers: WorkersOption = None,
    executor: ExecutorOption = "local",
    force: ForceOption = False,
    plan: PlanOption = False,
    as_schema: SchemaOption = False,
    as_json: JsonOption = False,
) -> None:
    """Fine-tune a checkpoint in many ways and say what it keeps. Exit 0 durable, 3 not durable, 4 cannot tell."""
    from indelible.durability.battery import read_battery
    from indelible.durability.budget import parse_budget
    from indelible.durability.request import make_request
    from indelible.durability.run import Auditor, write_card
    from indelible.scheduling.launcher import check_launch

    if as_schema:
        from indelible.durability.card import schema

        print(json.dumps(schema(), indent=1))
        return
    if keep is None:
        raise UserError("audit: --keep is missing: name text that shows the capability, e.g. --keep refusals.jsonl.")
    if out is None and not plan:
        raise UserError("audit: --out is missing: name a folder for the runs and the card, or ask for the --plan.")
    check_launch(workers, executor)
    seconds = parse_budget(budget)
    request = make_request(
        models or [], keep, later or [], read_battery(battery, _values(overrides or [])), base=base,
        against=against or [], require=require, customer=customer, gain=gain, tasks=tasks or [],
    )  # fmt: skip
    auditor = Auditor(request, out or Path("audit"), workers)
    if plan:
        _print_plan(auditor, seconds, as_json)
        return

    def execute(study: "Study") -> None:
        _execute(study, auditor.out, workers, executor, force=force)

    found = auditor.card(auditor.run(execute, seconds))
    files = write_card(found, auditor.out)
    if as_json:
        print(files[0].read_text(encoding="utf-8"), end="")
    else:
        _print_card(found, files)
    raise typer.Exit(found.exit_code)


def _values(overrides: list[str]) -> dict[str, Any]:
    """``field=value`` strings; the value is read as YAML."""
    from indelible.study.yaml_reader import read_value

    found = {}
    for override in overrides:
        name, equals, text = override.partition("=")
        if not equals or not name.strip():
            raise UserError(f"--set {override!r}: expected field=value, e.g. --set updates=64.")
        found[name.strip()] = read_value(text, f"--set {override!r}")
    return found


def _execute(study: "Study", out: Path, workers: int | None, executor: str, *, force: bool) -> None:
    """Runs a study before the user's eyes, on standard error: what is printed may be read by a machine."""
    from indelible.cli.token_bars import token_bars
    from indelible.console.live import print_outcome, watching
    from indelible.scheduling.launcher import launch
    from indelible.workflow.running import prepare_run

    screen = console(stderr=True)
    with token_bars(screen) as report:
        prepare_run(study, out, workers, force=force, report=report)
    with watching(screen) as observer:
        outcome = launch(out, workers, executor, observer=observer)
    if outcome.exit_code or outcome.has_worked:
        print_outcome(screen, outcome)
    if outcome.exit_code:
        raise typer.Exit(outcome.exit_code)


def _print_plan(auditor: "Auditor", seconds: float | None, as_json: bool) -> None:
    steps = auditor.steps(seconds)
    if as_json:
        print(json.dumps([_step_json(step) for step in steps], indent=1))
        return
    from rich.table import Table

    table = Table(
        title=f"battery {auditor.request.battery.name}: {auditor.request.battery.trial_tokens:,} tokens a trial"
    )
    for heading in ("adds", "settings", "seeds", "stage runs", "done", "tokens", "time", "within"):
        table.add_column(heading, justify="left" if heading in ("adds", "within") else "right")
    for step in steps:
        one = step.price
        table.add_row(
            step.portion.adds, f"{len(step.portion.settings)}", f"{len(step.portion.seeds)}", f"{one.stage_runs:,}",
            f"{one.done:,}", f"{one.tokens:,}", _time(one.seconds), "yes" if step.is_chosen else "",
        )  # fmt: skip
    screen = console()
    screen.print(table)
    first = steps[0].price
    screen.print(
        f"Each line holds those above it; time is of all of it, with {counted(first.workers, 'worker')}, speed "
        f"{first.rate_source}.\n"
        f"Budget: {'all' if seconds is None else _time(seconds)}. Fetching and tokenising text comes on top, once.",
        highlight=False,
    )


def _step_json(step: "Step") -> dict[str, Any]:
    from dataclasses import asdict

    return {
        "adds": step.portion.adds, "settings": [one.name for one in step.portion.settings],
        "seeds": list(step.portion.seeds), "is_within_budget": step.is_chosen, **asdict(step.price),
    }  # fmt: skip


def _time(seconds: float) -> str:
    if seconds < 3600:
        return f"{seconds / 60:.1f} min"
    return f"{seconds / 3600:.1f} h"


def _print_card(found: "Audit", files: list[Path]) -> None:
    screen = console()
    screen.print(f"{found.sentence}\n{found.reason[0].upper()}{found.reason[1:]}.", highlight=False)
    for one in found.warnings:
        screen.print(f"Note: {one}", highlight=False)
    for row in found.comparison:
        if row.is_main:
            number = row.difference
            ends = "" if number.low is None else f" [{number.low:+.4f}, {number.high:+.4f}]"
            others = sum(one.verdict == row.verdict for one in found.comparison) - 1
            screen.print(
                f"Against the other side, {row.customer}, {100 * row.gain:.0f} % of the gain: "
                f"{number.value:+.4f}{ends} nats "
                f"lost, n = {number.n}: {row.verdict} (so do {others} of {len(found.comparison) - 1} further rows).",
                highlight=False,
            )
    screen.print(f"Card: {', '.join(map(str, files))}", highlight=False, soft_wrap=True)
