"""Of a given checkpoint we load what its files say, or nothing: each way to get another model is refused."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_models import some_ids, tiny_model
from token_folder import write_tokenizer
from transformers import AutoModelForCausalLM, AutoTokenizer, Qwen3Config

from indelible.errors import UserError
from indelible.models.build import empty_model, load_config
from indelible.models.given import find_checkpoint
from indelible.models.load_given import given_shape, load_given
from indelible.models.plan_checks import check_context
from indelible.models.side_files import write_side_files
from indelible.study.architecture import architecture_of


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A tied Llama with its tokenizer."""
    tiny_model("llama", tie_word_embeddings=True).save_pretrained(tmp_path / "ckpt")
    write_tokenizer(tmp_path / "ckpt", 64)
    return tmp_path / "ckpt"


def change_config(folder: Path, **changes: object) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def change_weights(folder: Path, change) -> None:
    weights = load_file(folder / "model.safetensors")
    change(weights)
    save_file(weights, folder / "model.safetensors", {"format": "pt"})


def refused(folder: Path, message: str) -> None:
    for load in (load_given, given_shape):
        with pytest.raises(UserError, match=message):
            load(folder)


def test_a_plain_checkpoint_is_what_transformers_loads(folder: Path) -> None:
    config, weights = load_given(folder)
    theirs = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    assert weights.keys() == dict(theirs.named_parameters()).keys()
    assert all(torch.equal(weights[name], weight) for name, weight in theirs.named_parameters())
    assert config.vocab_size == 64
    shape = given_shape(folder)
    assert shape.linear_layers >= {"q_proj", "down_proj", "lm_head"}
    assert shape.context == 64


def test_weights_without_a_place_are_refused(folder: Path) -> None:
    change_weights(folder, lambda w: w.update({"model.layers.0.self_attn.q_proj.bias": torch.ones(32)}))
    refused(
        folder, r"1 weight\(s\) there are unexpected: LlamaForCausalLM .* e.g. model.layers.0.self_attn.q_proj.bias"
    )


def test_constants_that_old_checkpoints_hold_are_no_weights(folder: Path) -> None:
    masks = {"h.0.attn.bias": torch.ones(1, 1, 64, 64, dtype=torch.uint8), "h.0.attn.masked_bias": torch.tensor(-1e4)}
    change_weights(folder, lambda w: w.update(masks | {"model.layers.0.self_attn.rotary_emb.inv_freq": torch.ones(4)}))
    find_checkpoint(str(folder))
    load_given(folder)


def test_missing_weights_are_refused(folder: Path) -> None:
    change_weights(folder, lambda w: w.pop("model.norm.weight"))
    refused(folder, r"1 weight\(s\) of LlamaForCausalLM are missing .*model.norm.weight")


def test_weights_of_another_shape_are_refused(folder: Path) -> None:
    change_weights(folder, lambda w: w.update({"model.norm.weight": torch.ones(16)}))
    with pytest.raises(UserError, match=r"missing or have another shape|cannot load it"):
        load_given(folder)
    with pytest.raises(UserError, match=r"missing or have another shape|cannot load it"):
        given_shape(folder)


def test_a_head_of_its_own_under_a_tied_flag_is_refused(folder: Path) -> None:
    embedding = load_file(folder / "model.safetensors")["model.embed_tokens.weight"]
    change_weights(folder, lambda w: w.update({"lm_head.weight": embedding.clone()}))
    load_given(folder)  # the same weight twice is one weight
    change_weights(folder, lambda w: w.update({"lm_head.weight": embedding + 1}))
    refused(folder, r"lm_head.weight and model.embed_tokens.weight are two weights .* \(tie_word_embeddings: true\)")
    change_config(folder, tie_word_embeddings=False)
    assert torch.equal(load_given(folder)[1]["lm_head.weight"], embedding + 1)


@pytest.mark.parametrize("where", ["top", "text_config"])
def test_quantised_weights_are_refused(folder: Path, where: str) -> None:
    settings = {"quantization_config": {"quant_method": "bitsandbytes", "load_in_4bit": True}}
    change_config(folder, **settings if where == "top" else {"text_config": settings})
    with pytest.raises(UserError, match=r"a quantised checkpoint \(bitsandbytes\), which cannot be trained on"):
        find_checkpoint(str(folder))


@pytest.mark.parametrize("dtype", [torch.int8, torch.float8_e4m3fn])
def test_weights_that_are_no_floats_are_refused(folder: Path, dtype: torch.dtype) -> None:
    change_weights(folder, lambda w: w.update({"model.norm.weight": torch.ones(32).to(dtype)}))
    with pytest.raises(UserError, match=r"model.norm.weight is stored as (I8|F8_E4M3), not as floating point"):
        find_checkpoint(str(folder))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_read_as_fp32(folder: Path, dtype: torch.dtype) -> None:
    change_weights(folder, lambda w: w.update({name: weight.to(dtype) for name, weight in w.items()}))
    find_checkpoint(str(folder))
    assert all(weight.dtype == torch.float32 for weight in load_given(folder)[1].values())


