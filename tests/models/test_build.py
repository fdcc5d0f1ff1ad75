"""Models from a spec: exact sizes at the paper's scales, initialisation, and what is said of a bad folder."""

import pytest
import torch
from tiny_models import tiny_model

from indelible.errors import UserError
from indelible.models.build import empty_model, initialise, load_config, model_config
from indelible.models.load_given import load_given
from indelible.study.arm import ModelSpec
from indelible.study.cost import num_parameters
from indelible.study.load import load_study

TINY = ModelSpec(hidden_size=32, num_layers=2, num_heads=4, num_kv_heads=2, intermediate_size=64)


@pytest.mark.parametrize(("scale", "tied", "count"), [("135m", True, 134_515_008), ("1b", False, 1_029_917_376)])
def test_exact_parameter_counts_of_the_paper_s_scales(scale, tied, count):
    spec = load_study("quickstart", [f"scale={scale}"]).arms[0].model
    assert spec.tie_embeddings is tied
    with torch.device("meta"):
        model = empty_model(model_config(spec, 49_152, 1024, 0))
    assert sum(weight.numel() for weight in model.parameters()) == count == num_parameters(spec, 49_152)
    assert {weight.device.type for weight in model.parameters()} == {"meta"}


def test_the_1b_model_tied_would_not_be_1_03_billion():
    spec = load_study("quickstart", ["scale=1b", "model.tie_embeddings=true"]).arms[0].model
    assert num_parameters(spec, 49_152) == 944_982_720


@pytest.mark.parametrize("init", ["normal", "litgpt"])
def test_initialisation_has_the_stated_spread_and_its_own_stream(init):
    spec = TINY.model_copy(update={"hidden_size": 128, "init": init})
    one, two, other = (empty_model(model_config(spec, 512, 16, 0)) for _ in range(3))
    initialise(one, spec, 0)
    torch.rand(5)
    initialise(two, spec, 0)
    initialise(other, spec, 1)
    for (name, weight), again, third in zip(one.named_parameters(), two.parameters(), other.parameters(), strict=True):
        assert torch.equal(weight, again)
        if weight.dim() < 2:
            assert (weight == 1).all()
            continue
        assert not torch.equal(weight, third)
        expected = 1 / 24
        if init == "litgpt":
            is_output = name.endswith(("o_proj.weight", "down_proj.weight"))
            expected = 1 / (2 * 128**0.5) if is_output else (2 / (5 * 128)) ** 0.5
        assert weight.std().item() == pytest.approx(expected, rel=0.05), name


@pytest.mark.parametrize("kind", ["gpt2", "qwen2"])
def test_any_causal_model_loads_with_the_names_of_its_parameters(kind, tmp_path):
    model = tiny_model(kind)
    model.half().save_pretrained(tmp_path)
    config, state = load_given(tmp_path)
    assert config.model_type == kind
    for name, weight in model.named_parameters():
        assert state[name].dtype == torch.float32
        assert torch.equal(state[name], weight.float())


def test_a_folder_without_config_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"no config.json; expected a Hugging Face model folder"):
        load_config(tmp_path)


def test_a_folder_that_transformers_cannot_read_is_refused(tmp_path):
    tiny_model("llama").save_pretrained(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"nonsense")
    with pytest.raises(UserError, match=r"transformers cannot load it .*\(.*\); give .* safetensors weights"):
        load_given(tmp_path)


def test_weights_that_do_not_belong_to_the_config_are_refused(tmp_path):
    tiny_model("llama", num_hidden_layers=1).save_pretrained(tmp_path)
    tiny_model("llama").config.save_pretrained(tmp_path)
    with pytest.raises(UserError, match=r"9 weight\(s\) of LlamaForCausalLM are missing or have another shape there"):
        load_given(tmp_path)
