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
    assert [arm.exposure.placement for arm in resolve_study(raw).arms] == ["early", "late", (0.2, 0.4)]
    two = [{"pre": "general", "post": "music", "ft": ft} for ft in ("chemistry", "instruction")]
    assert [arm.pipeline.ft for arm in resolve_study({**BASE, "pipeline": two}).arms] == ["chemistry", "instruction"]


def test_hand_picked_arms_are_laid_over_the_rest_and_may_sweep():
    raw = {
        **BASE,
        "finetune": {"lr": [1e-4, 1e-3]},
        "arms": {"plain": {}, "mixed": {"exposure": {"fraction": [0.5, 1.0]}}},
    }
    arms = resolve_study(raw).arms
    assert [(arm.arm, arm.exposure.fraction) for arm in arms] == [
        ("plain", 0.0), ("plain", 0.0), ("mixed", 0.5), ("mixed", 1.0), ("mixed", 0.5), ("mixed", 1.0)
    ]  # fmt: skip


def test_multiples_are_of_the_value_of_the_scale():
    raw = {**BASE, "posttrain": {"tokens": ["0.1x", "1x"]}, "finetune": {"lr": "0.3x"}}
    arms = resolve_study(raw).arms
    scale = load_scale("pico")
    assert [arm.posttrain.tokens for arm in arms] == [10_000, 100_000]
    assert arms[0].finetune.lr == pytest.approx(0.3 * scale["finetune"]["lr"], rel=1e-12)
    with pytest.raises(UserError, match=r"finetune.patience = '2x': this scale has no value of its own"):
        resolve_study({**BASE, "finetune": {"patience": "2x"}})


def test_a_mapping_of_another_kind_replaces_as_a_whole():
    over = {"tokenizer": {"kind": "hf", "path": "x"}}
    assert merged({"tokenizer": {"kind": "bpe", "vocab_size": 512}}, over)["tokenizer"] == {"kind": "hf", "path": "x"}


def test_counts_are_read_with_their_suffix():
    arm = resolve_study({**BASE, "pretrain": {"tokens": "1.5M"}, "posttrain": {"tokens": "10k"}}).arms[0]
    assert (arm.pretrain.tokens, arm.posttrain.tokens) == (1_500_000, 10_000)


def test_overrides_reach_any_field_and_are_read_as_yaml():
    tree = apply_overrides(BASE, ["finetune.lr=1e-4", "exposure.fraction=[0, 1]", "scale=nano"])
    assert tree["exposure"]["fraction"] == [0, 1]
    assert tree["scale"] == "nano"
    assert float(tree["finetune"]["lr"]) == 1e-4
    with pytest.raises(UserError, match="expected field=value"):
        apply_overrides(BASE, ["finetune.lr"])
    with pytest.raises(UserError, match="is not YAML"):
        apply_overrides(BASE, ["finetune.lr=[1"])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"finetune": {"lrr": 1}}, r"finetune\.lrr: unknown key \(did you mean 'lr'\?\)"),
        ({"exposure": {"zzz": 1}}, r"exposure.zzz: unknown key; known here: fraction, mode, placement, repeats"),
        ({"sedes": [1]}, r"sedes: unknown key \(did you mean 'seeds'\?\)"),
        ({"exposure": {"fraction": 1.5}}, r"fraction 1.5 shows D_post more than once; set exposure.repeats: true"),
        ({"exposure": {"placement": [0.5, 0.2]}}, r"placement \[0.5, 0.2\] must be \[a, b\] with 0 <= a < b <= 1"),
        ({"scale": "picco"}, r"scale = 'picco' is not a scale \(did you mean 'pico'\?\)"),
        ({"scale": ["pico", "nano"]}, r"a study has one scale"),
        ({"seeds": []}, r"seeds = \[\]: expected a list of distinct non-negative integers"),
        ({"seeds": [1, 1]}, r"seeds = \[1, 1\]: expected a list of distinct"),
        (
            {"pipeline": {"pre": "generl", "post": "music", "ft": "chemistry"}},
            r"pipeline.pre = 'generl' is not a corpus",
        ),
        ({"finetune": {"lr": []}}, r"finetune.lr = \[\]: a sweep axis needs at least one value"),
        ({"arms": ["mixed"]}, r"arms: expected a mapping of arm names"),
        ({"model": {"num_heads": 3}}, r"hidden_size 64 is not a multiple of num_heads 3"),
        ({"model": {"num_heads": 4, "num_kv_heads": 3}}, r"num_heads 4 is not a multiple of num_kv_heads 3"),
        ({"finetune": {"patience": 2}}, r"patience 2 needs eval_interval"),
        ({"finetune": {"lr": "fast"}}, r"finetune.lr = 'fast': .*valid number"),
        ({"execution": {"worker": 2}}, r"execution.worker: unknown key \(did you mean 'workers'\?\)"),
        ({"exposure": {"fraction": 1}, "init": {"from": "x"}}, r"exposure.fraction must be 0 with init"),
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
