"""Identity: everything that changes a result moves the id, nothing else does, and ids stay what they are."""

from dataclasses import replace
from pathlib import Path

import pytest

from indelible.errors import UserError
from indelible.strict import Strict, added_later
from indelible.study import identity
from indelible.study.adapt import LoraSpec
from indelible.study.graph import Graph, Stores, build_graph
from indelible.study.identity import canonical, digest, flat_form, without_tags
from indelible.study.load import resolve_study
from indelible.study.stage_spec import StageInit, StageSpec
from indelible.study.training import InitSpec

STORES = Stores({"general": "general-a", "music": "music-b", "chemistry": "chemistry-c"}, "tokenizer-d")
RAW = {
    "name": "golden",
    "scale": "pico",
    "seq_len": 128,
    "precision": "fp32",
    "pipeline": {"pre": "general", "post": "music", "ft": "chemistry"},
    "model": {"hidden_size": 64, "num_layers": 2, "num_heads": 2, "num_kv_heads": 1, "intermediate_size": 192},
    "pretrain": {"tokens": 2_000_000, "lr": 4e-3, "warmup_steps": 50, "global_batch_size": 16},
    "posttrain": {
        "tokens": 100_000, "max_tokens": 3_000_000, "lr": 2e-3, "warmup_steps": 20, "global_batch_size": 16,
        "eval_interval": 40, "patience": 3,
    },
    "finetune": {"tokens": 66_000, "lr": 1e-3, "warmup_steps": 3, "global_batch_size": 16},
    "evaluation": {"windows": 128, "stop_windows": 128},
    "seeds": [0],
}  # fmt: skip


def graph_of(change: dict | None = None, stores: Stores = STORES, **how) -> Graph:
    raw = {**RAW, **{k: {**RAW.get(k, {}), **v} if isinstance(v, dict) else v for k, v in (change or {}).items()}}
    return build_graph(resolve_study(raw), stores, **how)


def ids(change: dict | None = None, stores: Stores = STORES, **how) -> dict[str, str]:
    return dict(graph_of(change, stores, **how).chains[0].runs)


def test_golden_ids():
    """These ids are on people's disks. A new field with its old behaviour as default must be `added_later`."""
    assert ids({"exposure": {"fraction": 0.5}}) == GOLDEN


def test_golden_evaluations():
    """Ids of evaluations are on people's disks too."""
    graph = graph_of()
    assert sorted(graph.evaluations[graph.chains[0].runs["pretrain"]]) == GOLDEN_EVALUATIONS


def test_what_changes_a_stage_moves_it_and_its_descendants_only():
    base = ids()
    changed = ids({"finetune": {"lr": 2e-3}})
    assert (changed["pretrain"], changed["posttrain"]) == (base["pretrain"], base["posttrain"])
    assert changed["finetune"] != base["finetune"]
    changed = ids({"posttrain": {"dropout": 0.1}})
    assert changed["pretrain"] == base["pretrain"]
    assert changed["posttrain"] != base["posttrain"]
    assert changed["finetune"] != base["finetune"]


@pytest.mark.parametrize(
    "change",
    [
        {"seeds": [1]},
        {"seq_len": 64},
        {"precision": "bf16"},
        {"model": {"init_std": 0.02}},
        {"pretrain": {"betas": [0.9, 0.999]}},
        {"pretrain": {"eps": 1e-7}},
        {"pretrain": {"max_loss": 20}},
        {"pretrain": {"mix": [{"corpus": "chemistry", "fraction": 0.1}]}},
        {"pretrain": {"adapt": "lora"}},
        {"exposure": {"fraction": 0.25}},
        {"data": {"loss_on": "completion"}},
    ],
    ids=str,
)
def test_every_setting_that_changes_weights_counts(change):
    assert ids(change)["pretrain"] != ids()["pretrain"]


def test_windows_that_stop_a_stage_count_and_reported_ones_do_not():
    stopped = ids({"evaluation": {"stop_windows": 64}})
    assert stopped["pretrain"] == ids()["pretrain"], "nothing stops it"
    assert stopped["posttrain"] != ids()["posttrain"]
    assert ids({"evaluation": {"windows": 64}}) == ids()


