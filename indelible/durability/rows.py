"""Rows of the card about the trials themselves: each setting, survival by tokens, relearning."""

import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from indelible.durability.card import Number, Relearned, SettingRow, SurvivalPoint
from indelible.durability.intervals import estimate
from indelible.durability.measures import Measures, number
from indelible.durability.readouts import first_out_of_noise, half_life, share_kept
from indelible.durability.request import GAINS
from indelible.durability.sides import Side, lost_at
from indelible.durability.study import Setting
from indelible.durability.trials import Curve, Trial
from indelible.statistics.inference import WORST_LOSS, mean_interval

Numbers = NDArray[np.float64]


def setting_rows(measures: Measures) -> list[SettingRow]:
    """One row for each setting of the model's side, replay and padding included."""
    return [_setting_row(measures, setting) for setting in measures.model.groups]


def _setting_row(measures: Measures, setting: Setting) -> SettingRow:
    units = measures.model.groups[setting]
    trials = [trial for unit in units.values() for trial in unit]
    best, start = measures.gains[setting.corpus], measures.starts[setting.corpus]
    lost: dict[str, Number | None] = {}
    reached: dict[str, int] = {}
    for part in GAINS:
        values = [[lost_at(t, part * best.gain, start) for t in unit] if best else [None] for unit in units.values()]
        flat = [value for unit in values for value in unit]
        reached[f"{part:g}"] = sum(value is not None for value in flat)
        known = [float(np.mean([v for v in unit if v is not None])) for unit in values if None not in unit]
        lost[f"{part:g}"] = number(measures.lost(np.array(known))) if len(known) == len(units) else None
    done = _by_unit(units, lambda trial: not trial.has_diverged)
    ends = [float(np.mean([t.curve.lost[-1] for t in unit])) for unit in done]
    gains = [float(np.mean([t.curve.gains[-1] for t in unit])) for unit in done]
    return SettingRow(
        name=setting.name, later=setting.corpus, adapt=setting.adapt, lr=setting.lr, replay=setting.replay,
        is_padded=setting.is_padded, trials=len(trials), diverged=sum(t.has_diverged for t in trials), reached=reached,
        lost=lost, end_lost=number(measures.lost(np.array(ends))) if ends else None,
        end_gain=number(estimate(gains)) if gains else None, spread=_spread(trials),
        half_life_tokens=_median_half_life(trials, measures), first_step_out_of_noise=_out_of_noise(done, measures),
    )  # fmt: skip


def _by_unit(units: Mapping[str, Sequence[Trial]], keep: Callable[[Trial], bool]) -> list[list[Trial]]:
    found = [[trial for trial in unit if keep(trial)] for unit in units.values()]
    return [unit for unit in found if unit]


def _spread(trials: Sequence[Trial]) -> float | None:
    """Between seeds of fine-tuning of one checkpoint, pooled over checkpoints; None with one seed each."""
    by_checkpoint: dict[str, list[float]] = {}
    for trial in trials:
        if not trial.has_diverged:
            by_checkpoint.setdefault(trial.checkpoint, []).append(float(trial.curve.lost[-1]))
    groups = [np.array(values) for values in by_checkpoint.values() if len(values) > 1]
    if not groups:
        return None
    return math.sqrt(sum(float(((g - g.mean()) ** 2).sum()) for g in groups) / sum(len(g) - 1 for g in groups))


def half_life_of(trial: Trial, measures: Measures) -> float | None:
    """Tokens until half of the capability is left; infinite where more is left at the end; None without a base."""
    if measures.base is None or measures.before is None:
        return None
    left = share_kept(trial.curve.lost, measures.before[trial.checkpoint], measures.base)
    found = half_life(trial.curve.tokens, left)
    if found is None and trial.has_diverged:
        return float(trial.curve.tokens[-1])  # it was lost after its last finite evaluation
    return math.inf if found is None else found


def _median_half_life(trials: Sequence[Trial], measures: Measures) -> float | None:
    values = [half_life_of(trial, measures) for trial in trials]
    known = [value for value in values if value is not None]
    middle = float(np.median(known)) if known else math.inf
    return middle if math.isfinite(middle) else None


def typical_half_life(measures: Measures) -> tuple[Number | None, float | None]:
    """The median over plain settings, by unit; its interval is of the logarithm. Or the least that it can be."""
    by_unit: dict[str, list[float]] = {}
    longest = 0.0
    for setting in measures.model.whole:
        for unit, trials in measures.model.groups[setting].items():
            for trial in trials:
                value = half_life_of(trial, measures)
                if value is None:
                    return None, None
                by_unit.setdefault(unit, []).append(value)
                longest = max(longest, float(trial.curve.tokens[-1]))
    medians = [float(np.median(values)) for values in by_unit.values()]
    if not medians or not all(0 < value < math.inf for value in medians):
        return None, longest or None
    found = mean_interval(np.log(medians))
    ends = [None if end is None else math.exp(end) for end in (found.low, found.high)]
    return Number(value=math.exp(float(np.mean(np.log(medians)))), low=ends[0], high=ends[1], n=len(medians)), None


