"""Folders that are no whole checkpoint, or no causal model, are refused when a study is planned, with one message."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_engine import TINY, layered
from tiny_models import tiny_model
from token_folder import write_tokenizer
from transformers import BertConfig, BertForMaskedLM, T5Config, T5ForConditionalGeneration

from indelible.errors import UserError
from indelible.study.architecture import architecture_of
from indelible.study.load import resolve_study
from indelible.workflow.planning import plan_study


def plan_from(folder: Path) -> None:
    """Plans a study that starts from a folder."""
    plan_study(resolve_study(layered(TINY, {"init": {"from": str(folder)}})))


def refused(folder: Path, message: str) -> None:
    with pytest.raises(UserError, match=message):
        plan_from(folder)


@pytest.fixture
def shards(tmp_path) -> Path:
    """A tiny Llama in many shards."""
    tiny_model("llama").save_pretrained(tmp_path / "shards", max_shard_size="10KB")
    return write_tokenizer(tmp_path / "shards", 64)


def test_whole_shards_are_planned_with(shards):
    plan_from(shards)


def test_a_missing_shard_is_named(shards):
    sorted(shards.glob("model-*"))[1].unlink()
    refused(shards, r"1 of 12 shard\(s\) of the weights are missing, e.g. model-00002-of-00012.safetensors; fetch")


def test_shards_without_their_index_are_refused(shards):
    (shards / "model.safetensors.index.json").unlink()
    refused(shards, r"12 shard\(s\) of weights and no model.safetensors.index.json")


def test_an_index_that_names_nothing_is_refused(shards):
    (shards / "model.safetensors.index.json").write_text("{}")
    refused(shards, r"index.json: has no weight_map")


def test_adapters_without_their_model_are_refused(tmp_path):
    from peft import LoraConfig, get_peft_model

    adapted = get_peft_model(tiny_model("llama"), LoraConfig(target_modules=["q_proj"]))
    adapted.save_pretrained(tmp_path / "adapters")
    refused(tmp_path / "adapters", r"adapters \(peft\) without the model .*merge them into it first")


def test_an_encoder_is_refused(tmp_path):
    config = BertConfig(vocab_size=64, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16)
    BertForMaskedLM(config).save_pretrained(tmp_path / "bert")
    refused(tmp_path / "bert", r"a 'bert' model is an encoder .* does not predict the next token")


def test_an_encoder_with_a_decoder_is_refused(tmp_path):
    config = T5Config(vocab_size=64, d_model=16, d_kv=8, d_ff=16, num_layers=1, num_heads=2)
    T5ForConditionalGeneration(config).save_pretrained(tmp_path / "t5")
    refused(tmp_path / "t5", r"'t5' is no causal language model of transformers")


@pytest.fixture
def folder(tmp_path) -> Path:
    """A tiny Llama with a context of 64 tokens."""
    tiny_model("llama").save_pretrained(tmp_path / "llama")
    return write_tokenizer(tmp_path / "llama", 64)


def test_weights_that_fp32_cannot_keep_are_refused(folder):
    weights = {name: weight.double() for name, weight in load_file(folder / "model.safetensors").items()}
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    refused(folder, r"is stored as F64, not as floating point that fp32 keeps")
    assert torch.float64 == next(iter(weights.values())).dtype


def change_config(folder: Path, **changes: object) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def test_heads_of_another_size_than_the_weights_are_refused(folder):
    change_config(folder, head_dim=6)
    refused(folder, r"8 weight\(s\) of LlamaForCausalLM are missing or have another shape there, e.g. ")


def test_a_context_shorter_than_the_windows_is_refused(folder):
    change_config(folder, max_position_embeddings=16)
    refused(folder, r"seq_len = 32: .*llama has a context of 16 tokens; lower seq_len to that")


def test_code_of_a_checkpoint_is_not_run(folder, tmp_path):
    (folder / "mine.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    change_config(folder, model_type="mine", auto_map={"AutoConfig": "mine.Config", "AutoModelForCausalLM": "mine.M"})
    refused(folder, r"'mine' needs code of its own \(auto_map\), and code out of a checkpoint is never run")
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("value", ["many", True, -3, 0.5])
def test_a_size_that_is_none_is_refused(value):
    config = tiny_model("llama").config.to_dict()
    with pytest.raises(UserError, match=r"config.json has num_attention_heads = .*; expected a number above 0"):
        architecture_of({**config, "num_attention_heads": value})


def test_more_heads_than_width_are_refused():
    config = {"model_type": "gpt2", "vocab_size": 64, "n_embd": 4, "n_layer": 1, "n_head": 8}
    with pytest.raises(UserError, match=r"8 heads and hidden_size 4; a head would have no width"):
        architecture_of(config)


def test_a_given_folder_that_was_moved_is_named(folder, tmp_path):
    shutil.move(folder, tmp_path / "moved")
    refused(folder, r"no such folder; give a folder, a hub id \(owner/name\), or a name of the catalogue")
