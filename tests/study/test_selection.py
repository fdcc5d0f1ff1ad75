"""Chains are chosen by number, by the name of an arm and by column=value."""

from dataclasses import dataclass
from typing import Any

import pytest

from indelible.errors import UserError
from indelible.study.selection import chosen_chains, equals_text


@dataclass(frozen=True)
class Chain:
    columns: dict[str, Any]


CHAINS = [
    Chain({"arm": arm, "exposure_fraction": fraction, "allocation": "full", "seed": seed, "dropout": dropout})
    for arm, fraction, dropout in (("plain", 0.0, None), ("early", 0.5, 0.02), ("lr=3", 1.0, 0.05))
    for seed in (0, 1)
]


def numbers(*selectors: str) -> list[int]:
    return [CHAINS.index(chain) for chain in chosen_chains(CHAINS, selectors)]


def test_by_number_name_and_column():
    assert numbers() == [0, 1, 2, 3, 4, 5]
    assert numbers("3") == [3]
    assert numbers("early") == [2, 3]
    assert numbers("seed=1") == [1, 3, 5]
    assert numbers("exposure_fraction=.5", "seed=1") == [3]
    assert numbers("allocation=full", "exposure_fraction=1") == [4, 5]
    assert numbers("lr=3") == [4, 5], "an arm may have such a name"
    assert numbers("dropout=none") == [0, 1]
    assert numbers("dropout=0.02") == [2, 3]


def test_what_fits_no_chain_is_refused_with_the_ways_to_say_it():
    with pytest.raises(UserError, match=r"--arm 99: none of the plan's 6 chains; give a number below 6, the name of"):
        numbers("99")
    with pytest.raises(UserError, match=r"--arm seed=7: none of the plan's 6 chains that fulfil early; give a number"):
        numbers("early", "seed=7")
    with pytest.raises(UserError, match=r"--only sede=1: .* no column 'sede'; they have arm, exposure_fraction, alloc"):
        chosen_chains(CHAINS, ["sede=1"], "--only")


def test_settings_equal_what_users_write():
    assert equals_text(1e-4, "0.0001")
    assert equals_text(3, "3.0")
    assert equals_text(True, "true")
    assert not equals_text(True, "1")
    assert not equals_text(None, "0")
    assert not equals_text("full", "Full")
