"""From the trials of both sides to estimates: what the rows of the card are made of."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from indelible.durability.card import Compared, CustomerRow, Number, WorstOf
from indelible.durability.documents import DocumentErrors
from indelible.durability.intervals import Estimate, difference, estimate
from indelible.durability.request import CUSTOMERS, GAINS, LEVEL, Customer
from indelible.durability.sides import AtGain, BestGain, Side, at_gain, best_gain, by_customer, common_start
from indelible.statistics.inference import holm

Numbers = NDArray[np.float64]
NO_ERRORS = DocumentErrors()


def number(found: Estimate) -> Number:
    """An estimate as the card has it."""
    return Number(value=found.value, low=found.low, high=found.high, n=found.n)


@dataclass(frozen=True)
class Measures:
    """Both sides at equal gain."""

    model: Side
    against: Side | None
    later: tuple[str, ...]
    errors: DocumentErrors = NO_ERRORS
    before: Mapping[str, float] | None = None  # checkpoint id to L_im, nats per token
    base: float | None = None  # L_base; None where there is no base, or it is not worse than the model

    @property
    def sides(self) -> list[Side]:
        """The model first."""
        return [self.model, *([self.against] if self.against else [])]

    @cached_property
    def gains(self) -> dict[str, BestGain | None]:
        """The best gain by new corpus."""
        return {corpus: best_gain(self.sides, corpus) for corpus in self.later}

    @cached_property
    def starts(self) -> dict[str, float]:
        """The loss that gains count from, by new corpus, nats per token."""
        return {corpus: common_start(self.sides, corpus) for corpus in self.later}

    @cached_property
    def at(self) -> dict[float, list[dict[str, AtGain]]]:
        """By part of the gain and side: what each new corpus's settings have lost. A corpus without gain is missing."""
        found: dict[float, list[dict[str, AtGain]]] = {}
        for part in GAINS:
            found[part] = [{} for _ in self.sides]
            for corpus, best in self.gains.items():
                read = at_gain(self.sides, corpus, part * best.gain) if best else None
                for place, one in zip(found[part], read or (), strict=False):
                    place[corpus] = one
        return found

    @cached_property
    def capability(self) -> Numbers | None:
        """L_base - L_im by unit of the model's side, nats per token; None without a base."""
        if self.base is None or self.before is None:
            return None
        origin = {self.model.unit_of(trial): self.before[trial.checkpoint] for trial in self.model.trials}
        return self.base - np.array([origin[unit] for unit in self.model.units])

    def lost(self, values: Numbers) -> Estimate:
        """A loss lost, one a unit of the model's side, nats per token."""
        return estimate(values, self._documents(self.errors.lost) * abs(float(values.mean())), self.errors.documents)

    def share(self, values: Numbers) -> Estimate | None:
        """The same as the share of the capability that is left; None without a base."""
        if self.capability is None:
            return None
        gone = values / self.capability
        error = self._documents(self.errors.share) * abs(float(gone.mean()))
        return estimate(1 - gone, error, self.errors.documents)

    def _documents(self, error: float) -> float:
        """Documents count where the statement is about two files; about recipes it is on these documents."""
        return 0.0 if self.model.is_recipe else error

    def customers(self) -> list[CustomerRow]:
        """Every customer at every part of the gain: over all new corpora, and on each where there are several."""
        rows = []
        for part, (mine, *_) in self.at.items():
            for later, found in _together(mine):
                settings = sum(len(one.settings) for one in found.values())
                rows += [
                    self._customer(later, part, who, values, settings) for who, values in by_customer(found).items()
                ]
        return rows

    def _customer(self, later: str, part: float, who: Customer, values: Numbers, settings: int) -> CustomerRow:
        share = self.share(values)
        return CustomerRow(
            later=later, gain=part, customer=who, lost=number(self.lost(values)),
            share=None if share is None else number(share), settings=settings,
        )  # fmt: skip

    def worst_of(self, part: float) -> list[WorstOf]:
        """The careless customer by number of trials, on each new corpus: means over units."""
        rows = []
        for later, found in self.at[part][0].items():
            by_unit = found.worst_by_trials
            share = None if self.capability is None else (1 - by_unit / self.capability).mean(axis=1)
            rows.append(
                WorstOf(
                    later=later, lost=tuple(by_unit.mean(axis=1).tolist()),
                    share=None if share is None else tuple(share.tolist()),
                )
            )  # fmt: skip
        return rows

    def compared(self, main: tuple[float, Customer], error_at_end: tuple[float, int] = (0.0, 0)) -> list[Compared]:
        """The model against the other side, for every customer and part of the gain.

        One family at one level, in a fixed order: the main row (the gain and the customer that the audit is about, over
        all new corpora) is judged at the level itself, and the others, by Holm, only where it is found.

        Args:
            main: part of the gain, and customer.
            error_at_end: standard error by document of the difference at the end of trials, and how many documents.
        """
        if self.against is None:
            return []
        rows: list[tuple[str, float, Customer, Estimate]] = []
        for part, (mine, theirs) in self.at.items():
            error = self._documents(error_at_end[0]) * self._scale(mine, theirs)
            for (later, one), (_, other) in zip(_together(mine), _together(theirs), strict=True):
                first, second = by_customer(one), by_customer(other)
                for who in CUSTOMERS:
                    rows.append((later, part, who, difference(first[who], second[who], error, error_at_end[1])))
        is_main = [(later, part, who) == ("all", *main) for later, part, who, _ in rows]
        gate = next((row[3].p for row, one in zip(rows, is_main, strict=True) if one), None)
        others = iter(holm([row[3].p for row, one in zip(rows, is_main, strict=True) if not one]))
        adjusted = [row[3].p if one else _behind(gate, next(others)) for row, one in zip(rows, is_main, strict=True)]
        return [
            Compared(
                later=later, gain=part, customer=who, is_main=one, difference=number(found), p=found.p, p_adjusted=p,
                verdict=_difference_verdict(found.value, p),
            )
            for (later, part, who, found), p, one in zip(rows, adjusted, is_main, strict=True)
        ]  # fmt: skip

    def _scale(self, mine: Mapping[str, AtGain], theirs: Mapping[str, AtGain]) -> float:
        """How much of the loss at the end of trials is lost at the gain already."""
        ends, here = 0.0, 0.0
        for side, found in zip(self.sides, (mine, theirs), strict=True):
            for one in found.values():
                here += float(np.abs(one.lost).mean())
                trials = [trial for setting in one.settings for unit in side.groups[setting].values() for trial in unit]
                ends += float(np.mean([abs(trial.curve.lost[-1]) for trial in trials]))
        return min(1.0, here / ends) if ends else 1.0


def _together(found: Mapping[str, AtGain]) -> list[tuple[str, Mapping[str, AtGain]]]:
    """All new corpora as one, then each by itself where there are several."""
    if not found:
        return []
    alone: list[tuple[str, Mapping[str, AtGain]]] = [(name, {name: one}) for name, one in found.items()]
    return [("all", found), *(alone if len(alone) > 1 else [])]


def _behind(gate: float | None, p: float | None) -> float | None:
    """The p of a row that is only judged where the gate's is found."""
    return None if gate is None or p is None else max(gate, p)


def _difference_verdict(value: float, p: float | None) -> Literal["keeps more", "keeps less", "no difference found"]:
    if p is None or p > LEVEL:
        return "no difference found"
    return "keeps more" if value < 0 else "keeps less"


def pooled(values: Sequence[float | None]) -> float | None:
    """The root of the mean square of what is there."""
    known = [value**2 for value in values if value is not None]
    return float(np.sqrt(np.mean(known))) if known else None
