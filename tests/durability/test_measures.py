"""Both sides at equal gain: answers that are known, and the level of comparisons of equals."""

from dataclasses import replace

import numpy as np
import pytest
from fake_trials import battery_trials, trial

from indelible.durability.documents import DocumentErrors
from indelible.durability.measures import Measures
from indelible.durability.request import GAINS
from indelible.durability.rows import relearning_rows, setting_rows, survival, typical_half_life
from indelible.durability.sides import Side, at_gain, best_gain
from indelible.durability.study import Setting

FULL = [Setting("chemistry", "full", lr) for lr in (1e-4, 3e-4, 1e-3)]
MAIN = (0.8, "typical")


def side(trials, *, is_recipe=False) -> Side:
    return Side("side", tuple(trials), is_recipe)


def one_of_each(seeds=(0,), factor=1.0):
    """Three settings: lost at gain g is g / 4, g / 2 and g, and the first gets to 0.5 only."""
    found = []
    for seed in seeds:
        for setting, slope, top in zip(FULL, (0.25, 0.5, 1.0), (0.5, 1.0, 1.0), strict=True):
            gains = np.linspace(0, top, 6)
            found.append(trial(gains, factor * slope * gains, setting, seed=seed))
    return found


def test_the_gain_is_that_of_the_setting_whose_weakest_unit_gains_most():
    strong, weak = trial([0, 1.0], [0, 0], FULL[0], seed=0), trial([0, 0.2], [0, 0], FULL[0], seed=1)
    even = [trial([0, 0.6], [0, 0], FULL[1], seed=seed) for seed in (0, 1)]
    found = best_gain([side([strong, weak, *even])], "chemistry")
    assert (found.gain, found.setting) == (pytest.approx(0.6), FULL[1])
    assert best_gain([side([trial([0, -0.1], [0, 0])])], "chemistry") is None


def test_three_customers_at_equal_gain_by_hand():
    measures = Measures(side(one_of_each((0, 1))), None, ("chemistry",))
    rows = {(row.gain, row.customer): row for row in measures.customers()}
    assert rows[0.5, "careful"].lost.value == pytest.approx(0.125)
    assert rows[0.5, "typical"].lost.value == pytest.approx(0.25)
    assert rows[0.5, "careless"].lost.value == pytest.approx(0.5)
    assert rows[0.8, "careful"].lost.value == pytest.approx(0.4), "the first setting never gets there"
    assert rows[0.8, "typical"].settings == 2
    assert rows[0.8, "typical"].lost.n == 2
    (mine,) = at_gain([measures.model], "chemistry", 0.8)
    assert mine.left_out == (FULL[0],)
    assert measures.worst_of(0.5)[0].lost == pytest.approx((0.875 / 3, (2 * 0.5 + 0.25) / 3, 0.5))


def test_sides_are_compared_at_one_loss_on_the_new_task():
    # both lose 0.1 for each nat gained; the second starts half a nat nearer to the new task
    one, two = trial([0, 1, 2, 3], [0, 0.1, 0.2, 0.3]), trial([0, 1, 2, 3], [0, 0.1, 0.2, 0.3], checkpoint="given-b")
    nearer = replace(two, curve=replace(two.curve, new=two.curve.new - 0.5))
    measures = Measures(side([one]), side([nearer]), ("chemistry",))
    assert measures.gains["chemistry"].gain == pytest.approx(2.75)  # from the mean of the starts to what both reach
    mine, theirs = (place["chemistry"].lost[0, 0] for place in measures.at[0.8])
    assert mine - theirs == pytest.approx(0.05)
    assert Measures(side([one]), None, ("chemistry",)).at[0.8][0]["chemistry"].lost[0, 0] == pytest.approx(0.24)


def test_with_a_base_it_is_the_share_that_is_left():
    measures = Measures(side(one_of_each((0, 1))), None, ("chemistry",), before={"given-a": 2.0}, base=2.5)
    rows = {(row.gain, row.customer): row.share for row in measures.customers()}
    assert rows[0.5, "typical"].value == pytest.approx(0.5)
    assert rows[0.5, "careless"].value == pytest.approx(0.0)


