"""`compare`: a setting's values against each other, how much to show, two checkpoints by document."""

import json
import math
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from indelible.cli.options import ArmOption, TablesArgument
from indelible.errors import UserError

if TYPE_CHECKING:
    from indelible.statistics.contrasts import Contrast
    from indelible.workflow.reading import StudyRuns


_RateOption = Annotated[
    str | None,
    typer.Option(metavar="RATE", help="With --by-exposure: only this stage-3 rate (2x: the scale's); default: each."),
]


def register(app: typer.Typer) -> None:
    """Adds the command to the application."""
    app.command()(compare)


def compare(
    places: TablesArgument,
    by: Annotated[
        str | None, typer.Option(help="The setting whose values are compared, e.g. placement; a column's name.")
    ] = None,
    by_document: Annotated[
        tuple[str, str] | None,
        typer.Option(metavar="RUN_A RUN_B", help="Two checkpoints, paired by held-out document; ids or beginnings."),
    ] = None,
    is_by_exposure: Annotated[
        bool, typer.Option("--by-exposure", help="How much to show, and is it worth it: all λ, their cost, the best.")
    ] = False,
    finetune_lr: _RateOption = None,
    corpus: Annotated[str | None, typer.Option(help="With --by-document: only this corpus; default: all.")] = None,
    against: Annotated[str | None, typer.Option(help="The value to compare with; default: the first.")] = None,
    within: Annotated[list[str] | None, typer.Option(help="Compare for each value of this setting by itself.")] = None,
    conditions: Annotated[
        list[str] | None,
        typer.Option("--where", metavar="SETTING=VALUE", help="Only such chains; of one setting several: any of them."),
    ] = None,
    arm: ArmOption = None,
    is_gain: Annotated[
        bool, typer.Option("--gain", help="Compare what exposure changes (against lambda 0) instead of the losses.")
    ] = False,
    is_json: Annotated[bool, typer.Option("--json", help="Print JSON, with every run id.")] = False,
) -> None:
    """What a setting does to the losses, paired over seeds, or what differs between two checkpoints, by document.

    --by compares the values of a setting with each other at equal other settings. --by-exposure says for every λ what
    is kept and what it costs, and which is the best. --by-document compares RUN_B with RUN_A on each held-out document.
    """
    has_settings = bool(against or within or is_gain)
    _check_kind(by, by_document, finetune_lr, corpus, is_by_exposure=is_by_exposure)
    if by_document is not None:
        if has_settings or conditions or arm:
            raise UserError(
                "compare --by-document: two checkpoints are named already; "
                "--against, --within, --where, --arm and --gain go with --by."
            )
        _compare_documents(places, by_document, corpus, is_json=is_json)
        return
    from indelible.study.selection import OTHER_NAMES
    from indelible.workflow.reading import open_runs

    runs = open_runs(*places)
    if is_by_exposure:
        if has_settings:
            raise UserError("compare --by-exposure: λ 0 is compared with; --against, --within and --gain go with --by.")
        _by_exposure(runs, finetune_lr, conditions or [], arm or [], is_json=is_json)
        return
    assert by is not None
    found = runs.compare(by, against, within=within or [], where=conditions or [], arms=arm or [], gain=is_gain)
    rates = (
        _nothing_forgotten(runs, conditions or [], arm or []) if OTHER_NAMES.get(by, by) == "exposure_fraction" else []
    )
    _print_contrasts(runs, found, by, [*runs.notes, *rates], is_gain=is_gain, is_json=is_json)


def _check_kind(
    by: str | None,
    by_document: tuple[str, str] | None,
    finetune_lr: str | None,
    corpus: str | None,
    *,
    is_by_exposure: bool,
) -> None:
    if (by is not None) + (by_document is not None) + is_by_exposure != 1:
        raise UserError(
            "compare: give either --by SETTING, --by-exposure or --by-document RUN_A RUN_B, and only one of them."
        )
    if finetune_lr is not None and not is_by_exposure:
        raise UserError("compare --finetune-lr: goes with --by-exposure; with --by, --where finetune_lr=RATE chooses.")
    if corpus is not None and by_document is None:
        raise UserError(f"compare --corpus {corpus}: goes with --by-document; --by shows all losses.")


