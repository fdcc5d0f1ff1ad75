"""A given checkpoint is found, identified by what is in it, and refused when its tokens are not the study's."""

import json
import shutil

import pytest
from tiny_models import tiny_model
from token_folder import write_tokenizer

from indelible.errors import UserError
from indelible.models.given import check_tokenizer, find_checkpoint


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    folder = tmp_path_factory.mktemp("given") / "model"
    tiny_model("llama").save_pretrained(folder)
    write_tokenizer(folder, 64)
    return folder


def test_identity_is_the_content_and_not_the_place(checkpoint, tmp_path):
    found = find_checkpoint(str(checkpoint))
    assert (found.folder, found.config["model_type"]) == (checkpoint, "llama")
    moved = shutil.copytree(checkpoint, tmp_path / "moved")
    assert find_checkpoint(str(moved)).sha256 == found.sha256
    content = bytearray((moved / "model.safetensors").read_bytes())
    content[-1] ^= 1
    (moved / "model.safetensors").write_bytes(content)
    assert find_checkpoint(str(moved)).sha256 != found.sha256
    config = json.loads((checkpoint / "config.json").read_text())
    shutil.copyfile(checkpoint / "model.safetensors", moved / "model.safetensors")
    (moved / "config.json").write_text(json.dumps({**config, "rms_norm_eps": 0.1}))
    assert find_checkpoint(str(moved)).sha256 != found.sha256, "another config is another model"


@pytest.mark.parametrize("name", ["", "  "])
def test_an_empty_name_is_not_the_folder_here(name):
    with pytest.raises(UserError, match=r"models inspect = '\s*': an empty name; give a folder"):
        find_checkpoint(name, where="models inspect")


@pytest.mark.parametrize("name", ["./nowhere", "/no/such/folder", "just-a-word", "a/b/c"])
def test_a_missing_folder_is_named(name):
    with pytest.raises(UserError, match=r"no such folder; give a folder, a hub id .*catalogue \(smollm2"):
        find_checkpoint(name)


def test_a_hub_that_cannot_be_reached_is_one_message(monkeypatch):
    from huggingface_hub.errors import LocalEntryNotFoundError

    def unreachable(*args, **kwargs):
        raise LocalEntryNotFoundError("no network")

    monkeypatch.setattr("huggingface_hub.snapshot_download", unreachable)
    with pytest.raises(UserError, match=r"neither a folder here nor to be had from the hub \(no network\)"):
        find_checkpoint("owner/name")


def test_a_hub_repository_is_fetched_at_its_revision(checkpoint, monkeypatch):
    asked = {}

    def download(name, **settings):
        asked.update(settings, name=name)
        return str(checkpoint)

    monkeypatch.setattr("huggingface_hub.snapshot_download", download)
    found = find_checkpoint("owner/name", "abc123")
    assert (asked["name"], asked["revision"]) == ("owner/name", "abc123")
    assert not any(
        pattern.endswith((".bin", ".pt", "*")) and "safetensors" not in pattern and "token" not in pattern
        for pattern in asked["allow_patterns"]
    ), "no pickled weights"
    assert found.sha256 == find_checkpoint(str(checkpoint)).sha256


@pytest.mark.parametrize("missing", ["config.json", "model.safetensors"])
def test_a_folder_without_config_or_weights_is_refused(checkpoint, tmp_path, missing):
    folder = shutil.copytree(checkpoint, tmp_path / "broken")
    (folder / missing).unlink()
    with pytest.raises(UserError, match=rf"has no {missing.split('.')[0]}.*pickled weights are not read"):
        find_checkpoint(str(folder))


def test_the_same_tokens_pass(checkpoint, tmp_path):
    check_tokenizer(checkpoint, write_tokenizer(tmp_path / "same", 64), 64)
    check_tokenizer(checkpoint, write_tokenizer(tmp_path / "same", 64), 80)  # embeddings may be padded


def test_fewer_embeddings_than_ids_are_refused(checkpoint, tmp_path):
    with pytest.raises(UserError, match=r"the model knows 64 token ids and the study's tokenizer uses 65.*kind: hf"):
        check_tokenizer(checkpoint, write_tokenizer(tmp_path / "larger", 65), 64)


def test_other_tokens_are_refused(checkpoint, tmp_path):
    with pytest.raises(UserError, match=r"not the study's: 64 of the study's 64 tokens have another id"):
        check_tokenizer(checkpoint, write_tokenizer(tmp_path / "other", 64, prefix="x"), 64)


def test_without_a_tokenizer_of_its_own_only_the_size_counts(tmp_path):
    tiny_model("llama").save_pretrained(tmp_path / "bare")
    check_tokenizer(tmp_path / "bare", write_tokenizer(tmp_path / "any", 64), 64)