def test_units_that_do_not_differ_have_no_interval():
    row = Measures(side(one_of_each((0, 1, 2))), None, ("chemistry",)).customers()[0]
    assert (row.lost.n, row.lost.low) == (3, None)


def test_each_new_corpus_counts_once():
    other = Setting("music", "full", 1e-4)
    trials = [*one_of_each((0,)), trial([0, 1.0], [0, 0.1], other)]
    rows = {
        (row.later, row.customer): row.lost.value
        for row in Measures(side(trials), None, ("chemistry", "music")).customers()
        if row.gain == 0.5
    }
    assert rows["music", "typical"] == pytest.approx(0.05)
    assert rows["all", "typical"] == pytest.approx((0.25 + 0.05) / 2)


def test_replay_and_padding_are_no_customers():
    extra = Setting("chemistry", "full", 1e-4, replay=0.05)
    trials = [*one_of_each(), trial([0, 5.0], [0, 0.0], extra)]
    measures = Measures(side(trials), None, ("chemistry",))
    assert measures.gains["chemistry"].gain == pytest.approx(1.0)
    assert all(row.settings <= 3 for row in measures.customers())
    row = next(row for row in setting_rows(measures) if row.replay)
    assert row.lost["0.8"].value == pytest.approx(0.0)


def test_a_setting_that_a_unit_has_not_tried_waits():
    trials = one_of_each((0, 1))[:-1]
    rows = [row for row in Measures(side(trials), None, ("chemistry",)).customers() if row.gain == 0.5]
    assert {row.settings for row in rows} == {2}


def test_a_diverged_trial_costs_the_careless_customer():
    trials = [*one_of_each(), trial([0.0, 0.01], [0, 0.1], Setting("chemistry", "full", 1e-2), has_diverged=True)]
    rows = {row.customer: row for row in Measures(side(trials), None, ("chemistry",)).customers() if row.gain == 0.5}
    assert rows["careless"].lost.value == pytest.approx(10.5)
    assert rows["careful"].lost.value == pytest.approx(0.125)


def test_checkpoints_are_the_unit_of_a_recipe_and_their_seeds_are_averaged():
    trials = [one for name in ("given-a", "given-b") for one in battery_trials(name, (0, 1, 2))]
    measures = Measures(side(trials, is_recipe=True), None, ("chemistry",), DocumentErrors(0.5, 0.5, 100))
    row = measures.customers()[0]
    assert row.lost.n == 2
    files = Measures(side(battery_trials("given-a", (0, 1, 2))), None, ("chemistry",), DocumentErrors(0.5, 0.5, 100))
    assert files.lost(np.array([0.2, 0.21, 0.22])).se_documents > 0
    assert measures.lost(np.array([0.2, 0.21, 0.22])).se_documents == 0, "about a recipe it is on this text"


def test_a_difference_that_is_there_is_found_at_every_intensity():
    rng = np.random.default_rng(2)
    one, two = (
        side(battery_trials(f"given-{name}", (0, 1, 2, 3, 4), forgetting=value, rng=rng))
        for name, value in (("a", 0.3), ("b", 0.5))
    )
    rows = Measures(one, two, ("chemistry",)).compared(MAIN)
    assert {row.verdict for row in rows} == {"keeps more"}
    assert [row.is_main for row in rows].count(True) == 1
    back = Measures(two, one, ("chemistry",)).compared(MAIN)
    assert {row.verdict for row in back} == {"keeps less"}
    assert [row.difference.value for row in back] == pytest.approx([-row.difference.value for row in rows])


def named(one: Side, two: Side) -> bool:
    return any(row.verdict != "no difference found" for row in Measures(one, two, ("chemistry",)).compared(MAIN))


def test_one_checkpoint_against_itself_is_rarely_named_different():
    """Other fine-tuning seeds of the same file: the level, over the main row and all others together."""
    rng = np.random.default_rng(3)
    rounds = 400
    count = sum(
        named(*(side(battery_trials("given-a", (0, 1, 2), noise=0.1, rng=rng)) for _ in range(2)))
        for _ in range(rounds)
    )
    assert count / rounds <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / rounds)


