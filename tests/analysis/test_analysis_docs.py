"""docs/analysis.md says what the code does."""

import re
from pathlib import Path

from scipy import stats

from indelible.analysis.claims import CLAIMS
from indelible.analysis.columns import COLUMNS
from indelible.analysis.inference import detectable_effect

TEXT = (Path(__file__).parents[2] / "docs" / "analysis.md").read_text()


def test_every_column_is_documented_with_its_type_and_unit():
    for column in COLUMNS:
        meaning = column.meaning.replace("|", "\\|")
        assert f"| `{column.name}` | {column.dtype.__name__} | {column.unit} | {meaning} |" in TEXT


def test_the_detectable_effects_in_units_of_the_spread():
    found = {int(n): float(value) for value, n in re.findall(r"([\d.]+) with (\d+)", TEXT)}
    assert set(found) == {2, 3, 4, 5, 10}
    for n, value in found.items():
        assert value == round(detectable_effect(1.0, n), 2)


def test_every_claim_is_documented():
    for claim in CLAIMS:
        assert f"| `{claim.name}` | {claim.source} | {claim.text} |" in TEXT


def test_the_level_that_the_detectable_effect_amounts_to():
    found = {int(n): float(p) for p, n in re.findall(r"(0\.0\d+) for (\d+)", TEXT)}
    assert set(found) == {3, 4, 5}
    for n, p in found.items():
        statistic = detectable_effect(1.0, n) * n**0.5
        assert p == round(2 * float(stats.t.sf(statistic, n - 1)), 3)
