"""Chains of any stages: their windows, their parents, the losses that they are asked for."""

import pytest

from indelible.study.graph import Graph, Stores, build_graph, stage_windows, total_steps
from indelible.study.load import resolve_study
from indelible.study.stage_spec import StageInit, StageSpec
from indelible.study.training import InitSpec

BASE = {
    "name": "t",
    "scale": "pico",
    "seq_len": 128,
    "pipeline": {"pre": "general", "post": "music", "ft": "chemistry"},
    "seeds": [0],
}
CORPORA = ("general", "music", "chemistry", "instruction")
GIVEN = {InitSpec.model_validate({"from": "/m"}): StageInit(sha256="a" * 64)}


def graph_of(change: dict) -> Graph:
    study = resolve_study({**BASE, **change})
    stores = Stores({corpus: f"{corpus}-1" for corpus in CORPORA if corpus in study.data.corpora}, "tokenizer-1")
    return build_graph(study, stores, GIVEN)


def specs_of(change: dict) -> dict[str, StageSpec]:
    """The specs of a study's one chain, by stage."""
    graph = graph_of(change)
    (chain,) = graph.chains
    return {stage: graph.runs[run].spec for stage, run in chain.runs.items()}


FIVE = {
    "stages": {
        "second": {"corpus": "instruction", "guard": "none"},
        "relearn": {"corpus": "music", "tokens": "5k"},
    }
}


def test_five_stages_hang_on_each_other():
    graph = graph_of(FIVE)
    (chain,) = graph.chains
    assert list(chain.runs) == ["pretrain", "posttrain", "finetune", "second", "relearn"]
    parents = [graph.runs[run].parent for run in chain.runs.values()]
    assert parents == [None, *list(chain.runs.values())[:-1]]
    specs = specs_of(FIVE)
    assert [spec.model is not None for spec in specs.values()] == [True, False, False, False, False]
    assert specs["relearn"].data.main.store == "music-1"
    assert specs["relearn"].data.main.windows == 39


def test_a_chain_of_one_stage_is_a_chain():
    change = {"pipeline": None, "stages": {"only": {"corpus": "music", "tokens": 1280}}}
    (spec,) = specs_of(change).values()
    assert (spec.stage, spec.data.main.purpose, spec.data.order) == ("only", "only", "shuffled")
    assert (stage_windows(spec), total_steps(spec)) == (10, 1)


def test_every_checkpoint_is_evaluated_on_every_corpus():
    graph = graph_of(FIVE)
    assert set(graph.evaluations) == set(graph.runs)
    for wanted in graph.evaluations.values():
        assert [name.rpartition("-")[0] for name in wanted] == ["general", "music", "chemistry", "instruction"]
        assert [graph.heldout[kind].store for kind in wanted.values()] == [f"{corpus}-1" for corpus in CORPORA]


def test_views_name_a_checkpoint_and_a_corpus():
    views = {"L_second": {"after": "second", "corpus": "second"}, "L_kept": {"after": "relearn", "corpus": "general"}}
    (chain,) = graph_of({**FIVE, "views": views}).chains
    found = {name: (checkpoint.partition("-")[0], corpus) for name, (checkpoint, corpus) in chain.views.items()}
    assert found == {
        "L_im": ("posttrain", "music"),
        "L_ret": ("finetune", "music"),
        "L_ft": ("finetune", "chemistry"),
        "L_pre": ("finetune", "general"),
        "L_pre_post": ("posttrain", "general"),
        "L_second": ("second", "instruction"),
        "L_kept": ("relearn", "general"),
    }


def test_a_given_checkpoint_has_a_before():
    graph = graph_of({"init": {"from": "/m", "at": "finetune"}})
    (chain,) = graph.chains
    start = "given-" + "a" * 12
    assert (chain.start, list(chain.runs)) == (start, ["finetune"])
    assert chain.views["L_im"] == (start, "music")
    assert chain.views["L_pre_post"] == (start, "general")
    assert len(graph.evaluations[start]) == 3
    (spec,) = (run.spec for run in graph.runs.values())
    assert (spec.parent, spec.model, spec.init) == (None, None, StageInit(sha256="a" * 64))


