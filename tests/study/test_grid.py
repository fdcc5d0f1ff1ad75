"""The study file: axes, arms, scales, overrides, and one clear message for everything that is wrong with it."""

import pytest

from indelible.errors import UserError
from indelible.study.grid import apply_overrides, expand, load_scale, merged, scale_names, sweep_axes, with_scale
from indelible.study.load import load_study, resolve_study, shipped_studies

BASE = {
    "name": "t",
    "scale": "pico",
    "pipeline": {"pre": "general", "post": "music", "ft": "chemistry"},
    "seeds": [0],
}


def test_lists_are_axes_except_where_the_value_is_a_list():
    raw = {
        **BASE,
        "exposure": {"fraction": [0, 1], "placement": [0.1, 0.5]},
        "pretrain": {"betas": [0.9, 0.95]},
        "finetune": {"lr": [1e-4, 1e-3], "betas": [[0.9, 0.95], [0.8, 0.9]]},
        "posttrain": {"lora": {"targets": ["o_proj"]}},
    }
    axes = {".".join(path): values for path, values in sweep_axes(raw).items()}
    assert set(axes) == {"exposure.fraction", "finetune.lr", "finetune.betas"}
    assert len(list(expand(raw))) == 8


def test_placements_and_pipelines_can_be_swept():
    raw = {**BASE, "exposure": {"fraction": 1, "placement": ["early", "late", [0.2, 0.4]]}}
    arms = resolve_study(raw).arms
    assert [arm.stages["pretrain"].mix[0].placement for arm in arms] == ["early", "late", (0.2, 0.4)]
    two = [{"pre": "general", "post": "music", "ft": ft} for ft in ("chemistry", "instruction")]
    arms = resolve_study({**BASE, "pipeline": two}).arms
    assert [arm.stages["finetune"].corpus for arm in arms] == ["chemistry", "instruction"]


def test_what_stands_under_a_stage_can_be_swept():
    stages = {
        "finetune": {
            "guard": [{"kind": "l2sp", "weight": 0.1}, "none"],
            "mix": [{"corpus": "music", "fraction": [0.01, 0.1]}],
            "corpus": ["chemistry", "instruction"],
        },
        "second": {"corpus": "instruction", "lr": ["0.3x", "1x"]},
    }
    arms = resolve_study({**BASE, "stages": stages}).arms
    assert len(arms) == 2 * 2 * 2 * 2
    found = {(arm.stages["finetune"].mix[0].fraction, arm.stages["second"].lr) for arm in arms}
    scale = load_scale("pico")["finetune"]["lr"]
    assert sorted(found) == [(a, pytest.approx(b * scale)) for a in (0.01, 0.1) for b in (0.3, 1)]


def test_a_mix_can_be_there_or_not():
    mixes = [[], [{"corpus": "music", "fraction": [0.1, 0.2]}]]
    arms = resolve_study({**BASE, "stages": {"finetune": {"mix": mixes}}}).arms
    assert [[mix.fraction for mix in arm.stages["finetune"].mix] for arm in arms] == [[], [0.1], [0.2]]


def test_given_checkpoints_can_be_swept_and_share_a_tokenizer():
    raw = {**BASE, "init": ["/models/a", {"from": "/models/b", "revision": "abc"}]}
    arms = resolve_study(raw).arms
    given = [arm.stages["posttrain"].init for arm in arms]
    assert [(init.checkpoint, init.revision) for init in given] == [("/models/a", None), ("/models/b", "abc")]
    assert {arm.tokenizer.path for arm in arms} == {"/models/a"}
    assert resolve_study({**raw, "tokenizer": {"kind": "hf", "path": "/t"}}).arms[1].tokenizer.path == "/t"


def test_hand_picked_arms_are_laid_over_the_rest_and_may_sweep():
    raw = {
        **BASE,
        "finetune": {"lr": [1e-4, 1e-3]},
        "arms": {"plain": {}, "mixed": {"exposure": {"fraction": [0.5, 1.0]}}},
    }
    arms = resolve_study(raw).arms
    assert [(arm.arm, sum(mix.fraction for mix in arm.stages["pretrain"].mix)) for arm in arms] == [
        ("plain", 0.0), ("plain", 0.0), ("mixed", 0.5), ("mixed", 1.0), ("mixed", 0.5), ("mixed", 1.0)
    ]  # fmt: skip