def _print_contrasts(
    runs: "StudyRuns", found: "list[Contrast]", by: str, notes: Sequence[str], *, is_gain: bool, is_json: bool
) -> None:
    from indelible.claims.wording import compare_footnote
    from indelible.cli.findings_text import contrast_lines
    from indelible.study.selection import OTHER_NAMES

    if is_json:
        typer.echo(json.dumps([asdict(one) for one in found], indent=1, allow_nan=False))
        return
    shown = OTHER_NAMES.get(by, by)
    for one in found:
        for line in contrast_lines(one, shown, "change of " if is_gain else ""):
            typer.echo(line)
    _print_notes(notes)
    typer.echo(compare_footnote(runs.inference, list(dict.fromkeys(loss for one in found for loss in one.losses))))


def _by_exposure(
    runs: "StudyRuns", finetune_lr: str | None, conditions: list[str], arms: list[str], *, is_json: bool
) -> None:
    from indelible.claims.by_exposure import note
    from indelible.cli.findings_text import exposure_lines

    rate = None if finetune_lr is None else _rate(runs, finetune_lr)
    found = runs.by_exposure(rate, where=conditions, arms=arms)
    if is_json:
        typer.echo(json.dumps([asdict(one) for one in found], indent=1, allow_nan=False))
        return
    for one in found:
        for line in exposure_lines(one):
            typer.echo(line)
    _print_notes(runs.notes)
    typer.echo(note(found))


def _rate(runs: "StudyRuns", text: str) -> float:
    """A stage-3 rate; ``2x`` is so many times that of the scale, as in a study file, and is one of the table's."""
    from indelible.study.grid import load_scale, scale_names

    table = runs.results()
    rates = [float(one) for one in table["finetune_lr"].drop_nulls().unique().sort().to_list()]
    scales = [one for one in table["scale"].unique().to_list() if one in scale_names()]
    try:
        number = float(text.removesuffix("x"))
    except ValueError:
        number = math.nan
    if math.isnan(number) or (text.endswith("x") and len(scales) != 1):
        known = ", ".join(f"{one:g}" for one in rates) or "none"
        raise UserError(f"compare --finetune-lr {text}: expected a stage-3 rate of this study; there are {known}.")
    if not text.endswith("x"):
        return number
    wanted = number * float(load_scale(scales[0])["finetune"]["lr"])
    return next((one for one in rates if math.isclose(one, wanted, rel_tol=1e-6)), wanted)


def _nothing_forgotten(runs: "StudyRuns", conditions: list[str], arms: list[str]) -> list[str]:
    """The stage-3 rates at which no gain of exposure can show."""
    from indelible.claims.by_exposure import exposure_blocks, forgetting_text, place_text
    from indelible.statistics import contrasts

    table = contrasts.where(runs.rows(arms), conditions)
    blocks = exposure_blocks(table, runs.inference)
    return [f"{place_text(one)}: {text}" for one in blocks if (text := forgetting_text(one))]


def _print_notes(notes: Sequence[str]) -> None:
    for one in notes:
        typer.echo(f"Note: {one}")


def _compare_documents(places: Sequence[Path], runs: tuple[str, str], corpus: str | None, *, is_json: bool) -> None:
    from indelible.claims.wording import documents_footnote
    from indelible.cli.findings_text import document_lines
    from indelible.workflow.reading import open_runs

    opened = open_runs(*places)
    found = opened.compare_documents(*runs, corpus)
    if is_json:
        typer.echo(json.dumps([asdict(one) for one in found], indent=1, allow_nan=False))
        return
    typer.echo(typer.style(f"{found[0].run_b} against {found[0].run_a}", bold=True))
    for one in found:
        for line in document_lines(one.corpus, one.found):
            typer.echo(line)
    typer.echo(documents_footnote(opened.inference))
