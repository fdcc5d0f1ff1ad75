"""One side of an audit: its trials by setting and unit, read at equal gain on the new task, for three customers."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from indelible.durability.readouts import first_reaching, worst_of
from indelible.durability.request import CUSTOMERS, Customer
from indelible.durability.study import Setting
from indelible.durability.trials import Trial
from indelible.statistics.inference import WORST_LOSS

Numbers = NDArray[np.float64]
Units = dict[str, list[Trial]]
_OVER_SETTINGS: dict[Customer, Callable[[Numbers], Numbers]] = {
    "careful": lambda lost: np.min(lost, axis=0),
    "typical": lambda lost: np.median(lost, axis=0),
    "careless": lambda lost: np.max(lost, axis=0),
}


@dataclass(frozen=True)
class Side:
    """The trials of one checkpoint, or of one recipe's checkpoints."""

    label: str
    trials: tuple[Trial, ...]
    is_recipe: bool  # the unit is the checkpoint; else the seed of fine-tuning

    @cached_property
    def units(self) -> tuple[str, ...]:
        """What is independent of what, in order of appearance."""
        return tuple(dict.fromkeys(self.unit_of(trial) for trial in self.trials))

    def unit_of(self, trial: Trial) -> str:
        """The unit that a trial belongs to."""
        return trial.checkpoint if self.is_recipe else f"seed {trial.seed}"

    @cached_property
    def groups(self) -> dict[Setting, Units]:
        """Trials by setting and unit, in order of appearance."""
        found: dict[Setting, Units] = {}
        for trial in self.trials:
            found.setdefault(trial.setting, {}).setdefault(self.unit_of(trial), []).append(trial)
        return found

    @cached_property
    def whole(self) -> tuple[Setting, ...]:
        """Plain settings that every unit has tried: replay and padding are not what customers do by themselves."""
        return tuple(one for one, units in self.groups.items() if one.is_plain and len(units) == len(self.units))


def common_start(sides: Sequence[Side], corpus: str) -> float:
    """The loss on a new corpus before any trial, nats per token: the mean over the units of all sides.

    Gains count from here, so that one gain is one loss on the new task whichever checkpoint a trial starts from. From
    each checkpoint's own start, one that is nearer to the new task would be asked to go further.
    """
    losses: dict[str, list[float]] = {}
    for side in sides:
        for trial in side.trials:
            if trial.setting.corpus == corpus:
                losses.setdefault(trial.checkpoint, []).append(float(trial.curve.new[0]))
    return float(np.mean([np.mean(own) for own in losses.values()])) if losses else 0.0


def lost_at(trial: Trial, target: float, start: float | None = None) -> float | None:
    """The loss lost on the kept corpus where the trial first is ``target`` below ``start`` on the new one.

    A trial that diverged before counts as the worst loss. None for one that never gets there. All in nats per token;
    without ``start``, from the trial's own.
    """
    crossing = first_reaching(trial.curve.gains if start is None else start - trial.curve.new, target)
    if crossing is not None:
        return crossing.read(trial.curve.lost)
    return max(0.0, WORST_LOSS - float(trial.curve.kept[0])) if trial.has_diverged else None


@dataclass(frozen=True)
class BestGain:
    """The largest gain on a new corpus that some setting reaches in every unit of every side."""

    gain: float  # nats per token below `common_start`
    setting: Setting


def best_gain(sides: Sequence[Side], corpus: str) -> BestGain | None:
    """The gain that the parts (a half, four fifths) are of: that of the setting whose weakest unit gains most.

    So the setting that defines it reaches every part of it in every unit, and the comparison is never empty. None where
    nothing gains.
    """
    best: BestGain | None = None
    start = common_start(sides, corpus)
    for setting in _common(sides, corpus):
        weakest = min(
            float(np.mean([start - trial.curve.new.min() for trial in trials]))
            for side in sides
            for trials in side.groups[setting].values()
        )
        if weakest > 0 and (best is None or weakest > best.gain):
            best = BestGain(weakest, setting)
    return best


@dataclass(frozen=True)
class AtGain:
    """What the settings of one corpus have lost at one gain, on one side."""

    settings: tuple[Setting, ...]  # that get there in every unit of every side
    lost: Numbers  # (settings, units), nats per token
    left_out: tuple[Setting, ...]  # plain settings that do not

    def of(self, customer: Customer) -> Numbers:
        """By unit: the least, the median or the largest loss over settings, nats per token."""
        return np.asarray(_OVER_SETTINGS[customer](self.lost), dtype=np.float64)

    @property
    def worst_by_trials(self) -> Numbers:
        """(settings, units): the expected worst of k settings, k = 1 .. all."""
        return np.column_stack([worst_of(column) for column in self.lost.T])


def at_gain(sides: Sequence[Side], corpus: str, target: float) -> list[AtGain] | None:
    """Reads every side at one gain; None where no setting gets there in every unit of every side."""
    values: dict[Setting, list[Numbers]] = {}
    common, start = _common(sides, corpus), common_start(sides, corpus)
    for setting in common:
        rows = [_row(side, setting, target, start) for side in sides]
        if all(row is not None for row in rows):
            values[setting] = [row for row in rows if row is not None]
    if not values:
        return None
    left_out = tuple(one for one in common if one not in values)
    return [
        AtGain(tuple(values), np.array([rows[number] for rows in values.values()]), left_out)
        for number in range(len(sides))
    ]


def _row(side: Side, setting: Setting, target: float, start: float) -> Numbers | None:
    """By unit; several trials of a unit (seeds of one checkpoint) are averaged."""
    found = []
    for unit in side.units:
        values = [lost_at(trial, target, start) for trial in side.groups[setting][unit]]
        if any(value is None for value in values):
            return None
        found.append(float(np.mean([value for value in values if value is not None])))
    return np.array(found)


def _common(sides: Iterable[Side], corpus: str) -> list[Setting]:
    """Plain settings of a corpus that every unit of every side has tried."""
    first, *others = sides
    return [one for one in first.whole if one.corpus == corpus and all(one in side.whole for side in others)]


def by_customer(found: Mapping[str, AtGain]) -> dict[Customer, Numbers]:
    """By unit, for each customer: the mean over the new corpora, each counted once."""
    return {who: np.mean([one.of(who) for one in found.values()], axis=0) for who in CUSTOMERS}
