"""Which chains of a study are meant: by number, by the name of an arm, or by column=value of the results table."""

from collections.abc import Container, Sequence
from typing import Any, Protocol, TypeVar

from indelible.errors import UserError

OTHER_NAMES = {"lambda": "exposure_fraction", "λ": "exposure_fraction"}  # what every page calls it


def column_named(text: str, columns: Container[str]) -> str:
    """The column that is meant: itself, or the one that is also called so."""
    return text if text in columns else OTHER_NAMES.get(text, text)


class HasColumns(Protocol):
    """A chain, of a graph or of a plan."""

    @property
    def columns(self) -> dict[str, Any]: ...  # settings and seed by column of the results table


Chain = TypeVar("Chain", bound=HasColumns)


def chosen_chains(chains: Sequence[Chain], selectors: Sequence[str], option: str = "--arm") -> tuple[Chain, ...]:
    """The chains that fulfil all selectors.

    Args:
        chains: all chains of the study, in the order of its plan.
        selectors: each a number in the plan, the name of an arm, or ``column=value``, e.g. ``exposure_fraction=0.5``
            or ``seed=0``; ``none`` is the value of a column that a chain does not have.
        option: how the user gave them, for messages.

    Raises:
        UserError: a column that the chains do not have, or nothing fulfils the selectors.
    """
    chosen = list(enumerate(chains))
    known = {column for chain in chains for column in chain.columns}
    for given in selectors:
        name, equals, value = given.partition("=")
        selector = f"{column_named(name, known)}={value}" if equals else given
        _check_column(chains, selector, option)
        chosen = [(number, chain) for number, chain in chosen if _is_meant(number, chain.columns, selector)]
        if not chosen:
            count = len(chains)
            raise UserError(
                f"{option} {selector}: none of the plan's {count} chains{_beside(selectors, given)}; give a number "
                f"below {count}, the name of an arm, or column=value as in the results table, e.g. "
                "exposure_fraction=0.5 or seed=0."
            )
    return tuple(chain for _, chain in chosen)


def _beside(selectors: Sequence[str], selector: str) -> str:
    before = list(selectors)[: list(selectors).index(selector)]
    return f" that fulfil {' and '.join(before)}" if before else ""


def _check_column(chains: Sequence[HasColumns], selector: str, option: str) -> None:
    column, equals, _ = selector.partition("=")
    is_arm = any(chain.columns.get("arm") == selector for chain in chains)
    if equals and not is_arm and not any(column in chain.columns for chain in chains):
        known = ", ".join(dict.fromkeys(name for chain in chains for name in chain.columns))
        raise UserError(f"{option} {selector}: the plan's chains have no column {column!r}; they have {known}.")


def _is_meant(number: int, columns: dict[str, Any], selector: str) -> bool:
    if selector in (str(number), columns.get("arm")):
        return True
    column, equals, value = selector.partition("=")
    return bool(equals) and column in columns and equals_text(columns[column], value)


def equals_text(value: Any, text: str) -> bool:
    """Whether a setting is what a user wrote: numbers by value, else without regard to case."""
    if value is None or isinstance(value, bool):
        return str(value).casefold() == text.casefold()
    try:
        return float(value) == float(text)
    except (TypeError, ValueError):
        return str(value) == text