@pytest.mark.parametrize(
    "change",
    [
        {"name": "another", "description": "x"},
        {"execution": {"workers": 7, "compile": "off", "micro_batch_size": 2, "slurm": {"partition": "x"}}},
        {"finetune": {"watch": {"corpora": ["music"], "steps": [1, 2]}}},
        {"views": {"L_x": {"after": "pretrain", "corpus": "music"}}},
        {"evaluation": {"windows": 7}},
        {"stages": {"second": {"corpus": "music"}}},
        {"min_lr_is_a_tenth": None},
    ],
    ids=str,
)
def test_what_changes_no_weight_does_not_count(change):
    if "min_lr_is_a_tenth" in change:
        change = {"finetune": {"min_lr": 1e-4}}  # what null comes to
    runs = ids(change)
    assert {stage: runs[stage] for stage in ids()} == ids()


def test_a_corpus_that_is_only_evaluated_on_trains_nothing_again():
    stores = Stores({**STORES.corpora, "instruction": "instruction-e"}, STORES.tokenizer)
    study = {"evaluation": {**RAW["evaluation"], "corpora": ["instruction"]}}
    before, after = graph_of(), graph_of(study, stores)
    assert list(after.runs) == list(before.runs)
    for checkpoint, wanted in before.evaluations.items():
        more = set(after.evaluations[checkpoint]) - set(wanted)
        assert set(wanted) < set(after.evaluations[checkpoint])
        assert [one.startswith("instruction-") for one in more] == [True]


def test_more_windows_are_other_evaluations_of_the_same_runs():
    before, after = graph_of(), graph_of({"evaluation": {"windows": 256}})
    assert list(after.runs) == list(before.runs)
    for checkpoint, wanted in before.evaluations.items():
        assert not set(wanted) & set(after.evaluations[checkpoint])


def test_other_tokens_are_another_run():
    other = Stores({**STORES.corpora, "music": "music-x"}, STORES.tokenizer)
    assert ids(stores=other)["pretrain"] == ids()["pretrain"], "it shows no music"
    assert ids(stores=other)["posttrain"] != ids()["posttrain"]
    other = Stores(STORES.corpora, "tokenizer-x")
    assert ids(stores=other)["pretrain"] != ids()["pretrain"]


def test_precision_is_hashed_as_it_was_resolved():
    auto = {"precision": "auto"}
    assert ids(auto, precision="fp32") == ids()
    assert ids(auto, precision="bf16") == ids({"precision": "bf16"})
    assert ids(auto, precision="bf16") != ids(auto, precision="fp32")


def test_a_given_checkpoint_counts_by_its_content():
    init = InitSpec.model_validate({"from": "/m"})
    one, other = ({init: StageInit(sha256=digit * 64)} for digit in "ab")
    runs = ids({"init": "/m"}, given=one)
    assert list(runs) == ["posttrain", "finetune"]
    assert runs != ids({"init": "/m"}, given=other)
    elsewhere = {InitSpec.model_validate({"from": "/n"}): StageInit(sha256="a" * 64)}
    assert ids({"init": "/n"}, given=elsewhere) == runs


def test_arms_that_pretrain_alike_share_the_run():
    assert ids({"posttrain": {"tokens": 50_000}})["pretrain"] == ids()["pretrain"], "no exposure, no difference"
    quarter_of_all = ids({"exposure": {"fraction": 0.25}})["pretrain"]
    half_of_half = ids({"exposure": {"fraction": 0.5}, "posttrain": {"tokens": 50_000}})["pretrain"]
    assert quarter_of_all == half_of_half


def test_a_stage_behind_the_others_renames_nothing_of_what_is_mixed_in_before():
    alone = {"name": "t", "scale": "pico", "seeds": [0]}
    first = {"corpus": "general", "mix": [{"corpus": "music", "fraction": 0.1}]}
    stages = {"pretrain": first, "posttrain": {"corpus": "music"}, "finetune": {"corpus": "chemistry"}}
    runs = [
        build_graph(resolve_study({**alone, "stages": dict(list(stages.items())[:count])}), STORES).chains[0].runs
        for count in (1, 2, 3)
    ]
    assert runs[0].items() <= runs[1].items() <= runs[2].items()


def test_a_raised_code_version_moves_ids(monkeypatch):
    before = ids()
    monkeypatch.setattr("indelible.study.graph.CODE_VERSION", identity.CODE_VERSION + 1)
    assert all(ids()[stage] != before[stage] for stage in before)