def _out_of_noise(units: Sequence[Sequence[Trial]], measures: Measures) -> int | None:
    """The first step from which on the loss is out of the noise; with one unit nothing can be said."""
    if not units:
        return None
    length = min(len(trial.curve.steps) for unit in units for trial in unit)
    lows, highs = [], []
    for at in range(1, length):
        found = measures.lost(np.array([np.mean([trial.curve.lost[at] for trial in unit]) for unit in units]))
        lows.append(found.low)
        highs.append(found.high)
    first = first_out_of_noise(lows, highs)
    return None if first is None else int(units[0][0].curve.steps[first + 1])


def survival(measures: Measures) -> list[SurvivalPoint]:
    """What is left by tokens: at each step the three customers among all plain settings, new corpora counted once."""
    side = measures.model
    whole = [setting for setting in side.whole if measures.gains[setting.corpus] is not None]
    if not whole:
        return []
    grid = max((unit[0].curve for s in whole for unit in side.groups[s].values()), key=lambda curve: len(curve.steps))
    corpora = dict.fromkeys(setting.corpus for setting in whole)
    points = []
    for at, tokens in enumerate(grid.tokens):
        parts = []
        for corpus in corpora:
            table = np.array([_lost_after(side, s, at) for s in whole if s.corpus == corpus])
            parts.append([np.median(table, axis=0), np.min(table, axis=0), np.max(table, axis=0)])
        typical, careful, careless = np.mean(parts, axis=0)
        gains = [
            c.gains[min(at, len(c.gains) - 1)] for s in whole for unit in side.groups[s].values() for c in _curves(unit)
        ]
        points.append(
            SurvivalPoint(
                tokens=float(tokens), gain=float(np.mean(gains)), lost=number(measures.lost(typical)),
                careful=float(careful.mean()), careless=float(careless.mean()),
            )
        )  # fmt: skip
    return points


def _curves(trials: Sequence[Trial]) -> list[Curve]:
    return [trial.curve for trial in trials]


def _lost_after(side: Side, setting: Setting, at: int) -> Numbers:
    """By unit; a trial that has diverged before counts with the worst loss."""
    found = []
    for unit in side.units:
        values = []
        for trial in side.groups[setting][unit]:
            curve = trial.curve
            is_there = at < len(curve.steps)
            values.append(float(curve.lost[at]) if is_there else max(0.0, WORST_LOSS - float(curve.kept[0])))
        found.append(float(np.mean(values)))
    return np.array(found)


def relearning_rows(
    measures: Measures, controls: Mapping[tuple[str, int], Mapping[int, float]], updates: Sequence[int]
) -> list[Relearned]:
    """What relearning restores: ratios of sums over the settings, by unit, so that small losses do not decide.

    Empty where no trial was relearned, as when the budget left relearning out.
    """
    groups = measures.model.groups.values()
    if not any(trial.relearned for units in groups for trials in units.values() for trial in trials):
        return []
    return [_relearned(measures, controls, count) for count in sorted(updates)]


def _relearned(measures: Measures, controls: Mapping[tuple[str, int], Mapping[int, float]], updates: int) -> Relearned:
    side = measures.model
    sums: dict[str, NDArray[np.float64]] = {}
    settings = [
        setting for setting in side.whole
        if all(updates in trial.relearned for unit in side.groups[setting].values() for trial in unit)
    ]  # fmt: skip
    has_controls = True
    for setting in settings:
        for unit, trials in side.groups[setting].items():
            for trial in trials:
                after, end = trial.relearned[updates], float(trial.curve.kept[-1])
                control = controls.get((trial.checkpoint, trial.seed), {}).get(updates)
                has_controls = has_controls and control is not None
                row = np.array([end - trial.curve.kept[0], end - after, after - (control or 0.0)])
                sums[unit] = sums.get(unit, np.zeros(3)) + row
    table = np.array(list(sums.values())).reshape(-1, 3)
    is_lost = (
        len(table) > 0 and bool((table[:, 0] > 0).all()) and (measures.lost(table[:, 0] / len(settings)).low or 0) > 0
    )
    if not is_lost:
        return Relearned(updates=updates, restored=None, missing=None, settings=len(settings))
    return Relearned(
        updates=updates,
        restored=number(estimate(table[:, 1] / table[:, 0])),
        missing=number(estimate(table[:, 2] / table[:, 0])) if has_controls else None,
        settings=len(settings),
    )
