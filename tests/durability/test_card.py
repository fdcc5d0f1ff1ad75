"""The card: what it concludes, and its three files, safe with any text."""

import re
from importlib import resources

import pytest
import yaml
from accessible import contrast, faults, variables
from fake_trials import battery_trials

from indelible.durability.battery import Battery
from indelible.durability.card import EXIT_CODES, Audit, Later, Scope, schema
from indelible.durability.card_html import MOST_ROWS, card_html
from indelible.durability.card_text import card_markdown
from indelible.durability.charts import ticks
from indelible.durability.measures import Measures
from indelible.durability.request import Requirement, make_request
from indelible.durability.rows import relearning_rows, setting_rows, survival, typical_half_life
from indelible.durability.sides import Side
from indelible.durability.study import portions
from indelible.durability.verdict import judge
from indelible.durability.wording import edge_of, not_tested, proxy_text, sentence, threat_model


def request_of(**more):
    return make_request(["hub/some-model"], "instruction", ["chemistry"], Battery(), **more)


def measures_of(*, base=None, other=None, seeds=(0, 1, 2), **more) -> Measures:
    side = Side("a", battery_trials("given-a", seeds, **more), False)
    against = None if other is None else Side("b", battery_trials("given-b", seeds, forgetting=other), False)
    return Measures(side, against, ("chemistry",), before={"given-a": 2.0, "given-b": 2.0}, base=base)


def audit_of(name="hub/some-model", later="chemistry", *, base=None, other=None, seeds=(0, 1, 2)) -> Audit:
    """A card of made-up trials; names may be anything."""
    request = request_of(base="before" if base else None)
    measures = measures_of(base=base, other=other, seeds=seeds)
    judged = judge(request, measures.customers(), 0, has_base=base is not None)
    rows = setting_rows(measures)
    half_life, least = typical_half_life(measures)
    portion = portions(request)[-1]
    best = measures.gains["chemistry"]
    return Audit(
        format=1, verdict=judged.verdict, exit_code=EXIT_CODES[judged.verdict], reason=judged.reason,
        sentence=sentence(request, judged.verdict, judged.kept, judged.require), kept=judged.kept,
        require=judged.require, customer="typical", gain=0.8, model=(name,), keep="instruction",
        later=(Later(name=later, best_gain=best.gain, best_setting=best.setting.name,
                     edge=edge_of(rows, best.setting.name)),),
        base=request.base, against=("other",) if other else (), checkpoints={name: "given-a"},
        seeds=(0, 1, 2), battery={"name": name},
        scope=Scope(unit="seed of fine-tuning", units=3, covers="These files.", level=0.05),
        capability=None if base is None else base - 2.0, before=2.0, trials=9, unfinished=0, diverged=0,
        customers=tuple(measures.customers()), settings=tuple(rows),
        relearning=tuple(relearning_rows(measures, {}, (5,))), worst_of=tuple(measures.worst_of(0.8)),
        survival=tuple(survival(measures)), half_life=half_life, half_life_at_least=least, noise=0.01,
        comparison=tuple(measures.compared((0.8, "typical"))), warnings=(f"a note on {name}",), left_out=("seed 4",),
        threat_model=threat_model(request, portion), not_tested=not_tested(request, portion),
        proxy=proxy_text(request), cost={"stage_runs": 9.0, "trained_tokens": 1e6, "flops": 1e9, "worker_hours": 0.5},
        environment={"indelible": "x"}, study="out",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("require", "verdict"),
    [(0.2, "durable"), (0.9, "not_durable"), (None, "not_durable")],
)
def test_a_share_is_durable_above_the_bar(require, verdict):
    request = request_of(base="before", require=require)
    rows = measures_of(base=3.0).customers()
    kept = judge(request, rows, 0, has_base=True).kept
    assert kept.low < kept.value < kept.high
    assert judge(request, rows, 0, has_base=True).verdict == verdict
    inside = request_of(base="before", require=kept.value)
    assert judge(inside, rows, 0, has_base=True).verdict == "cannot_tell"


@pytest.mark.parametrize(("nats", "verdict"), [(0.9, "durable"), (0.01, "not_durable"), (None, "not_durable")])
def test_nats_are_durable_below_the_bar(nats, verdict):
    request = request_of(require=None if nats is None else f"{nats}nats")
    assert judge(request, measures_of().customers(), 0, has_base=False).verdict == verdict


def test_what_cannot_be_told_says_why():
    request, rows = request_of(), measures_of().customers()
    assert "2 trials are not done" in judge(request, rows, 2, has_base=False).reason
    assert "no trial gains anything" in judge(request, [], 0, has_base=False).reason
    assert "one unit has no interval" in judge(request, measures_of(seeds=(0,)).customers(), 0, has_base=False).reason
    asked = request_of(base="b", require=0.5)
    assert asked.require == Requirement(0.5, "share")
    assert "no share of a capability" in judge(asked, rows, 0, has_base=False).reason


