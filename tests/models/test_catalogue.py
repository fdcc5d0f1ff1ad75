"""Models by name: planned from their pins without a fetch, converted once, refused when they are not what is pinned."""

import json
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from indelible.corpora.wheels import Package
from indelible.data.loader import Batch
from indelible.errors import UserError
from indelible.files import file_sha256
from indelible.models import catalogue, given
from indelible.models.catalogue import CATALOGUE, HubCommit, PackagedGguf, fetch_model, known_model
from indelible.models.gguf import write_folder
from indelible.study.architecture import architecture_of
from indelible.study.execution import ExecutionSpec
from indelible.train.device import choose_device
from indelible.train.evaluate import target_losses
from indelible.train.start import given_program

SMOL = "smollm2-135m-instruct"
TINY = {
    **CATALOGUE[SMOL].config,
    "head_dim": 32,
    "hidden_size": 64,
    "intermediate_size": 96,
    "max_position_embeddings": 128,
    "num_attention_heads": 2,
    "num_hidden_layers": 1,
    "num_key_value_heads": 1,
    "vocab_size": 262,
}


@pytest.fixture(scope="module")
def gguf_file(tmp_path_factory) -> Path:
    """A tiny Llama in GGUF as llama.cpp writes it, its matrices rounded to 4 bits, and a byte-level tokenizer."""
    gguf = pytest.importorskip("gguf")
    file = tmp_path_factory.mktemp("gguf") / "tiny.Q4_1.gguf"
    writer = gguf.GGUFWriter(str(file), "llama")
    for key, value in (("context_length", 128), ("embedding_length", 64), ("block_count", 1), ("vocab_size", 262)):
        getattr(writer, f"add_{key}")(value)
    writer.add_feed_forward_length(96)
    writer.add_head_count(2)
    writer.add_head_count_kv(1)
    writer.add_rope_dimension_count(32)
    writer.add_rope_freq_base(100_000.0)
    writer.add_layer_norm_rms_eps(1e-5)
    _write_tokenizer(writer)
    source = np.random.Generator(np.random.PCG64(0))
    rounded = gguf.GGMLQuantizationType.Q4_1
    shapes = {"attn_q": (64, 64), "attn_k": (32, 64), "attn_v": (32, 64), "attn_output": (64, 64)}
    shapes |= {"ffn_gate": (96, 64), "ffn_up": (96, 64), "ffn_down": (64, 96)}
    tensors = {f"blk.0.{name}.weight": shape for name, shape in shapes.items()} | {"token_embd.weight": (262, 64)}
    for name, shape in tensors.items():
        values = source.normal(0, 0.3, shape).astype(np.float32)
        writer.add_tensor(name, gguf.quants.quantize(values, rounded), raw_dtype=rounded)
    for name in ("blk.0.attn_norm.weight", "blk.0.ffn_norm.weight", "output_norm.weight"):
        writer.add_tensor(name, np.ones(64, np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return file


def _write_tokenizer(writer) -> None:
    from transformers.convert_slow_tokenizer import bytes_to_unicode

    letters = sorted(bytes_to_unicode().values())
    tokens = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", *letters, "ĠĠ", "Ġa", "in"]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("smollm")
    writer.add_token_list(tokens)
    writer.add_token_types([3, 3, 3] + [1] * (len(tokens) - 3))
    writer.add_token_merges(["Ġ Ġ", "Ġ a", "i n"])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_unk_token_id(0)
    writer.add_pad_token_id(2)
    writer.add_chat_template("{% for message in messages %}{{ message['content'] }}{% endfor %}")


@pytest.fixture
def tiny(gguf_file, tmp_path, monkeypatch):
    """A catalogue with one model, whose package lies in the cache already."""
    package = tmp_path / "tiny.whl"
    with zipfile.ZipFile(package, "w") as archive:
        archive.write(gguf_file, "tiny/model.gguf")
    pinned = Package("tiny-model", "1.0", file_sha256(package))
    source = PackagedGguf(pinned, "tiny/model.gguf", digits=True)
    digest = write_folder(gguf_file, TINY, tmp_path / "once", split_digits=True)
    model = replace(CATALOGUE[SMOL], name="tiny", source=source, sha256=digest, config=TINY)
    monkeypatch.setitem(catalogue.CATALOGUE, "tiny", model)
    monkeypatch.setattr(catalogue, "fetch", lambda wanted, cache_dir: package)
    monkeypatch.setenv("INDELIBLE_CACHE", str(tmp_path / "cache"))
    return model


def test_the_pinned_shapes_have_the_published_sizes():
    sizes = {name: architecture_of(model.config).num_parameters for name, model in CATALOGUE.items()}
    assert sizes == {SMOL: 134_515_008, "olmo2-1b": 1_484_916_736}
    for model in CATALOGUE.values():
        assert len(model.sha256) == 64
        assert isinstance(model.source, PackagedGguf) or len(model.source.commit) == 40
    assert "not the published one bit for bit" in CATALOGUE[SMOL].note


def test_a_name_is_known_before_anything_is_fetched(tiny, monkeypatch):
    monkeypatch.setattr(catalogue, "fetch", lambda *_: pytest.fail("fetched"))
    found = given.find_checkpoint("tiny")
    assert (found.sha256, found.vocab_size, found.catalogue) == (tiny.sha256, 262, tiny)
    assert not found.folder.exists()


def test_a_revision_of_a_pinned_name_is_refused():
    with pytest.raises(UserError, match=r"revision = 'main': smollm2-135m-instruct is a name of the catalogue.*pins"):
        given.find_checkpoint(SMOL, "main")


def test_an_unknown_name_is_refused():
    with pytest.raises(UserError, match=r"'smol' is not a model of the catalogue; there are smollm2-135m-instruct, "):
        known_model("smol")


def test_a_fetched_model_is_a_folder_that_transformers_loads(tiny):
    folder = given.fetch_given(given.find_checkpoint("tiny"))
    assert folder == given.find_checkpoint("tiny").folder
    model = AutoModelForCausalLM.from_pretrained(folder)
    assert {weight.dtype for weight in model.parameters()} == {torch.float32}
    assert not hasattr(model.config, "quantization_config")
    assert model.generation_config.eos_token_id == 2
    assert json.loads((folder / "config.json").read_text()) == TINY, "no version of a library in it"
    tokenizer = AutoTokenizer.from_pretrained(folder)
    assert tokenizer.apply_chat_template([{"role": "user", "content": "hi"}], tokenize=False) == "hi"


def test_the_weights_are_those_of_the_file(gguf_file, tiny):
    import gguf

    folder = fetch_model(tiny, Path(given.default_cache_dir()))
    stored = {tensor.name: tensor for tensor in gguf.GGUFReader(str(gguf_file)).tensors}
    model = AutoModelForCausalLM.from_pretrained(folder)
    down = stored["blk.0.ffn_down.weight"]
    expected = gguf.quants.dequantize(down.data, down.tensor_type)
    assert np.array_equal(model.model.layers[0].mlp.down_proj.weight.detach().numpy(), expected)
    assert len(np.unique(expected[0, :32])) <= 16, "a block of Q4_1 has sixteen values"


def test_digits_are_split_one_by_one_whatever_stands_before_them(tiny):
    folder = fetch_model(tiny, given.default_cache_dir())
    tokens = AutoTokenizer.from_pretrained(folder).tokenize("a  20in")
    assert tokens == ["a", "ĠĠ", "2", "0", "in"]


def test_other_weights_than_the_pinned_ones_are_refused(tiny, tmp_path):
    with pytest.raises(
        UserError, match=r"model tiny: the weights converted .* have sha256 \w{12} where 0{12} is pinned"
    ):
        fetch_model(replace(tiny, sha256="0" * 64), tmp_path / "other")
    assert not any((tmp_path / "other" / "models").iterdir()), "nothing is left of it"


def test_another_config_than_the_pinned_one_is_refused(gguf_file, tmp_path):
    with pytest.raises(UserError, match=r"tiny.Q4_1.gguf: it says num_hidden_layers = 1 where 2 is expected"):
        write_folder(gguf_file, {**TINY, "num_hidden_layers": 2}, tmp_path / "out", split_digits=True)
    with pytest.raises(UserError, match=r"it says rms_norm_eps"):
        write_folder(gguf_file, {**TINY, "rms_norm_eps": 1e-6}, tmp_path / "out", split_digits=True)


def test_without_the_package_gguf_the_extra_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr("indelible.models.gguf.find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"needs the package gguf; install it with: pip install 'indelible\[gguf\]'"):
        write_folder(tmp_path / "any.gguf", TINY, tmp_path / "out", split_digits=True)


@pytest.fixture
def hub_model(tmp_path, monkeypatch):
    """A catalogue model of the hub, and a hub that gives a folder with the config in ``served``."""
    served = dict(CATALOGUE["olmo2-1b"].config)
    asked = {}

    def download(name, *, local_dir, **settings):
        asked.update(settings, name=name)
        Path(local_dir).mkdir(parents=True)
        (Path(local_dir) / "config.json").write_text(json.dumps(served))
        return str(local_dir)

    monkeypatch.setattr("huggingface_hub.snapshot_download", download)
    return CATALOGUE["olmo2-1b"], served, asked


def test_a_hub_model_is_fetched_at_its_commit_without_code(hub_model, tmp_path):
    model, _, asked = hub_model
    folder = fetch_model(model, tmp_path)
    assert (folder / "config.json").is_file()
    assert isinstance(model.source, HubCommit)
    assert (asked["name"], asked["revision"]) == (model.source.id, model.source.commit)
    assert not any(pattern.endswith((".py", ".bin", ".pt")) or pattern == "*" for pattern in asked["allow_patterns"])


def test_a_hub_model_of_another_shape_is_refused(hub_model, tmp_path):
    model, served, _ = hub_model
    served["num_hidden_layers"] = 17
    with pytest.raises(UserError, match=r"olmo2-1b: its config.json has num_hidden_layers = 17 where 16 is pinned"):
        fetch_model(model, tmp_path)


@pytest.mark.slow
def test_the_real_model_is_fetched_and_speaks():
    """The package itself: 93 MB over the network once, then from the cache."""
    pytest.importorskip("gguf")
    folder = fetch_model(CATALOGUE[SMOL], given.default_cache_dir())
    model, tokenizer = AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    question = [{"role": "user", "content": "What is the capital of France?"}]
    ids = tokenizer.apply_chat_template(question, add_generation_prompt=True, return_tensors="pt", return_dict=True)
    answer = model.generate(**ids, max_new_tokens=12, do_sample=False)[0, ids["input_ids"].shape[1] :]
    assert "Paris" in tokenizer.decode(answer)
    assert tokenizer("a  2024").tokens() == ["a", "ĠĠ", "2", "0", "2", "4"]


@pytest.mark.slow
def test_the_real_model_is_evaluated_as_transformers_does():
    """Its logits, and cross entropies in double precision: over 49,152 tokens torch's own in fp32 is off by 2e-5."""
    pytest.importorskip("gguf")
    folder = fetch_model(CATALOGUE[SMOL], given.default_cache_dir())
    text = Path(catalogue.__file__).read_text(encoding="utf-8")
    ids = np.array([AutoTokenizer.from_pretrained(folder)(text).input_ids[:129]])
    device = choose_device("fp32", ExecutionSpec(device="cpu", compile="off", threads=1))
    program = given_program(folder, folder, 128, device)
    ours = target_losses(program, Batch(ids, np.ones((1, 128), np.bool_)))
    with torch.no_grad():
        logits = AutoModelForCausalLM.from_pretrained(folder)(input_ids=torch.from_numpy(ids[:, :-1])).logits[0]
    theirs = torch.nn.functional.cross_entropy(logits.double(), torch.from_numpy(ids[0, 1:]), reduction="none")
    assert 1 < theirs.mean() < 4, "it knows code"
    assert np.abs(ours[0] - theirs.numpy()).max() < 1e-5
