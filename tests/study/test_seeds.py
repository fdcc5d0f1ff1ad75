"""Seeds: one list for all stages, or a list a stage, swept apart."""

import pytest

from indelible.study.graph import Stores, build_graph
from indelible.study.load import resolve_study
from indelible.study.seeds import parse_seeds, seed_columns, seed_problems, stage_seeds

CHAIN = ("pretrain", "posttrain", "finetune")
BASE = {"name": "t", "scale": "pico", "pipeline": {"pre": "general", "post": "music", "ft": "chemistry"}}
STORES = Stores({"general": "general-a", "music": "music-b", "chemistry": "chemistry-c"}, "tokenizer-d")


def test_a_list_gives_one_seed_to_all_stages():
    assert list(stage_seeds((3, 5), CHAIN)) == [dict.fromkeys(CHAIN, 3), dict.fromkeys(CHAIN, 5)]


def test_stages_that_a_mapping_does_not_name_have_the_seed_of_the_stage_before():
    seeds = parse_seeds({"pretrain": [0, 1], "finetune": [7, 8, 9]})
    found = [tuple(one.values()) for one in stage_seeds(seeds, CHAIN)]
    assert found == [(0, 0, 7), (0, 0, 8), (0, 0, 9), (1, 1, 7), (1, 1, 8), (1, 1, 9)]
    assert [tuple(one.values()) for one in stage_seeds({"posttrain": (4,)}, CHAIN)] == [(0, 4, 4)]


def test_the_first_stages_seed_is_the_unit_and_the_others_are_columns():
    seeds = {"pretrain": (0, 1), "finetune": (7,)}
    assert seed_columns(seeds, {"pretrain": 1, "posttrain": 1, "finetune": 7}) == {"seed": 1, "finetune_seed": 7}
    assert seed_columns((1, 2), dict.fromkeys(CHAIN, 2)) == {"seed": 2}


def test_pretraining_is_shared_by_the_seeds_of_later_stages():
    study = resolve_study({**BASE, "seeds": {"pretrain": [0, 1], "finetune": [0, 1, 2]}})
    graph = build_graph(study, STORES)
    counts = {stage: sum(run.stage == stage for run in graph.runs.values()) for stage in graph.stages}
    assert counts == {"pretrain": 2, "posttrain": 2, "finetune": 6}
    assert [(chain.columns["seed"], chain.columns["finetune_seed"]) for chain in graph.chains] == [
        (0, 0), (0, 1), (0, 2), (1, 0), (1, 1), (1, 2)
    ]  # fmt: skip
    same = resolve_study({**BASE, "seeds": [0]})
    assert build_graph(same, STORES).chains[0].runs == graph.chains[0].runs, "a stage's run knows its own seed only"


def test_seeds_of_stages_that_an_arm_does_not_run_multiply_nothing():
    raw = {**BASE, "seeds": {"pretrain": [0, 1], "finetune": [5, 6]}, "init": {"from": "/m", "at": "posttrain"}}
    arm = resolve_study(raw).arms[0]
    assert [tuple(one.values()) for one in stage_seeds(raw["seeds"], arm.chain)] == [(0, 5), (0, 6)]


@pytest.mark.parametrize("seeds", [None, "all", 3, [], [0, 0], [-1], [0.5], [True], [2**63]])
def test_a_list_that_is_none_is_refused_with_an_example(seeds):
    (problem,) = seed_problems(seeds, CHAIN)
    assert problem.startswith(f"seeds = {seeds!r}: expected a list of distinct non-negative integers below 2^63, e.g.")
