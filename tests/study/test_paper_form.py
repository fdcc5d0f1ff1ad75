"""The paper's short form and the general form: the same study said twice has the same runs."""

import json

import pytest

from indelible.study.arm import ArmSpec
from indelible.study.graph import Stores, build_graph
from indelible.study.load import Study, load_study, resolve_study, shipped_studies
from indelible.study.paper_form import SHORT_STAGES
from indelible.study.stage_spec import StageInit

BASE = {
    "name": "t",
    "scale": "pico",
    "pipeline": {"pre": "general", "post": "music", "ft": "chemistry"},
    "seeds": [0],
}


def stores_of(study: Study) -> Stores:
    return Stores({corpus: f"{corpus}-1" for corpus in study.data.corpora}, "tokenizer-1")


def ids(raw: dict) -> list[dict[str, str]]:
    study = resolve_study(raw)
    return [chain.runs for chain in build_graph(study, stores_of(study)).chains]


def in_the_general_form(study: Study) -> dict:
    """The same study with every stage of every arm written out, as JSON could hold it."""
    arms = {}
    for number, arm in enumerate(study.arms):
        tree = json.loads(arm.model_dump_json(by_alias=True, exclude={"name", "scale", "arm"}))
        for stage in tree["stages"].values():  # values that are pairs, and would be axes of two
            stage["betas"] = [stage["betas"]]
        arms[f"arm{number}"] = tree
    return {"name": study.name, "scale": study.scale, "seeds": study.seeds, "arms": arms}


def without_names(arm: ArmSpec) -> ArmSpec:
    return arm.model_copy(update={"arm": ""})


@pytest.mark.parametrize("name", list(shipped_studies()))
def test_every_shipped_study_is_the_same_in_both_forms(name):
    short = load_study(name, ["seeds=[0, 1]"])
    general = resolve_study(in_the_general_form(short))
    assert [without_names(arm) for arm in general.arms] == [without_names(arm) for arm in short.arms]
    inits = {stage.init for arm in short.arms for stage in arm.stages.values() if stage.init is not None}
    given = {init: StageInit(sha256="a" * 64) for init in inits}
    one, other = (build_graph(study, stores_of(study), given) for study in (short, general))
    assert list(one.runs) == list(other.runs)
    assert one.evaluations == other.evaluations


def test_the_example_of_the_documents_is_the_papers_chain():
    short = {
        **BASE,
        "exposure": {"fraction": [0, 0.5, 1.0]},
        "posttrain": {"replay_fraction": 0.01, "method": "lora", "lora": {"r": 8}},
        "finetune": {"lr": ["0.3x", "1x"]},
    }
    mix = {"corpus": "music", "share_of": "posttrain", "fraction": [0, 0.5, 1], "mode": "add", "placement": "uniform"}
    general = {
        "name": "t",
        "scale": "pico",
        "seeds": [0],
        "stages": {
            "pretrain": {"corpus": "general", "tokens": "1x", "mix": [mix]},
            "posttrain": {
                "corpus": "music",
                "objective": {"kind": "next_token"},
                "adapt": {"kind": "lora", "r": 8},
                "mix": [{"corpus": "general", "share_of": "pretrain", "fraction": 0.01}],
            },
            "finetune": {"corpus": "chemistry", "lr": ["0.3x", "1x"], "guard": "none"},
        },
    }
    assert ids(general) == ids(short)


def test_matched_allocation_is_what_pretraining_did_not_show():
    short = {**BASE, "exposure": {"fraction": 0.5}, "posttrain": {"allocation": "matched"}}
    overlay = {"posttrain": {"not_shown_in": ["pretrain"]}}
    assert ids({**BASE, "exposure": {"fraction": 0.5}, "stages": overlay}) == ids(short)
    study = resolve_study(short)
    data = build_graph(study, stores_of(study)).chains[0].runs["posttrain"]
    spec = build_graph(study, stores_of(study)).runs[data].spec
    assert (spec.data.main.first_window, spec.data.main.windows) == (391, 781 - 391)
    assert spec.training.eval_interval is None, "exactly the rest is shown once: nothing stops it"


