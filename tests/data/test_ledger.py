"""The ledger of the paper's short form: the orders of version 0.1, and its invariants as properties."""

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from indelible.data.ledger import Ledger, build_ledger, check_fits, check_places, source_order, stream
from indelible.errors import UserError
from indelible.study.graph import Stores, build_graph
from indelible.study.load import resolve_study
from indelible.study.stage_spec import StageSpec

STORES = Stores({"general": "general-aaa", "music": "music-bbb", "chemistry": "chemistry-ccc"}, "tokenizer-ttt")
WINDOWS = {"general-aaa": 3000, "music-bbb": 400, "chemistry-ccc": 500}
SEQ = 128


def specs(seed: int = 0, **settings_by_path: object) -> dict[str, StageSpec]:
    raw = {
        "name": "t",
        "scale": "pico",
        "pipeline": {"pre": "general", "post": "music", "ft": "chemistry"},
        "seeds": [seed],
        "pretrain": {"tokens": 1000 * SEQ},
        "posttrain": {"tokens": 200 * SEQ, "max_tokens": 500 * SEQ},
        "finetune": {"tokens": 300 * SEQ},
    }
    for path, value in settings_by_path.items():
        section, field = path.split("__")
        raw.setdefault(section, {})[field] = value
    graph = build_graph(resolve_study(raw), STORES)
    return {stage: graph.runs[run].spec for stage, run in graph.chains[0].runs.items()}


def ledgers(seed: int = 0, **settings_by_path: object) -> dict[str, Ledger]:
    return {stage: build_ledger(spec, WINDOWS) for stage, spec in specs(seed, **settings_by_path).items()}


def shown(ledger: Ledger, use: str) -> np.ndarray:
    """Windows of one use in the order they are trained on."""
    return ledger.shown(ledger.uses.index(use)) if use in ledger.uses else ledger.window[:0]


def test_the_orders_are_those_of_version_0_1():
    """ledger_digests.json was written once by version 0.1: for each of its settings, laid over this study with WINDOWS
    windows in the stores, `build_graph` and `build_ledger` gave, for seeds 0, 1 and 7, the number of windows of each
    stage and the first 16 digits of `Ledger.sha256`, which covers stores, sources, windows and their length.
    """
    base = {"name": "t", "scale": "pico", "pipeline": {"pre": "general", "post": "music", "ft": "chemistry"}}
    entries = json.loads((Path(__file__).parent / "ledger_digests.json").read_text())
    assert len(entries) == 58
    for entry in entries:
        graph = build_graph(resolve_study({**base, "seeds": [0, 1, 7], **entry["settings"]}), STORES)
        found = {}
        for run in graph.runs.values():
            ledger = build_ledger(run.spec, WINDOWS)
            found[f"{run.stage} {run.spec.seed}"] = [len(ledger), ledger.sha256[:16]]
        assert found == entry["ledgers"], entry["settings"]


fractions = st.floats(0, 1).map(lambda x: round(x, 3))
placements = st.sampled_from(["uniform", "early", "late", [0.1, 0.6], [0.5, 1.0]])


@given(fraction=fractions, placement=placements, seed=st.integers(0, 5))
@settings(max_examples=60, deadline=None)
def test_pretraining_order_is_the_same_in_every_arm(fraction, placement, seed):
    plain = ledgers(seed)["pretrain"]
    added = ledgers(seed, exposure__fraction=fraction, exposure__placement=placement)["pretrain"]
    assert np.array_equal(shown(added, "general"), shown(plain, "general"))
    replaced = ledgers(seed, exposure__fraction=fraction, exposure__mode="replace")["pretrain"]
    kept = shown(replaced, "general")
    assert np.array_equal(kept, shown(plain, "general")[: len(kept)])
    assert len(replaced) == len(plain)


@given(small=fractions, large=fractions, tokens=st.integers(20, 200), seed=st.integers(0, 5))
@settings(max_examples=60, deadline=None)
def test_exposure_nests_over_fraction_and_size(small, large, tokens, seed):
    small, large = sorted((small, large))
    few = shown(ledgers(seed, exposure__fraction=small, posttrain__tokens=tokens * SEQ)["pretrain"], "music")
    more = shown(ledgers(seed, exposure__fraction=large, posttrain__tokens=tokens * SEQ)["pretrain"], "music")
    assert np.array_equal(few, more[: len(few)])
    whole = shown(ledgers(seed, exposure__fraction=1.0)["pretrain"], "music")
    assert np.array_equal(more, whole[: len(more)])
    assert len(set(more.tolist())) == len(more), "a window stands twice in one pass"