def test_multiples_are_of_the_value_of_the_scale():
    raw = {**BASE, "posttrain": {"tokens": ["0.1x", "1x"]}, "finetune": {"lr": "0.3x"}}
    raw["stages"] = {"pretrain": {"tokens": "0.5x"}, "second": {"corpus": "music", "tokens": "2x"}}
    arms = resolve_study(raw).arms
    assert [arm.stages["posttrain"].tokens for arm in arms] == [10_000, 100_000]
    assert arms[0].stages["finetune"].lr == pytest.approx(0.3 * load_scale("pico")["finetune"]["lr"], rel=1e-12)
    assert arms[0].stages["pretrain"].tokens == 1_000_000
    assert arms[0].stages["second"].tokens == 132_000, "a stage of one's own takes the scale's finetune as its measure"
    with pytest.raises(UserError, match=r"finetune.patience = '2x': this scale has no value of its own"):
        resolve_study({**BASE, "finetune": {"patience": "2x"}})


def test_a_mapping_of_another_kind_replaces_as_a_whole():
    over = {"tokenizer": {"kind": "hf", "path": "x"}}
    assert merged({"tokenizer": {"kind": "bpe", "vocab_size": 512}}, over)["tokenizer"] == {"kind": "hf", "path": "x"}


def test_counts_are_read_with_their_suffix():
    raw = {**BASE, "pretrain": {"tokens": "1.5M"}, "stages": {"relearn": {"corpus": "music", "tokens": "5k"}}}
    stages = resolve_study(raw).arms[0].stages
    assert (stages["pretrain"].tokens, stages["relearn"].tokens) == (1_500_000, 5_000)


def test_overrides_reach_any_field_and_are_read_as_yaml():
    tree = apply_overrides(BASE, ["finetune.lr=1e-4", "exposure.fraction=[0, 1]", "scale=nano"])
    assert tree["exposure"]["fraction"] == [0, 1]
    assert tree["scale"] == "nano"
    assert float(tree["finetune"]["lr"]) == 1e-4
    with pytest.raises(UserError, match="expected field=value"):
        apply_overrides(BASE, ["finetune.lr"])
    with pytest.raises(UserError, match="is not YAML"):
        apply_overrides(BASE, ["finetune.lr=[1"])
    with pytest.raises(UserError, match=r"a path of 5,001 parts; no field of a study lies so deep"):
        apply_overrides(BASE, ["a." * 5_000 + "b=1"])