def test_continued_pretraining_shows_what_it_is_told_to():
    graph = graph_of({"init": {"from": "/m", "at": "pretrain"}, "exposure": {"fraction": 0.5}})
    (chain,) = graph.chains
    spec = graph.runs[chain.runs["pretrain"]].spec
    assert (spec.model, spec.init.sha256) == (None, "a" * 64)
    assert [(use.purpose, use.total_windows) for use in spec.data.mix] == [("exposure", 391)]
    assert chain.views["L_im"][0] == chain.runs["posttrain"]


def test_a_mix_of_exposure_takes_a_prefix_and_repeats_it():
    spec = specs_of({"exposure": {"fraction": 2, "repeats": True, "placement": "late"}})["pretrain"]
    (use,) = spec.data.mix
    assert (use.first_window, use.windows, use.total_windows) == (0, 781, 1562)
    assert (use.per, use.mode, use.placement) == ("stage", "add", "late")
    assert spec.data.added_windows == 1562
    assert stage_windows(spec) == 15_625 + 1562


def test_a_mix_of_replay_is_in_every_pass():
    change = {"posttrain": {"replay_fraction": 0.01, "max_tokens": 300_000, "tokens": 100_000}}
    spec = specs_of(change)["posttrain"]
    (use,) = spec.data.mix
    assert (use.purpose, use.store, use.windows, use.per) == ("replay", "general-1", 156, "pass")
    assert spec.data.pass_windows == 781 + 156
    assert stage_windows(spec) == round(300_000 / 128)


def test_replay_of_any_earlier_corpus_in_any_later_stage():
    mix = [{"corpus": "music", "fraction": 0.1}, {"corpus": "general", "fraction": 0.2}]
    spec = specs_of({"stages": {"finetune": {"mix": mix}}})["finetune"]
    assert [(use.purpose, use.store, use.windows) for use in spec.data.mix] == [
        ("replay", "general-1", 103), ("replay music", "music-1", 52)
    ]  # fmt: skip


def test_what_earlier_stages_showed_is_skipped():
    change = {
        "exposure": {"fraction": 0.25},
        "posttrain": {"tokens": 12_800, "allocation": "matched"},
        "stages": {"relearn": {"corpus": "music", "tokens": 25_600, "not_shown_in": ["pretrain", "posttrain"]}},
    }
    specs = specs_of(change)
    assert [use.windows for use in specs["pretrain"].data.mix] == [25]
    main = specs["posttrain"].data.main
    assert (main.first_window, main.windows) == (25, 75)
    main = specs["relearn"].data.main
    assert (main.first_window, main.windows) == (100, 100)


def test_a_stage_of_which_nothing_is_left_has_no_windows():
    spec = specs_of({"exposure": {"fraction": 1}, "posttrain": {"allocation": "matched"}})["posttrain"]
    assert (spec.data.main.windows, stage_windows(spec), total_steps(spec)) == (0, 0, 0)


def test_stopping_windows_are_asked_for_only_where_a_stage_may_stop():
    specs = specs_of({})
    assert [spec.stop is not None for spec in specs.values()] == [False, True, False]
    assert (specs["posttrain"].stop.store, specs["posttrain"].stop.windows) == ("music-1", 128)


def test_a_corpus_may_have_two_uses_in_a_stage():
    spec = specs_of({"stages": {"relearn": {"corpus": "music", "mix": [{"corpus": "music", "fraction": 0.1}]}}})
    uses = spec["relearn"].data.uses
    assert [(use.purpose, use.store) for use in uses] == [("relearn", "music-1"), ("replay music", "music-1")]


@pytest.mark.parametrize("count", [1, 2, 3])
def test_seeds_share_a_template_and_differ_in_seed_and_parent_only(count):
    graph = graph_of({"seeds": list(range(count))})
    first, last = graph.chains[0], graph.chains[-1]
    for stage in first.runs:
        one, other = (graph.runs[chain.runs[stage]].spec for chain in (first, last))
        assert one.model_copy(update={"seed": 0, "parent": None}) == other.model_copy(
            update={"seed": 0, "parent": None}
        )
        assert other.seed == count - 1
