"""Puts the card together from what the study's files say."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from indelible import __version__
from indelible.durability import rows, wording
from indelible.durability.accuracies import accuracy_rows
from indelible.durability.card import EXIT_CODES, Audit, Compared, CustomerRow, Later, Scope, SettingRow
from indelible.durability.documents import Documents, difference_error, document_errors
from indelible.durability.measures import Measures, pooled
from indelible.durability.request import LEVEL, AuditRequest
from indelible.durability.sides import Side
from indelible.durability.study import Portion
from indelible.durability.trials import Trials, read_trials
from indelible.durability.verdict import judge
from indelible.results.run_folder import StudyRun, read_study_run


@dataclass(frozen=True)
class Asked:
    """What was asked and run."""

    request: AuditRequest
    portion: Portion
    left_out: tuple[str, ...]  # of the battery, in words
    ids: Mapping[str, str]  # checkpoint as asked to checkpoint id


def make_audit(out: Path, asked: Asked) -> Audit:
    """The card of an audit whose study lies in ``out``."""
    request, run = asked.request, read_study_run(out)
    found = read_trials(run, {setting.name: setting for setting in asked.portion.settings}, request.keep)
    (measures, both), warnings = _measures(run, asked, found)
    customers = measures.customers()
    setting_rows = rows.setting_rows(measures)
    judged = judge(request, customers, found.unfinished, has_base=measures.base is not None)
    half_life, at_least = rows.typical_half_life(measures)
    comparison = _comparison(run, request, both)
    later = tuple(_later(name, measures, setting_rows) for name in request.later)
    return Audit(
        format=Audit.FORMAT, verdict=judged.verdict, exit_code=EXIT_CODES[judged.verdict],
        sentence=wording.sentence(request, judged.verdict, judged.kept, judged.require), reason=judged.reason,
        kept=judged.kept, require=judged.require, customer=request.customer, gain=request.gain, model=request.models,
        keep=request.keep, later=later, base=request.base, against=request.against,
        checkpoints=dict(asked.ids), seeds=asked.portion.seeds,
        battery={**request.battery.model_dump(mode="json"), "loss_on": request.loss_on},
        scope=_scope(request, measures),
        capability=None if measures.capability is None else float(measures.capability.mean()),
        before=_mean([found.before.get(asked.ids[one]) for one in request.models]),
        trials=len(found.trials), unfinished=found.unfinished, diverged=sum(t.has_diverged for t in found.trials),
        customers=tuple(customers), settings=tuple(setting_rows),
        relearning=tuple(rows.relearning_rows(measures, found.controls, request.battery.relearning)),
        worst_of=tuple(measures.worst_of(request.gain)), survival=tuple(rows.survival(measures)), half_life=half_life,
        half_life_at_least=at_least, noise=pooled([row.spread for row in setting_rows]), comparison=tuple(comparison),
        accuracies=tuple(accuracy_rows(run, request, asked.portion.settings, asked.ids)),
        warnings=(*warnings, *_warnings(request, later, setting_rows, customers, measures)), left_out=asked.left_out,
        threat_model=wording.threat_model(request, asked.portion),
        not_tested=wording.not_tested(request, asked.portion), proxy=wording.proxy_text(request), cost=_cost(run),
        environment=_environment(run), study=str(out),
    )  # fmt: skip


def _measures(run: StudyRun, asked: Asked, found: Trials) -> tuple[list[Measures], list[str]]:
    """The model alone, the model and the other side, and what to say where there is no share.

    What is said of the model alone does not depend on what it is compared with.
    """
    request = asked.request
    model = _side(asked, found, request.models)
    against = _side(asked, found, request.against) if request.against else None
    base, warnings = None, []
    if request.base is not None:
        base = found.before.get(asked.ids[request.base])
        own = [found.before[asked.ids[one]] for one in request.models if asked.ids[one] in found.before]
        if base is None or not own or base - max(own) <= 0:
            warnings.append(
                f"The base {request.base} is not worse on {request.keep} than the model, so there is no capability "
                "to take a "
                "share of: losses are told in nats."
            )
            base = None
    errors = document_errors(
        Documents(run, request.keep), [trial for trial in model.trials if trial.setting.is_plain],
        asked.ids[request.base] if request.base is not None and base is not None else None,
    )  # fmt: skip
    return [Measures(model, one, request.later, errors, found.before, base) for one in (None, against)], warnings


def _side(asked: Asked, found: Trials, checkpoints: Sequence[str]) -> Side:
    """The trials of some checkpoints, in the order in which these were given, then by seed."""
    order = {asked.ids[one]: place for place, one in enumerate(checkpoints)}
    mine = sorted(
        (trial for trial in found.trials if trial.checkpoint in order),
        key=lambda one: (order[one.checkpoint], one.seed),
    )
    return Side(wording.short_name(checkpoints), tuple(mine), asked.request.is_about_recipes)


def _comparison(run: StudyRun, request: AuditRequest, measures: Measures) -> list[Compared]:
    if measures.against is None:
        return []
    error = (0.0, 0)
    if not request.is_about_recipes:
        plain = [[trial for trial in side.trials if trial.setting.is_plain] for side in measures.sides]
        error = difference_error(Documents(run, request.keep), *plain)
    return measures.compared((request.gain, request.customer), error)


def _later(name: str, measures: Measures, setting_rows: Sequence[SettingRow]) -> Later:
    best = measures.gains[name]
    setting = None if best is None else best.setting.name
    return Later(
        name=name,
        best_gain=None if best is None else best.gain,
        best_setting=setting,
        edge=wording.edge_of(setting_rows, setting),
    )


def _scope(request: AuditRequest, measures: Measures) -> Scope:
    is_recipe = measures.model.is_recipe
    return Scope(
        unit="checkpoint" if is_recipe else "seed of fine-tuning",
        units=len(measures.model.units),
        covers=wording.covers(request, measures.errors.documents),
        level=LEVEL,
    )


def _warnings(
    request: AuditRequest,
    later: Sequence[Later],
    setting_rows: Sequence[SettingRow],
    customers: Sequence[CustomerRow],
    measures: Measures,
) -> list[str]:
    found = []
    for one in later:
        if one.best_gain is None:
            found.append(f"No setting gains on {one.name} in every unit: it is left out of all comparisons.")
        elif one.edge == "largest":
            found.append(
                f"On {one.name} the largest rate that was tried gains most ({one.best_setting}): customers may go on "
                "from "
                "there, and lose more. Add larger rates to the battery."
            )
    whose = "of the model's " if request.against else ""  # the number of trials on the card is of both sides
    missed = [row for row in setting_rows if row.reached.get(f"{request.gain:g}", 0) < row.trials and not row.replay]
    if missed and customers:
        found.append(
            f"{sum(row.trials - row.reached[f'{request.gain:g}'] for row in missed)} of "
            f"{sum(row.trials for row in setting_rows if not row.replay)} {whose}trials without replay never reach "
            f"{wording.PARTS[request.gain]} of the gain; the settings that some trial misses are left out of the "
            "customers."
        )
    if diverged := sum(row.diverged for row in setting_rows):
        found.append(
            f"{diverged} {whose}trials diverged; each counts as the worst loss unless it had reached the gain before."
        )
    if request.against and not request.is_about_recipes:
        found.append(
            "One checkpoint a side: a difference is about these two files. Two training seeds of one recipe often "
            "differ "
            "by as much; give several checkpoints a side to compare recipes."
        )
    if measures.model.units and len(measures.model.units) < 3:
        found.append("Fewer than three units: intervals are very wide, or there are none.")
    return found


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None


def _cost(run: StudyRun) -> dict[str, float]:
    results = run.results.values()
    return {
        "stage_runs": float(len(run.results)),
        "trained_tokens": float(sum(result.train_tokens for result in results)),
        "flops": float(sum(result.flops for result in results)),
        "worker_hours": sum(result.total_seconds for result in results) / 3600,
    }


def _environment(run: StudyRun) -> dict[str, Any]:
    first = next(iter(run.results.values()), None)
    return {"indelible": __version__, **({} if first is None else first.environment)}