PAIR = {"pre": "general", "post": "music", "ft": "chemistry"}
MUSIC = {"corpus": "music"}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"finetune": {"lrr": 1}}, r"finetune\.lrr: unknown key \(did you mean 'lr'\?\)"),
        ({"finetune": {"allocation": "matched"}}, r"finetune\.allocation: unknown key"),
        ({"pretrain": 3}, r"pretrain = 3: expected a mapping of settings"),
        ({"posttrain": {"method": "lorra"}}, r"posttrain.method = 'lorra': Input should be 'full' or 'lora'"),
        (
            {"posttrain": {"method": "lora", "lora": {"rr": 2}}},
            r"posttrain.lora.rr: unknown key \(did you mean 'r'\?\)",
        ),
        ({"exposure": {"zzz": 1}}, r"exposure.zzz: unknown key; known here: fraction, mode, placement, repeats"),
        ({"sedes": [1]}, r"sedes: unknown key \(did you mean 'seeds'\?\)"),
        ({"exposure": {"fraction": 1.5}}, r"fraction 1.5 shows D_post more than once; set exposure.repeats: true"),
        ({"exposure": {"placement": [0.5, 0.2]}}, r"placement \[0.5, 0.2\] must be \[a, b\] with 0 <= a < b <= 1"),
        ({"scale": "picco"}, r"scale = 'picco' is not a scale \(did you mean 'pico'\?\)"),
        ({"scale": ["pico", "nano"]}, r"a study has one scale"),
        ({"seeds": []}, r"seeds = \[\]: expected a list of distinct non-negative integers"),
        ({"seeds": [1, 1]}, r"seeds = \[1, 1\]: expected a list of distinct"),
        ({"seeds": {"pretrain": [0], "second": [1]}}, r"seeds.second: no stage of this name; the stages are pretrain"),
        ({"seeds": {"pretrain": [True]}}, r"seeds.pretrain = \[True\]: expected a list of distinct"),
        ({"seeds": {}}, r"seeds = \{\}: name at least one stage"),
        ({"pipeline": {**PAIR, "pre": "generl"}}, r"pipeline.pre = 'generl' is not a corpus"),
        ({"pipeline": None}, r"pipeline: missing; name the corpora, .* or write out stages:"),
        ({"finetune": {"lr": []}}, r"finetune.lr = \[\]: a sweep axis needs at least one value"),
        ({"arms": ["mixed"]}, r"arms: expected a mapping of arm names"),
        ({"model": {"num_heads": 3}}, r"hidden_size 64 is not a multiple of num_heads 3"),
        ({"model": {"num_heads": 4, "num_kv_heads": 3}}, r"num_heads 4 is not a multiple of num_kv_heads 3"),
        ({"finetune": {"patience": 2}}, r"patience 2 needs eval_interval"),
        ({"finetune": {"lr": "fast"}}, r"finetune.lr = 'fast': .*valid number"),
        ({"execution": {"worker": 2}}, r"execution.worker: unknown key \(did you mean 'workers'\?\)"),
        ({"exposure": {"fraction": 1}, "init": "x"}, r"exposure.fraction must be 0 with init at posttrain: the check"),
        ({"init": {"from": "x", "at": "second"}}, r"init.at = 'second': the stages are pretrain, posttrain, finetune"),
        ({"init": 3}, r"init = 3: .*valid dictionary"),
        ({"stages": ["music"]}, r"stages = 'music': expected a mapping of stage names to settings"),
        ({"stages": {"second": 3}}, r"stages.second = 3: expected a mapping of settings"),
        ({"stages": {"second": {}}}, r"stages.second.corpus: Field required"),
        ({"stages": {"second": {"corpus": "musik"}}}, r"stages.second.corpus = 'musik' is not a corpus of this study"),
        ({"stages": {"second stage": MUSIC}}, r"stages: 'second stage' is no stage name; use letters, digits and _"),
        ({"stages": {"finetune": {"lrr": 1}}}, r"stages.finetune.lrr: unknown key \(did you mean 'lr'\?\)"),
        ({"stages": {f"s{n}": MUSIC for n in range(6)}}, r"stages: found 9; a chain has from one to 8 stages"),
        (
            {"stages": {"finetune": {"guard": "l2"}}},
            r"finetune.guard.kind = 'l2': no such kind \(did you mean 'l2sp'\?\)",
        ),
        ({"stages": {"finetune": {"guard": "kl"}}}, r"stages.finetune.guard.weight: Field required"),
        (
            {"stages": {"finetune": {"guard": {"kind": "kl", "weight": 0}}}},
            r"finetune.guard.weight = 0: .*greater than",
        ),
        ({"stages": {"finetune": {"guard": {"weight": 1}}}}, r"finetune.guard = \{'weight': 1\}: say its kind"),
        ({"stages": {"finetune": {"objective": "zzz"}}}, r"stages.finetune.objective.kind = 'zzz'"),
        ({"stages": {"finetune": {"adapt": "full2"}}}, r"stages.finetune.adapt.kind = 'full2': no such kind"),
        ({"corpora": {"music": {"kind": "locl", "path": "x"}}}, r"corpora.music.kind = 'locl': no such kind \(did you"),
        (
            {"corpora": {"music": {"kind": "local", "path": "x", "zzz": "all"}}},
            r"corpora.music.zzz: unknown key; known here: .*text_column",
        ),
        ({"stages": {"finetune": {"mix": MUSIC}}}, r"stages.finetune.mix = .*: expected a list of mappings"),
        ({"stages": {"finetune": {"mix": ["music"]}}}, r"stages.finetune.mix = 'music': expected a list of mappings"),
        ({"stages": {"finetune": {"mix": [{"corpora": "music"}]}}}, r"stages.finetune.mix.0.corpora: unknown key"),
        ({"stages": {"finetune": {"mix": [{"corpus": "musik"}]}}}, r"stages.finetune.mix = 'musik' is not a corpus"),
        ({"stages": {"finetune": {"mix": [MUSIC, MUSIC]}}}, r"stages.finetune.mix names music twice; say it once"),
        ({"stages": {"finetune": {"mix": [{**MUSIC, "fraction": 2}]}}}, r"fraction 2 shows music more than once"),
        (
            {"stages": {"finetune": {"mix": [{**MUSIC, "fraction": 2, "repeats": True}]}}},
            r"a fraction above 1 are for per: stage",
        ),
        (
            {"stages": {"finetune": {"mix": [{**MUSIC, "share_of": "zzz"}]}}},
            r"stages.finetune.mix.share_of = 'zzz': the stages are pretrain, posttrain, finetune",
        ),
        (
            {"stages": {"finetune": {"mix": [{**MUSIC, "placement": "early"}]}}},
            r"placement, mode: replace and a fraction above 1 are for per: stage",
        ),
        ({"stages": {"finetune": {"not_shown_in": ["second"]}}}, r"'second' is no earlier stage of this chain"),
        ({"stages": {"finetune": {"watch": {"corpora": ["musik"]}}}}, r"watch.corpora = 'musik' is not a corpus"),
        ({"stages": {"pretrain": {"mix": [MUSIC]}}, "init": "x"}, r"stages.pretrain.mix must be 0 with init at post"),
        ({"evaluation": {"corpora": ["musik"]}}, r"evaluation.corpora = 'musik' is not a corpus"),
        ({"views": {"L_x": {"afer": "finetune"}}}, r"views.L_x.afer: unknown key \(did you mean 'after'\?\)"),
        ({"views": {"L_x": {"after": "second", "corpus": "music"}}}, r"views.L_x.after = 'second': the stages are"),
        (
            {"views": {"L_x": {"after": "finetune", "corpus": "x"}}},
            r"views.L_x.corpus = 'x' is neither a stage nor a c",
        ),
        ({"pipeline": None, "stages": {"a": MUSIC}, "finetune": {"lr": 1}}, r"finetune: this study has no stage of th"),
        ({"pipeline": None, "stages": {"a": MUSIC}, "exposure": {"fraction": 1}}, r"exposure: needs pipeline; without"),
        (
            {"pipeline": None, "stages": {"finetune": MUSIC}, "finetune": {"replay_fraction": 0.1}},
            r"finetune.replay_fraction: needs pipeline; without it say stages.finetune.mix",
        ),
        (
            {"arms": {"a": {}, "b": {"tokenizer": {"kind": "bpe", "vocab_size": 512}}}},
            r"tokenizer and data must be the same in all arms",
        ),
        (
            {"arms": {"a": {}, "b": {"evaluation": {"windows": 2}}}},
            r"evaluation.windows and stop_windows must be the s",
        ),
    ],
)
def test_what_is_wrong_is_said_with_its_place_and_the_fix(change, message):
    with pytest.raises(UserError, match=message):
        resolve_study({**BASE, **change})