def test_code_in_a_checkpoint_is_neither_run_nor_asked_about(folder: Path, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr("builtins.input", lambda *_: pytest.fail("asked whether to run code"))
    marker = tmp_path / "EXECUTED"
    (folder / "modeling_madeup.py").write_text(f"open({str(marker)!r}, 'w')\nclass Madeup: pass\n")
    code = {"AutoConfig": "modeling_madeup.Madeup", "AutoModelForCausalLM": "modeling_madeup.Madeup"}
    change_config(folder, auto_map=code)
    load_given(folder)  # a model that transformers knows needs no code of its own
    change_config(folder, model_type="madeup")
    refused(folder, r"model type 'madeup' needs code of its own \(auto_map\), and code .* is never run")
    assert not marker.exists()


def test_other_kinds_of_models_are_refused(folder: Path) -> None:
    change_config(folder, model_type="t5", d_model=16)
    refused(folder, "'t5' is no causal language model")
    change_config(folder, model_type="no-such-type")
    refused(folder, "config.json cannot be read")


@pytest.mark.parametrize("change", [{"vocab_size": "many"}, {"vocab_size": None}, {"vocab_size": True}])
def test_a_vocabulary_that_is_no_number_is_refused(folder: Path, change: dict) -> None:
    change_config(folder, **change)
    with pytest.raises(UserError, match=r"vocab_size = .*; expected the number of token ids"):
        _ = find_checkpoint(str(folder)).vocab_size


def test_a_file_that_is_cut_short_is_refused(folder: Path) -> None:
    data = (folder / "model.safetensors").read_bytes()
    for size in (len(data) - 1, 100, 4, 0):
        (folder / "model.safetensors").write_bytes(data[:size])
        with pytest.raises(UserError, match="not a safetensors file, or cut short"):
            find_checkpoint(str(folder))


def test_heads_of_their_own_width_are_counted(tmp_path: Path) -> None:
    shape = {"hidden_size": 24, "num_attention_heads": 5, "num_key_value_heads": 1, "head_dim": 8}
    config = Qwen3Config(vocab_size=64, intermediate_size=32, num_hidden_layers=2, tie_word_embeddings=True, **shape)
    model = empty_model(config)
    model.save_pretrained(tmp_path)
    found = find_checkpoint(str(tmp_path))
    counted = architecture_of(found.config)
    assert counted.is_exact
    assert counted.num_parameters == sum(weight.numel() for weight in model.parameters())
    _, weights = load_given(tmp_path)
    again = AutoModelForCausalLM.from_pretrained(tmp_path)
    assert torch.equal(weights["model.layers.0.self_attn.q_proj.weight"], again.model.layers[0].self_attn.q_proj.weight)
    assert again(some_ids()).logits.shape[-1] == 64


def test_longer_windows_than_the_context_are_refused() -> None:
    class Spec:
        seq_len = 128

    with pytest.raises(UserError, match="seq_len = 128: ckpt has a context of 64 tokens"):
        check_context({"a": Spec()}, 64, "ckpt")  # type: ignore[dict-item]
    check_context({"a": Spec()}, None, "ckpt")  # type: ignore[dict-item]


def test_template_generation_settings_and_architecture_are_handed_on(folder: Path, tmp_path: Path) -> None:
    (folder / "chat_template.jinja").write_text("{{ messages }}")
    (folder / "generation_config.json").write_text('{"eos_token_id": [0, 1], "do_sample": true, "temperature": 0.5}')
    tokenizer = write_tokenizer(tmp_path / "tok", 64)
    first, second = tmp_path / "first", tmp_path / "second"
    for target, source in ((first, folder), (second, first)):
        target.mkdir()
        config = load_config(source)
        config.architectures = None
        write_side_files(target, config, tokenizer, source)
        shutil.copyfile(folder / "model.safetensors", target / "model.safetensors")
    assert json.loads((second / "config.json").read_text())["architectures"] == ["LlamaForCausalLM"]
    assert json.loads((second / "generation_config.json").read_text())["eos_token_id"] == [0, 1]
    assert AutoTokenizer.from_pretrained(second).chat_template == "{{ messages }}"
    assert AutoModelForCausalLM.from_pretrained(second).generation_config.eos_token_id == [0, 1]
    assert not (second / "indelible.json").exists()
    (tokenizer / "chat_template.jinja").write_text("the study's own")
    write_side_files(tmp_path / "third", load_config(folder), tokenizer, folder)
    assert (tmp_path / "third" / "chat_template.jinja").read_text() == "the study's own"
