"""The block "by exposure" of the page: a panel for each treatment and stage-3 rate, of which the reader chooses one."""

from collections.abc import Sequence
from dataclasses import dataclass

from indelible.claims.by_exposure import answer, cells, default_rate, note
from indelible.results.labels import value_text
from indelible.statistics.by_exposure import ExposureBlock

MAX_PANELS = 96  # the first ones; the rest is a command away


@dataclass(frozen=True)
class Panel:
    """One treatment at one stage-3 rate."""

    scope: str
    rate: str
    answer: str
    rows: list[dict[str, str]]


@dataclass(frozen=True)
class ExposureView:
    """All panels, the one that is shown first before the others."""

    panels: list[Panel]
    rate: str  # that is shown first
    note: str
    num_left_out: int

    @property
    def scopes(self) -> list[str]:
        """The treatments, in order."""
        return list(dict.fromkeys(panel.scope for panel in self.panels))

    @property
    def rates(self) -> list[str]:
        """The stage-3 rates, rising."""
        return sorted({panel.rate for panel in self.panels}, key=_as_number)


def exposure_view(blocks: Sequence[ExposureBlock]) -> ExposureView | None:
    """What the page shows by exposure; None where no chains with and without it can be compared."""
    if not blocks:
        return None
    ordered = sorted(blocks, key=lambda block: -len(block.rows))  # most lambdas first, else as they come
    shown = ordered[:MAX_PANELS]
    first = [block for block in shown if block.scope == shown[0].scope]
    panels = [Panel(block.scope or "all", _rate(block), answer(block), cells(block)) for block in shown]
    rate = default_rate(first)
    return ExposureView(panels, "" if rate is None else _text(rate), note(blocks), len(blocks) - len(shown))


def _rate(block: ExposureBlock) -> str:
    return "" if block.rate is None else _text(block.rate)


def _text(rate: float) -> str:
    return value_text("finetune_lr", rate)


def _as_number(text: str) -> float:
    return float(text or 0)
