"""One ledger with what the study asks of it, and what must hold of it alone; `audit_checks` compares several."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from indelible.data.ledger import Ledger, placed_rows
from indelible.study.arm import ArmSpec
from indelible.study.purposes import purpose_of
from indelible.study.stage_data import mix_tokens
from indelible.study.stage_spec import MixUse, StageSpec
from indelible.study.training import MixSpec


@dataclass(frozen=True)
class BuiltLedger:
    """A ledger, the spec and the arm that it was built from, and the stage runs that train in its order."""

    spec: StageSpec
    arm: ArmSpec
    ledger: Ledger
    runs: list[str]

    @property
    def base_windows(self) -> int:
        """Windows of the passes over the stage's own corpus, with what is mixed into each of them."""
        data = self.spec.data
        return data.total_windows - data.replaced_windows if data.main.windows else 0

    def setting_of(self, use: MixUse) -> MixSpec:
        """What the study says of a mix."""
        stage = self.spec.stage
        entries = self.arm.stages[stage].mix
        return next(entry for entry in entries if purpose_of(stage, entry, self.arm) == use.purpose)

    def mix_tokens(self, use: MixUse) -> int:
        """Tokens of a mix that the study asks for, before they are cut into windows: in each pass, or in all."""
        return mix_tokens(self.spec.stage, self.setting_of(use), self.arm)

    def shown(self, store: str) -> np.ndarray:
        """Windows of one store, by whatever use, in the order in which they are trained on."""
        uses = [index for index, name in enumerate(self.ledger.stores) if name == store]
        return self.ledger.window[_is_of(self.ledger, uses)]


def _is_of(ledger: Ledger, uses: list[int]) -> np.ndarray:
    """Which rows are of some uses: bool. One byte a row, where `numpy.isin` takes ten."""
    is_of = np.zeros(len(ledger), bool)
    for use in uses:
        is_of |= ledger.source == use
    return is_of


def requested_tokens(built: BuiltLedger) -> dict[str, int]:
    """Tokens that are asked of each use: of a mix by the study, of the stage's own corpus by the spec.

    Nothing is taken from the ledger. A mix that is shown in each pass has its share of the last, cut pass.
    """
    spec, data, names = built.spec, built.spec.data, built.ledger.uses
    if not built.base_windows:
        return dict.fromkeys(names, 0)
    passes = built.base_windows / data.pass_windows
    own = (built.base_windows + round(passes * data.main.windows) * (data.main.sequences - 1)) * spec.seq_len
    tokens = {names[0]: own}
    for name, use in zip(names[1:], data.mix, strict=True):
        if use.per == "stage":
            tokens[name] = built.mix_tokens(use)
        else:
            tokens[name] = round(built.mix_tokens(use) * passes)
            own -= round(use.total_windows * passes) * spec.seq_len
    return tokens | {names[0]: own}


def counts_are_exact(built: BuiltLedger) -> Iterator[bool]:
    """For each use, whether as many tokens are shown as are asked for, to within one window (a pass)."""
    ledger, data, seq_len = built.ledger, built.spec.data, built.spec.seq_len
    if not built.base_windows:
        yield len(ledger) == 0
        return
    per_stage = [index for index, use in enumerate(data.mix, start=1) if use.per == "stage"]
    for index in per_stage:
        shown = int(np.count_nonzero(ledger.source == index))
        yield abs(shown * seq_len - built.mix_tokens(data.mix[index - 1])) <= seq_len
    base = ledger.source[~_is_of(ledger, per_stage)] if per_stage else ledger.source
    starts = range(0, built.base_windows, data.pass_windows)
    passes = [np.bincount(base[start : start + data.pass_windows], minlength=len(data.uses)) for start in starts]
    is_cut = built.base_windows % data.pass_windows != 0
    for index, use in enumerate(data.uses):
        if index in per_stage:
            continue
        asked = built.mix_tokens(use) if isinstance(use, MixUse) else use.windows * seq_len
        complete = passes[:-1] if is_cut else passes
        is_exact = all(abs(int(counts[index]) * seq_len - asked) <= seq_len for counts in complete)
        yield is_exact and passes[-1][index] <= use.windows and len(base) == built.base_windows


def passes_are_distinct(built: BuiltLedger) -> Iterator[bool]:
    """For each use, whether each of its passes shows each window at most once."""
    for index, use in enumerate(built.spec.data.uses):
        shown = built.ledger.shown(index)
        parts = [shown[start : start + use.windows] for start in range(0, len(shown), max(1, use.windows))]
        yield all(num_distinct(part) == len(part) for part in parts)


def lie_in_place(built: BuiltLedger) -> Iterator[bool]:
    """For each mix that has a place in the stage, whether all its windows lie there."""
    for index, use in enumerate(built.spec.data.mix, start=1):
        if use.per == "stage" and len(built.ledger):
            is_mixed = built.ledger.source == index
            low, high = placed_rows(use, built.spec.data)
            yield not is_mixed[:low].any() and not is_mixed[high:].any()


def num_distinct(windows: np.ndarray) -> int:
    """Different windows among some: marked, not sorted, since there may be millions."""
    return int(np.count_nonzero(marked(windows))) if len(windows) else 0


def marked(windows: np.ndarray) -> np.ndarray:
    """Which windows are among some: bool, as long as the highest one needs."""
    is_there = np.zeros(int(windows.max(initial=0)) + 1, bool)
    is_there[windows] = True
    return is_there
