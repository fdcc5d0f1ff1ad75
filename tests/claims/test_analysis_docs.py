"""docs/analysis.md says what the code does."""

import re
from pathlib import Path

from indelible.claims.paper_claims import CLAIMS
from indelible.results.columns import COLUMNS
from indelible.statistics.inference import FLAT_MARGIN, LEVEL, WORST_LOSS
from indelible.statistics.planning import detectable_effect
from indelible.statistics.sequential import LOOKS, detectable_shift, sequential_design

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


def test_what_a_study_states_by_default():
    assert f"{100 * LEVEL:g} %" in TEXT
    assert f"±{FLAT_MARGIN:g} nats" in TEXT
    assert f"{WORST_LOSS:g} nats" in TEXT


def test_the_sequential_design_is_the_one_described():
    design = sequential_design()
    assert f"{', '.join(map(str, LOOKS[:-1]))} and {LOOKS[-1]} seeds" in TEXT
    assert ", ".join(f"{one:.4f}" for one in design.nominal) in TEXT
    assert f"{detectable_shift(design):.2f} standard deviations" in TEXT