def test_unseen_replay_starts_behind_what_pretraining_showed():
    short = {**BASE, "finetune": {"replay_fraction": 0.01, "replay_from": "unseen"}}
    entry = {"corpus": "general", "share_of": "pretrain", "fraction": 0.01, "not_shown_in": ["pretrain"]}
    assert ids({**BASE, "stages": {"finetune": {"mix": [entry]}}}) == ids(short)
    study = resolve_study(short)
    graph = build_graph(study, stores_of(study))
    (use,) = graph.runs[graph.chains[0].runs["finetune"]].spec.data.mix
    assert (use.purpose, use.first_window, use.windows) == ("replay", 15_625, 156)


def test_what_stands_under_stages_is_laid_over_the_short_form():
    raw = {
        **BASE,
        "finetune": {"lr": 1e-3, "warmup_steps": 7},
        "stages": {"finetune": {"lr": 1e-4}, "second": {"corpus": "instruction"}},
    }
    arm = resolve_study(raw).arms[0]
    assert list(arm.stages) == [*SHORT_STAGES, "second"]
    assert (arm.stages["finetune"].lr, arm.stages["finetune"].warmup_steps) == (1e-4, 7)
    assert arm.stages["second"].lr == pytest.approx(3e-4), "the scale's finetune, not the study's"


def test_mixes_of_the_short_form_a_section_and_an_overlay_come_together():
    raw = {
        **BASE,
        "exposure": {"fraction": 1},
        "pretrain": {"mix": [{"corpus": "chemistry", "fraction": 0.1}]},
        "stages": {"pretrain": {"mix": [{"corpus": "instruction", "fraction": 0.2}]}},
    }
    mix = resolve_study(raw).arms[0].stages["pretrain"].mix
    assert [(entry.corpus, entry.fraction, entry.per) for entry in mix] == [
        ("chemistry", 0.1, "pass"), ("music", 1.0, "stage"), ("instruction", 0.2, "pass")
    ]  # fmt: skip


def test_a_mix_is_shown_over_the_stage_only_where_it_is_a_share_of_a_later_one_or_says_so():
    def per(stage: str, entry: dict) -> str:
        return resolve_study({**BASE, "stages": {stage: {"mix": [entry]}}}).arms[0].stages[stage].mix[0].per

    share = {"corpus": "music", "fraction": 0.5}
    assert per("pretrain", share | {"share_of": "posttrain"}) == "stage"
    assert per("pretrain", share) == "pass"
    assert per("finetune", share | {"share_of": "posttrain"}) == "pass"
    assert per("finetune", share | {"per": "stage", "placement": "late"}) == "stage"


def test_without_a_pipeline_every_stage_is_written_out():
    raw = {"name": "t", "scale": "pico", "seeds": [0], "stages": {"adapt": {"corpus": "music"}, "again": None}}
    with pytest.raises(ValueError, match=r"stages.again.corpus: Field required"):
        resolve_study(raw)
    raw["stages"]["again"] = {"corpus": "chemistry"}
    arm = resolve_study(raw).arms[0]
    assert (list(arm.stages), arm.first, arm.roles) == (["adapt", "again"], "adapt", {})


@pytest.mark.parametrize(
    ("init", "run"),
    [
        ("/m", ["posttrain", "finetune"]),
        ({"from": "/m", "at": "pretrain"}, ["pretrain", "posttrain", "finetune"]),
        ({"from": "/m", "at": "finetune"}, ["finetune"]),
    ],
)
def test_a_given_checkpoint_starts_any_stage(init, run):
    arm = resolve_study({**BASE, "init": init}).arms[0]
    assert list(arm.chain) == run
    assert list(arm.stages) == list(SHORT_STAGES), "those before it are known, for what is counted by them"
    assert arm.tokenizer.path == "/m"


def test_a_given_checkpoint_may_stand_at_its_stage():
    overlaid = resolve_study({**BASE, "stages": {"finetune": {"init": "/m"}}})
    assert overlaid.arms == resolve_study({**BASE, "init": {"from": "/m", "at": "finetune"}}).arms


def test_continued_pretraining_has_exposure():
    raw = {**BASE, "init": {"from": "/m", "at": "pretrain"}, "exposure": {"fraction": 0.5}}
    arm = resolve_study(raw).arms[0]
    assert arm.stages["pretrain"].mix[0].corpus == "music"
    assert arm.stages["pretrain"].init.checkpoint == "/m"