def test_halves_of_a_recipe_are_rarely_named_different_and_two_of_its_files_often():
    rng = np.random.default_rng(4)
    rounds = 200

    def half(count):
        trials = []
        for number in range(count):
            spread = 0.1 * rng.standard_normal()
            trials += battery_trials(f"given-{number}", (0,), spread=spread, noise=0.02, rng=rng)
        return side(trials, is_recipe=True)

    def file():
        spread = 0.1 * rng.standard_normal()
        return side(battery_trials("given-a", (0, 1, 2), spread=spread, noise=0.02, rng=rng))

    recipes = sum(named(half(8), half(8)) for _ in range(rounds)) / rounds
    files = sum(named(file(), file()) for _ in range(rounds)) / rounds
    assert recipes <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / rounds)
    assert files > 0.3, "two training seeds differ: a statement about files is none about recipes"


def test_relearning_is_read_as_a_ratio_of_sums_against_the_same_updates_before():
    trials = []
    for seed in (0, 1, 2):
        for setting, size in ((FULL[0], 0.02), (FULL[1], 1.0)):
            lost = size * (1 + 0.001 * (seed - 1))
            trials.append(trial([0, 0.5], [0, lost], setting, seed=seed, relearned={5: 2.0 + 0.25 * lost}))
    controls = {("given-a", seed): {5: 1.9} for seed in (0, 1, 2)}
    (row,) = relearning_rows(Measures(side(trials), None, ("chemistry",)), controls, (5,))
    assert row.restored.value == pytest.approx(0.75)
    assert row.missing.value == pytest.approx((2 * 0.1 + 0.25 * 1.02) / 1.02, rel=1e-3)
    nothing = [trial([0, 0.5], [0, 0.001 * (-1) ** seed], seed=seed, relearned={5: 2.0}) for seed in (0, 1, 2)]
    (row,) = relearning_rows(Measures(side(nothing), None, ("chemistry",)), {}, (5,))
    assert row.restored is None, "nothing was lost for certain"
    never = Measures(side([trial([0, 0.5], [0, 1.0], seed=seed) for seed in (0, 1, 2)]), None, ("chemistry",))
    assert relearning_rows(never, controls, (5,)) == [], "nothing was relearned, so nothing is said of it"


def test_survival_starts_at_nothing_lost_and_holds_the_three_customers():
    points = survival(Measures(side(one_of_each((0, 1))), None, ("chemistry",)))
    assert points[0].lost.value == 0
    assert points[0].tokens == 0
    assert points[-1].careful == pytest.approx(0.125)
    assert points[-1].lost.value == pytest.approx(0.5)
    assert points[-1].careless == pytest.approx(1.0)


def test_the_half_life_is_a_bound_where_most_trials_keep_more_than_half():
    measures = Measures(side(one_of_each((0, 1))), None, ("chemistry",), before={"given-a": 2.0}, base=2.4)
    found, least = typical_half_life(measures)
    assert least is None
    assert found.value == pytest.approx(typical_half_life(measures)[0].value)
    keeps = Measures(side(one_of_each((0, 1), factor=0.1)), None, ("chemistry",), before={"given-a": 2.0}, base=2.4)
    assert typical_half_life(keeps) == (None, pytest.approx(32 * 512))
    assert typical_half_life(Measures(side(one_of_each()), None, ("chemistry",))) == (None, None)


def test_the_noise_of_a_re_run_is_between_seeds_of_one_checkpoint():
    trials = [trial([0, 1.0], [0, lost], seed=seed) for seed, lost in enumerate((0.1, 0.3))]
    (row,) = setting_rows(Measures(side(trials), None, ("chemistry",)))
    assert row.spread == pytest.approx(np.std([0.1, 0.3], ddof=1))
    assert row.reached == {f"{part:g}": 2 for part in GAINS}