def test_exit_codes_are_those_of_the_contract():
    assert EXIT_CODES == {"durable": 0, "not_durable": 3, "cannot_tell": 4}


def test_the_record_is_what_its_schema_says():
    import jsonschema

    for audit in (audit_of(), audit_of(base=3.0, other=0.9), audit_of(seeds=(0,))):
        data = audit.model_dump(mode="json")
        jsonschema.validate(data, schema())
        assert Audit.model_validate(data) == audit
    assert {"verdict", "kept", "seeds", "battery", "model"} <= set(schema()["required"])


def test_every_number_on_the_page_has_its_interval_and_n():
    page = card_html(audit_of(base=3.0, other=0.9))
    for row in audit_of(base=3.0, other=0.9).customers:
        assert f"{100 * row.share.value:.0f} % ({100 * row.share.low:.0f} to {100 * row.share.high:.0f})" in page
    assert "n = 3 seeds of fine-tuning" in page
    assert "keeps more" in page


def test_the_page_loads_nothing_and_draws_every_chart():
    page = card_html(audit_of(base=3.0, other=0.9))
    assert not re.findall(r"(?:src|href)\s*=|url\(|@import|https?://", page)
    assert page.count("<svg ") == 6
    assert "nan" not in " ".join(re.findall(r"<svg .*?</svg>", page)).lower()
    assert card_html(audit_of(seeds=(0,))).count("<svg ") == 5


def test_the_page_can_be_used_without_a_mouse_and_read_without_colours():
    page = card_html(audit_of(base=3.0, other=0.9))
    assert faults(page) == []
    style = resources.files("indelible.durability").joinpath("templates", "card.css").read_text(encoding="utf-8")
    for mode, paper in (("light", "#ffffff"), ("dark", "#14171c")):
        colors = variables(style, mode)
        assert all(contrast(colors[f"c{number}"], paper) >= 3 for number in range(5)), mode


NASTY = "</script><script>alert(1)</script> | `x` **b** {{ 7 * 7 }} \u2028 <img onerror=x>"


def test_names_are_text_on_every_page():
    audit = audit_of(NASTY, NASTY)
    page = card_html(audit)
    assert page.count("<script") == 1
    assert "<img" not in page
    assert "{{ 7 * 7 }}" in page
    text = card_markdown(audit)
    body = text.split("---\n", 2)[2]
    assert "<script" not in re.sub(r"\\<", "", body)
    assert all(line.count(" | ") < 9 for line in body.splitlines() if line.startswith("|"))


def test_the_markdown_begins_with_metadata_that_yaml_reads():
    audit = audit_of("a: b # c", base=3.0)
    head = yaml.safe_load(card_markdown(audit).split("---\n")[1])
    assert head["tags"] == ["indelible", "durability"]
    assert head["durability"]["verdict"] == audit.verdict
    assert head["durability"]["kept"]["value"] == pytest.approx(audit.kept.value)
    assert head["durability"]["model"] == ["a: b # c"]


def test_what_was_lost_in_nats_is_never_called_kept():
    """With a base the rest of the card is in shares; a bar in nats is about what was lost all the same."""
    audit = audit_of(base=3.0)
    in_nats = audit.model_copy(update={"kept": audit.kept.model_copy(update={"unit": "nats", "value": 0.2})})
    page, text = card_html(in_nats), card_markdown(in_nats)
    assert "<h2>Lost, and the bar</h2>" in page
    assert 'class="key barkey"' not in page, "the curve beside it is in shares and has no bar"
    head = yaml.safe_load(text.split("---\n")[1])["durability"]
    assert head["lost"]["value"] == 0.2
    assert "kept" not in head
    assert "<h2>Kept, and the bar</h2>" in card_html(audit)


def test_a_card_of_thousands_of_settings_stays_a_page():
    audit = audit_of()
    rows = tuple(audit.settings[0].model_copy(update={"name": f"setting {n}"}) for n in range(3_000))
    page = card_html(audit.model_copy(update={"settings": rows}))
    assert f"The first {MOST_ROWS} of 3000 settings" in page


@pytest.mark.parametrize(("low", "high"), [(0, 1), (-0.25, 1), (0, 37), (0.001, 0.0042), (3, 3)])
def test_ticks_are_round_and_inside(low, high):
    found = ticks(low, high)
    assert all(low - 1e-9 <= tick <= high + 1e-9 for tick in found)
    assert 1 <= len(found) <= 8