def test_all_problems_are_reported_at_once():
    with pytest.raises(UserError, match="3 problems") as caught:
        resolve_study({**BASE, "finetune": {"lrr": 1, "tokns": 2}, "seeds": "all"})
    assert all(word in str(caught.value) for word in ("lrr", "tokns", "seeds"))


def test_an_unknown_study_is_refused_with_the_names_of_the_shipped_ones():
    with pytest.raises(UserError, match=r"neither a study file nor a shipped study; .*quickstart"):
        load_study("fig33")
    with pytest.raises(UserError, match=r"nowhere.yaml: no such study file"):
        load_study("nowhere.yaml")


def test_a_folder_of_a_shipped_studys_name_does_not_hide_it(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "paper").mkdir()  # as `--out paper` makes it
    assert load_study("paper").name == "paper"


def test_a_study_that_is_no_mapping_is_refused(tmp_path):
    (tmp_path / "list.yaml").write_text("- a\n- b\n")
    with pytest.raises(UserError, match="expected a mapping of settings at the top, found list"):
        load_study(str(tmp_path / "list.yaml"))
    (tmp_path / "broken.yaml").write_text("a: [1\n")
    with pytest.raises(UserError, match="not YAML"):
        load_study(str(tmp_path / "broken.yaml"))


@pytest.mark.parametrize("scale", scale_names())
@pytest.mark.parametrize("name", list(shipped_studies()))
def test_every_shipped_study_resolves_at_every_scale(name, scale):
    study = load_study(name, [f"scale={scale}"])
    assert study.arms
    assert study.scale == scale
    assert study.description


def test_a_grid_point_keeps_no_trace_of_the_others():
    points = list(expand({**BASE, "finetune": {"lr": [1, 2]}}))
    assert [with_scale(point)["finetune"]["lr"] for point in points] == [1, 2]


def test_a_long_axis_is_not_copied_for_each_of_its_points():
    copies = []

    class Axis(list):
        def __deepcopy__(self, memo):
            copies.append(len(self))
            return Axis(self)

    raw = {"name": "x", "scale": "pico", "finetune": {"lr": Axis(range(1, 101))}, "seeds": [0]}
    points = list(expand(raw))
    assert [point["finetune"]["lr"] for point in points] == list(range(1, 101))
    assert len(copies) <= 1
    assert raw["finetune"]["lr"] == list(range(1, 101)), "the raw study is left as it was"