@given(fraction=fractions, mode=st.sampled_from(["add", "replace"]))
@settings(max_examples=40, deadline=None)
def test_realised_tokens_equal_the_asked_ones_to_within_one_window(fraction, mode):
    ledger = ledgers(exposure__fraction=fraction, exposure__mode=mode)["pretrain"]
    tokens = ledger.tokens_by_source()
    assert abs(tokens.get("music", 0) - fraction * 200 * SEQ) <= SEQ
    asked_pre = 1000 * SEQ - (tokens.get("music", 0) if mode == "replace" else 0)
    assert abs(tokens["general"] - asked_pre) <= SEQ


@given(passes=st.floats(1.01, 10).map(lambda x: round(x, 2)))
@settings(max_examples=30, deadline=None)
def test_repeated_passes_show_each_window_once_a_pass(passes):
    ledger = ledgers(exposure__fraction=passes, exposure__repeats=True)["pretrain"]
    windows = shown(ledger, "music")
    assert len(windows) == round(passes * 200)
    for start in range(0, len(windows), 200):
        part = windows[start : start + 200]
        assert len(set(part.tolist())) == len(part)
    counts = Counter(windows.tolist())
    assert max(counts.values()) - min(counts.values()) <= 1


@given(fraction=fractions, seed=st.integers(0, 5))
@settings(max_examples=60, deadline=None)
def test_matched_allocation_is_the_exact_complement(fraction, seed):
    both = ledgers(seed, exposure__fraction=fraction, posttrain__allocation="matched")
    before, after = shown(both["pretrain"], "music").tolist(), shown(both["posttrain"], "music").tolist()
    assert not set(before) & set(after)
    assert len(before) + len(after) == 200
    assert sorted(before + after) == sorted(source_order("music-bbb", 400, seed)[:200].tolist())
    if fraction == 1:
        assert len(both["posttrain"]) == 0


def test_full_allocation_passes_over_all_of_the_post_training_data():
    ledger = ledgers(exposure__fraction=0.5)["posttrain"]
    assert len(ledger) == 500
    for start in (0, 200):
        assert sorted(ledger.window[start : start + 200].tolist()) == sorted(source_order("music-bbb", 400, 0)[:200])
    assert not np.array_equal(ledger.window[:200], ledger.window[200:400]), "each pass has an order of its own"


@pytest.mark.parametrize("where", ["seen", "unseen"])
@pytest.mark.parametrize("stage", ["posttrain", "finetune"])
def test_replay_adds_pretraining_windows_and_leaves_the_order_of_the_rest(stage, where):
    plain = ledgers()[stage]
    mixed = ledgers(**{f"{stage}__replay_fraction": 0.05, f"{stage}__replay_from": where})[stage]
    corpus = {"posttrain": "music", "finetune": "chemistry"}[stage]
    kept = shown(mixed, corpus)
    one_pass = {"posttrain": 200, "finetune": 300}[stage]
    assert np.array_equal(kept[:one_pass], shown(plain, corpus)[:one_pass])
    replayed = set(shown(mixed, "general").tolist())
    order = source_order("general-aaa", 3000, 0)
    assert replayed == set((order[:50] if where == "seen" else order[1000:1050]).tolist())


@pytest.mark.parametrize(
    ("placement", "low", "high"), [("early", 0, 1 / 3), ("late", 2 / 3, 1), ([0.2, 0.7], 0.2, 0.7)]
)
def test_exposure_stays_in_its_place(placement, low, high):
    ledger = ledgers(exposure__fraction=1.0, exposure__placement=placement)["pretrain"]
    rows = np.flatnonzero(ledger.source == 1) / len(ledger)
    assert rows.min() >= low - 1e-3
    assert rows.max() <= high + 1e-3


def test_uniform_exposure_is_spread_over_the_stage():
    ledger = ledgers(exposure__fraction=1.0)["pretrain"]
    tenths = np.array(ledger.tokens_by_bin(10)["music"]) / SEQ
    assert tenths.sum() == 200
    assert np.all(np.abs(tenths - 20) < 5 * np.sqrt(20))


def test_same_seed_same_bytes_and_another_seed_another_order():
    first, again, other = (ledgers(seed, exposure__fraction=0.5)["pretrain"] for seed in (0, 0, 1))
    assert first.sha256 == again.sha256
    assert first.sha256 != other.sha256


def test_streams_of_different_names_are_independent():
    draws = {name: stream(0, name).random(4000) for name in ("pre order", "post order", "exposure positions")}
    names = list(draws)
    for i, one in enumerate(names):
        for other in names[i + 1 :]:
            assert abs(np.corrcoef(draws[one], draws[other])[0, 1]) < 0.06
    assert np.array_equal(stream(3, "x").random(5), stream(3, "x").random(5))