def test_a_field_added_later_is_not_hashed_at_its_default():
    def settings(**fields: tuple) -> type[Strict]:
        annotations = {name: kind for name, (kind, _) in fields.items()}
        values = {name: default for name, (_, default) in fields.items()}
        return type("Settings", (Strict,), {"__annotations__": annotations, **values})

    old = settings(rank=(int, 8))
    new = settings(rank=(int, 8), scale=(float, added_later(1.0)))
    hashed = settings(rank=(int, 8), scale=(float, 1.0))
    assert digest(new(rank=4)) == digest(old(rank=4))
    assert digest(new(rank=4, scale=1)) == digest(old(rank=4))
    assert digest(new(rank=4, scale=2.0)) != digest(old(rank=4))
    assert digest(hashed(rank=4)) != digest(old(rank=4))
    assert new.model_validate(without_tags(canonical(new(rank=4)))) == new(rank=4)


def test_classes_with_equal_fields_stay_apart():
    assert canonical(LoraSpec())["class"] == "LoraSpec"


def test_the_canonical_form_reads_back():
    graph = graph_of({"exposure": {"fraction": 0.5, "placement": [0.25, 0.5]}, "posttrain": {"method": "lora"}})
    for run in graph.runs.values():
        assert StageSpec.model_validate(without_tags(canonical(run.spec))) == run.spec


def test_leaves_of_a_canonical_form_have_paths():
    form = {"a": {"b": [1, {"c": None}], "d": []}, "e": "x"}
    assert flat_form(form) == {"a.b.0": 1, "a.b.1.c": None, "a.d": [], "e": "x"}


def test_runs_are_named_by_what_is_out_of_the_ordinary():
    change = {
        "exposure": {"fraction": 0.5},
        "posttrain": {"dropout": 0.05},
        "stages": {"second": {"corpus": "music", "adapt": {"kind": "lora", "r": 8}}},
    }
    names = [name.rpartition("-")[0] for name in ids(change).values()]
    assert names == [
        "pretrain-music50.05k-s0",
        "posttrain-music-lr0.002-d0.05-after-music50.05k-s0",
        "finetune-chemistry-lr0.001-after-music50.05k-d0.05-s0",
        "second-music-lr0.0003-lora8-after-music50.05k-d0.05-s0",
    ]


UNFIT = {"set": {1, 2}, "nan": float("nan"), "infinity": float("inf"), "object": object(), "integer keys": {1: 2}}


@pytest.mark.parametrize("value", UNFIT.values(), ids=UNFIT.keys())
def test_what_has_no_canonical_form_is_refused(value):
    with pytest.raises(TypeError, match="cannot hash"):
        canonical(value)


def test_two_runs_under_one_row_of_settings_are_refused(monkeypatch):
    """The table derives its columns from what varies; if it ever fails to, nothing may be pooled."""
    monkeypatch.setattr("indelible.study.graph.chain_columns", lambda study, arms: [{"study": study} for _ in arms])
    message = r"two chains have the same settings and seeds[^\n]*\n  finetune: training.lr = 0.001 and 0.002\n"
    with pytest.raises(UserError, match=message):
        graph_of({"finetune": {"lr": [1e-3, 2e-3], "min_lr": 0}})


def test_a_setting_that_is_swept_twice_over_is_one_chain():
    study = resolve_study({**RAW, "finetune": {**RAW["finetune"], "lr": [1e-3, 2e-3]}})
    twice = replace(study, arms=(*study.arms, study.arms[0]))
    assert len(build_graph(twice, STORES).chains) == 2


def test_two_watches_of_one_run_are_refused():
    arms = {name: {"stages": {"pretrain": {"watch": {"steps": steps}}}} for name, steps in (("a", [1]), ("b", [2]))}
    with pytest.raises(UserError, match=r"stages.pretrain.watch: two arms share pretrain-plain-s0"):
        graph_of({"arms": arms})
    arms["b"] = {}
    graph = graph_of({"arms": arms})
    assert [run.watch is not None for run in graph.runs.values() if run.stage == "pretrain"] == [True]


def test_no_id_and_no_fingerprint_knows_the_version_of_the_package():
    """A release must not train anything again; what changes a result raises CODE_VERSION."""
    package = Path(identity.__file__).parents[1]
    files = [file for room in ("study", "data", "records") for file in (package / room).glob("*.py")]
    assert len(files) > 50
    assert not [file.name for file in files if "__version__" in file.read_text()]


GOLDEN = {
    "pretrain": "pretrain-music50.05k-s0-cd7dce8e17c8",
    "posttrain": "posttrain-music-lr0.002-after-music50.05k-s0-50b5ec6df872",
    "finetune": "finetune-chemistry-lr0.001-after-music50.05k-s0-8dbef0187849",
}
GOLDEN_EVALUATIONS = ["chemistry-40987fab83e6", "general-88f3302263f2", "music-6be250b73842"]
