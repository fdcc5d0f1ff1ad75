"""Batteries: the shipped ones, what is refused, and that the portions of one hold each other, run for run."""

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from indelible.durability.battery import SHIPPED, Battery, read_battery
from indelible.durability.request import AuditRequest, make_request
from indelible.durability.study import FINETUNE, RELEARNING, Setting, portions, study_of
from indelible.errors import UserError
from indelible.study.graph import Stores, build_graph
from indelible.study.load import resolve_study
from indelible.study.stage_spec import StageInit

STORES = Stores({name: f"{name}-1" for name in ("instruction", "chemistry", "music")}, "tokenizer-1")


def request_of(battery: Battery, models=("a",), later=("chemistry", "music"), **more) -> AuditRequest:
    return make_request(models, "instruction", later, battery, **more)


def study_at(request: AuditRequest, number: int):
    raw = study_of(request, portions(request)[number], {"model_type": "llama"}, "pico")
    raw["tokenizer"] = {"kind": "bpe", "vocab_size": 512}
    return resolve_study(raw)


def graph_of(request: AuditRequest, number: int):
    study = study_at(request, number)
    given = {arm.stages[arm.first].init for arm in study.arms}
    return build_graph(study, STORES, {one: StageInit(sha256=f"{one.checkpoint}0" * 6) for one in given})


@pytest.mark.parametrize("name", SHIPPED)
def test_the_shipped_batteries_are_studies(name):
    battery = read_battery(name)
    assert battery.name == name
    assert battery.curve_steps[0] == 0
    assert battery.curve_steps[-1] == battery.updates
    assert len(battery.curve_steps) == battery.curve_points
    assert graph_of(request_of(battery, base="before"), -1).runs


batteries = st.builds(
    lambda lrs, seeds, replay, relearning, adapt, padding: Battery(
        lr=tuple(1e-5 * 2**n for n in range(lrs)), seeds=tuple(range(seeds)), replay=replay, relearning=relearning,
        adapt=adapt, padding=padding,
    ),
    st.integers(1, 5), st.integers(1, 5), st.sampled_from([(), (0.05,), (0.01, 0.05)]),
    st.sampled_from([(), (5,), (5, 20)]), st.sampled_from([("full",), ("lora",), ("full", "lora"), ("lora", "full")]),
    st.booleans(),
)  # fmt: skip


@settings(max_examples=15, deadline=None)
@given(batteries, st.sampled_from([("a",), ("a", "b", "c")]))
def test_batteries_of_growing_budgets_are_nested_run_for_run(battery, models):
    request = request_of(battery, models, against=("z",) if len(models) == 1 else ("x", "y"))
    runs: set[str] = set()
    before = None
    for number, portion in enumerate(portions(request)):
        found = set(graph_of(request, number).runs)
        assert runs < found, f"{portion.adds}: a portion holds more than the one before it, and all of it"
        if before is not None:
            assert set(before.settings) <= set(portion.settings)
            assert portion.seeds[: len(before.seeds)] == before.seeds
        runs, before = found, portion
    assert before is not None
    assert before.seeds == battery.seeds
    assert {one.adapt for one in before.settings} == set(battery.adapt)
    assert {one.replay for one in before.settings} == {0.0, *battery.replay}
    assert any(one.is_padded for one in before.settings) == (battery.padding and bool(battery.replay))


def test_every_portion_trains_on_the_same_corpora():
    """A corpus that is only judged is another store: runs of a smaller portion would be no part of a larger one."""
    for fields in ({}, {"relearning": []}, {"replay": []}, {"relearning": [], "replay": []}):
        battery = read_battery("quick", fields)
        request = request_of(battery)
        found = {frozenset(study_at(request, number).data.corpora) for number in range(len(portions(request)))}
        assert len(found) == 1


def test_every_portion_is_rectangular():
    """Every setting has every seed and every checkpoint, so that any budget gives a comparison of equals."""
    request = request_of(read_battery("quick"), against=("b",))
    for number, portion in enumerate(portions(request)):
        chains = graph_of(request, number).chains
        trials = [chain for chain in chains if not chain.columns["arm"].startswith("control")]
        assert len(trials) == len(portion.settings) * len(portion.seeds) * 2


def test_a_recipe_gets_width_before_further_seeds_of_fine_tuning():
    one, many = (portions(request_of(read_battery("quick"), models)) for models in (("a",), ("a", "b")))
    assert one[3].seeds == (0, 1, 2)
    assert {len(portion.seeds) for portion in many[:-4]} == {1}


def test_trials_are_as_the_battery_says():
    request = request_of(Battery(lr=1e-4, updates=8, batch=2, seq_len=64, replay=0.25, seeds=0))
    graph = graph_of(request, -1)
    specs = {chain.columns["arm"]: [graph.runs[name].spec for name in chain.runs.values()] for chain in graph.chains}
    plain, relearned = specs[Setting("chemistry", "full", 1e-4).name]
    assert (plain.stage, relearned.stage) == (FINETUNE, RELEARNING)
    assert plain.data.total_windows == 16
    assert relearned.data.total_windows == 20 * 2
    assert relearned.training.schedule == "constant"
    (replayed,) = specs[Setting("chemistry", "full", 1e-4, 0.25).name]
    (padded,) = specs[Setting("chemistry", "full", 1e-4, is_padded=True).name]
    assert replayed.data.total_windows == padded.data.total_windows == 20
    assert [mix.total_windows for mix in replayed.data.mix] == [4]
    lora = specs[Setting("chemistry", "lora", 1e-3).name][0]
    assert (lora.adapt.r, lora.training.lr) == (64, 1e-3)
    assert "q_proj" in lora.adapt.targets


def test_a_small_file_of_ones_own_is_passed_over_again(tmp_path):
    file = tmp_path / "chat.jsonl"
    file.write_text('{"text": "one two three four five six seven"}\n' * 100)
    request = make_request(["a"], "instruction", [str(file)], Battery())
    (arm,) = {arm["stages"][FINETUNE]["tokens"] for arm in _trial_arms(request)}
    assert arm < Battery().trial_tokens
    assert all(arm["stages"][FINETUNE]["max_tokens"] >= Battery().trial_tokens for arm in _trial_arms(request))


def _trial_arms(request):
    arms = study_of(request, portions(request)[0], {}, "pico")["arms"]
    return [arm for name, arm in arms.items() if not name.startswith("control")]


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        ({"lrs": [1]}, "lrs: unknown key (did you mean 'lr'?)"),
        ({"lr": [0]}, "lr.0"),
        ({"lr": [1e-4, 1e-4]}, "a value stands twice"),
        ({"seeds": []}, "at least one value is needed"),
        ({"replay": [0, 0.1]}, "trials without replay are always there"),
        ({"updates": 1}, "updates = 1"),
        ({"adapt": "half"}, "adapt.0 = 'half'"),
        ({"relearning": [0]}, "from 1 on"),
    ],
)
def test_a_wrong_battery_is_one_message(raw, message):
    with pytest.raises(UserError) as found:
        read_battery(raw)
    assert message in str(found.value)


def test_a_battery_file_and_fields_over_it(tmp_path):
    (tmp_path / "mine.yaml").write_text("name: mine\nlr: [1.0e-4]\nupdates: 16\n")
    assert read_battery(tmp_path / "mine.yaml", {"updates": 8, "execution.threads": 2}).updates == 8
    with pytest.raises(UserError, match="the shipped batteries are quick"):
        read_battery(Path("nowhere.yaml"))