def test_a_corpus_smaller_than_asked_is_refused_with_its_size_and_the_ways_out():
    spec = specs(posttrain__tokens=401 * SEQ)["posttrain"]
    with pytest.raises(UserError, match=r"'music' is smaller than asked: .* has 51,200 .* posttrain asks for 51,328"):
        build_ledger(spec, WINDOWS)
    with pytest.raises(UserError, match=r"lower that stage's tokens, or give the corpus more text\. Left out: copies"):
        check_fits(spec, WINDOWS, {"music-bbb": " Left out: copies"})


def test_exposure_that_does_not_fit_its_place_is_refused():
    spec = specs(exposure__fraction=1.0, exposure__placement=[0.5, 0.6])["pretrain"]
    with pytest.raises(
        UserError,
        match=r"pretrain: placement \[0.5, 0.6\] has room for 120 windows .* the mix of music \(exposure\) has 200",
    ):
        check_places(spec)
    with pytest.raises(UserError, match="widen the placement"):
        build_ledger(spec, WINDOWS)


def test_exposure_that_replaces_everything_is_refused():
    spec = specs(pretrain__tokens=200 * SEQ, exposure__fraction=1.0, exposure__mode="replace")["pretrain"]
    with pytest.raises(
        UserError, match=r"pretrain: mode: replace shows 200 .* leaves nothing of the stage's 200 to gen"
    ):
        check_places(spec)
    with pytest.raises(UserError, match="use mode: add"):
        build_ledger(spec, WINDOWS)


def test_tokens_by_bin_are_counted_in_equal_parts():
    source, window = np.array([0, 0, 1, 0, 1, 1, 0, 0], np.uint8), np.arange(8, dtype=np.uint32)
    ledger = Ledger(("a-1", "b-2"), ("a", "b"), source, window, SEQ)
    assert ledger.tokens_by_bin(4) == {"a": [2 * SEQ, SEQ, 0, 2 * SEQ], "b": [0, SEQ, 2 * SEQ, 0]}
    assert ledger.tokens_by_bin(2, end=4) == {"a": [2 * SEQ, SEQ], "b": [0, SEQ]}


def test_a_mix_may_fill_its_place_to_the_last_row():
    spec = specs(exposure__fraction=1.0, exposure__placement="early")["pretrain"]
    (use,) = spec.data.mix
    own = spec.data.total_windows
    full = use.model_copy(update={"windows": own // 2, "total_windows": own // 2})  # a third of all
    fitting = spec.model_copy(update={"data": spec.data.model_copy(update={"mix": (full,)})})
    check_places(fitting)
    ledger = build_ledger(fitting, {**WINDOWS, full.store: own})
    assert np.flatnonzero(ledger.source == 1).tolist() == list(range(own // 2))
    more = full.model_copy(update={"windows": own // 2 + 2, "total_windows": own // 2 + 2})
    with pytest.raises(UserError, match=r"placement early has room for 501 windows .* has 502; widen the placement"):
        check_places(spec.model_copy(update={"data": spec.data.model_copy(update={"mix": (more,)})}))


@pytest.mark.parametrize(
    ("stage", "setting", "purpose"),
    [("pretrain", "exposure__fraction", "exposure"), ("finetune", "finetune__replay_fraction", "replay")],
)
def test_positions_and_orders_of_a_use_come_from_the_streams_of_its_purpose(stage, setting, purpose):
    """By hand: whichever purpose lent its stream, the rows would still be as many and as even."""
    spec = specs(3, **{setting: 0.5})[stage]
    ledger, (use,), data = build_ledger(spec, WINDOWS), spec.data.mix, spec.data
    assert use.purpose == purpose
    first = source_order(use.store, WINDOWS[use.store], spec.order_seed)[use.first_window :][: use.windows]
    own = source_order(data.main.store, WINDOWS[data.main.store], spec.order_seed)[data.main.first_window :]
    own = own[: data.main.windows].copy()
    name, total = (f"{use.purpose} positions", len(ledger))
    if use.per == "pass":
        name, first = f"{name}, pass 0", first.copy()
        stream(3, f"{use.purpose} order, pass 0").shuffle(first)
    rows = np.sort(stream(3, name).choice(total, use.total_windows, replace=False, shuffle=False))
    assert np.flatnonzero(ledger.source == 1).tolist() == rows.tolist()
    assert ledger.shown(1).tolist() == first.tolist()
    if data.order == "shuffled":
        stream(3, f"{data.main.purpose} order, pass 0").shuffle(own)
    assert ledger.shown(0).tolist() == own.tolist()
