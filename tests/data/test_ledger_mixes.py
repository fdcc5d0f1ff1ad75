"""The ledger of any stage with any mixes: its invariants as properties, and one corpus in two uses."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from indelible.data.built_ledger import (
    BuiltLedger,
    counts_are_exact,
    lie_in_place,
    passes_are_distinct,
    requested_tokens,
)
from indelible.data.ledger import Ledger, build_ledger, source_order
from indelible.errors import UserError
from indelible.study.graph import Stores, build_graph
from indelible.study.load import resolve_study

CORPORA = ("general", "music", "chemistry", "instruction")
STORES = Stores({name: f"{name}-aaa" for name in CORPORA}, "tokenizer-ttt")
WINDOWS = {"general-aaa": 3000, "music-aaa": 900, "chemistry-aaa": 700, "instruction-aaa": 800}
SEQ = 128


def built(mix: list[dict[str, Any]], seed: int = 0, **stage: Any) -> BuiltLedger:
    """The ledger of `second`, the third of five stages, of 300 windows a pass."""
    sizes = {"pretrain": ("general", 1000), "posttrain": ("music", 200), "second": ("chemistry", 300)}
    sizes |= {"third": ("instruction", 250), "relearn": ("music", 40)}
    stages: dict[str, Any] = {name: {"corpus": corpus, "tokens": n * SEQ} for name, (corpus, n) in sizes.items()}
    stages["second"] |= {"mix": mix, **stage}
    graph = build_graph(resolve_study({"name": "t", "scale": "pico", "seeds": [seed], "stages": stages}), STORES)
    chain = graph.chains[0]
    spec = graph.runs[chain.runs["second"]].spec
    return BuiltLedger(spec, chain.arm, build_ledger(spec, WINDOWS), [chain.runs["second"]])


def shown(ledger: Ledger, use: str) -> np.ndarray:
    return ledger.shown(ledger.uses.index(use)) if use in ledger.uses else ledger.window[:0]


fractions = st.floats(0, 1).map(lambda x: round(x, 3))
placements = st.sampled_from(["uniform", "early", "late", [0.05, 0.7], [0.5, 1.0]])


def mixes_of(corpus: str, share_of: str) -> st.SearchStrategy[dict[str, Any]]:
    common = {"corpus": st.just(corpus), "share_of": st.just(share_of)}
    per_pass = st.fixed_dictionaries({**common, "fraction": fractions, "per": st.just("pass")})
    per_stage = st.fixed_dictionaries(
        {
            **common,
            "fraction": st.floats(0, 0.1).map(lambda x: round(x, 3)),
            "per": st.just("stage"),
            "mode": st.sampled_from(["add", "replace"]),
            "placement": placements,
        }
    )
    return per_pass | per_stage


# replay of D_pre (`replay`), of D_post (`replay music`), of the own corpus (`mix chemistry`), and of what comes later
mixes = st.tuples(
    mixes_of("general", "second"),
    mixes_of("music", "posttrain"),
    mixes_of("chemistry", "relearn"),
    mixes_of("instruction", "third"),
).flatmap(lambda one: st.lists(st.sampled_from(one), unique_by=lambda mix: mix["corpus"]))
budgets = st.sampled_from([{}, {"max_tokens": 290 * SEQ}, {"max_tokens": 1111 * SEQ}, {"order": "permutation"}])


@given(mix=mixes, stage=budgets, seed=st.integers(0, 5))
@settings(max_examples=80, deadline=None)
def test_the_own_order_is_the_same_whatever_is_mixed_in(mix, stage, seed):
    if not stage.get("max_tokens"):  # one pass is shown, of the same windows in the same order
        stage = stage | {"max_tokens": 300 * SEQ}
    plain, mixed = built([], seed, **stage), built(mix, seed, **stage)
    kept = mixed.ledger.shown(0)
    assert np.array_equal(kept, plain.ledger.shown(0)[: len(kept)])
    assert len(mixed.ledger) == mixed.spec.data.total_windows + mixed.spec.data.added_windows


@given(mix=mixes, extra=mixes, stage=budgets, seed=st.integers(0, 5))
@settings(max_examples=80, deadline=None)
def test_no_mix_changes_the_order_of_another(mix, extra, stage, seed):
    added = [one for one in extra if one["corpus"] not in {other["corpus"] for other in mix}]
    few, many = built(mix, seed, **stage), built([*mix, *added], seed, **stage)
    for use in few.spec.data.mix:
        index = next(i for i, other in enumerate(many.spec.data.uses) if other == use)
        one, other = few.ledger.shown(few.spec.data.uses.index(use)), many.ledger.shown(index)
        shared = min(len(one), len(other))
        assert np.array_equal(one[:shared], other[:shared])
        if use.per == "stage":
            assert len(one) == len(other) == use.total_windows


@given(mix=mixes, stage=budgets, seed=st.integers(0, 5))
@settings(max_examples=120, deadline=None)
def test_counts_passes_and_places_are_as_requested(mix, stage, seed):
    one = built(mix, seed, **stage)
    assert all(counts_are_exact(one))
    assert all(passes_are_distinct(one))
    assert all(lie_in_place(one))
    realised, requested = one.ledger.tokens_by_source(), requested_tokens(one)
    assert list(realised) == list(requested)
    assert sum(realised.values()) == len(one.ledger) * SEQ
    for name, use in zip(one.ledger.uses[1:], one.spec.data.mix, strict=True):
        if use.per == "stage":
            assert abs(realised[name] - requested[name]) <= SEQ
    bins = one.ledger.tokens_by_bin(7)
    assert {use: sum(tokens) for use, tokens in bins.items()} == realised


@given(small=fractions, large=fractions, tokens=st.integers(20, 200), seed=st.integers(0, 5))
@settings(max_examples=60, deadline=None)
def test_mixes_nest_over_fraction_and_size(small, large, tokens, seed):
    small, large = sorted((small, large))

    def windows(fraction: float, per: str, size: int = tokens) -> np.ndarray:
        mix = {"corpus": "music", "share_of": "third", "per": per, "fraction": fraction * size / 250}
        return shown(built([mix], seed).ledger, "music")

    for per in ("pass", "stage"):
        few, more, most = windows(small, per), windows(large, per), windows(1.0, per, 250)
        assert set(few) <= set(more) <= set(most)
        assert set(most) == set(source_order("music-aaa", 900, seed)[:250])
        if per == "stage":
            assert np.array_equal(few, more[: len(few)])
            assert np.array_equal(more, most[: len(more)])


def test_a_mix_starts_behind_what_named_stages_showed():
    order = source_order("music-aaa", 900, 0)
    mix = {"corpus": "music", "share_of": "posttrain", "fraction": 0.5, "not_shown_in": ["posttrain"]}
    assert set(shown(built([mix]).ledger, "music")) == set(order[200:300])
    stage = built([mix | {"per": "stage", "fraction": 2.5, "repeats": True}])
    windows = shown(stage.ledger, "music")
    assert len(windows) == 500
    assert np.array_equal(windows[:200], order[200:400])
    assert set(windows[:200]) == set(windows[200:400]) >= set(windows[400:])
    assert not np.array_equal(windows[:200], windows[200:400]), "each pass has an order of its own"


def test_one_corpus_in_two_uses_is_counted_by_use():
    """Version 0.1 reported 19,968 of these 86,016 tokens, and asked the store for 156 of 516 windows."""
    raw = {"name": "t", "scale": "pico", "pipeline": {"pre": "general", "post": "music", "ft": "general"}, "seeds": [0]}
    graph = build_graph(resolve_study({**raw, "finetune": {"replay_fraction": 0.01}}), STORES)
    spec = graph.runs[graph.chains[0].runs["finetune"]].spec
    ledger = build_ledger(spec, {"general-aaa": 20_000})
    assert ledger.uses == ("general", "general:replay")
    assert ledger.stores == ("general-aaa", "general-aaa")
    assert ledger.tokens_by_source() == {"general": 66_048, "general:replay": 19_968}
    assert len(ledger) * SEQ == 86_016
    assert spec.data.asked_windows == {"general-aaa": 516}
    order = source_order("general-aaa", 20_000, 0)
    assert set(ledger.shown(0)) == set(order[:516])
    assert set(ledger.shown(1)) == set(order[:156])
    with pytest.raises(UserError, match=r"corpus 'general' is smaller than asked"):
        build_ledger(spec, {"general-aaa": 515})


def test_uses_are_named_apart_only_where_they_must_be():
    mix = [{"corpus": corpus, "fraction": 0.1} for corpus in ("chemistry", "music", "general")]
    assert built(mix).ledger.uses == ("chemistry", "chemistry:mix chemistry", "general", "music")


def test_several_mixes_share_the_rows_of_one_place():
    rest = {"share_of": "second", "per": "stage", "placement": "late"}
    one = built([{"corpus": "general", "fraction": 0.2, **rest}, {"corpus": "music", "fraction": 0.2, **rest}])
    assert len(one.ledger) == 420
    assert all(lie_in_place(one))
    assert set(one.ledger.source[:280].tolist()) == {0}
    assert np.bincount(one.ledger.source[280:]).tolist() == [20, 60, 60]
    anywhere = [{"corpus": "chemistry", "fraction": 0.5, **rest, "placement": "uniform"}]
    tight = built([*anywhere, {"corpus": "general", "fraction": 0.7, **rest, "placement": [0.5, 0.9]}])
    assert all(lie_in_place(tight)), "the one that may lie anywhere does not take the room of the other"
    full = [{"corpus": "general", "fraction": 0.3, **rest}, {"corpus": "music", "fraction": 0.3, **rest}]
    for mix in full:
        assert all(lie_in_place(built([mix])))
    with pytest.raises(
        UserError, match=r"second: placement late has room for 70 windows .* of general \(replay\) has 90"
    ):
        built(full)


def test_a_stage_of_which_nothing_is_left_is_empty():
    mix = [{"corpus": "general", "fraction": 0.1}, {"corpus": "music", "fraction": 0.1, "per": "stage"}]
    chemistry = {"corpus": "music", "tokens": 200 * SEQ, "not_shown_in": ["posttrain"]}
    one = built(mix[:1], **chemistry)
    assert len(one.ledger) == 0
    assert one.ledger.tokens_by_source() == {"music": 0, "general": 0} == requested_tokens(one)
    assert all(counts_are_exact(one))
    assert len(built(mix, **chemistry).ledger) == 0
