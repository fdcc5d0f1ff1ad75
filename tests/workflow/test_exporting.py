"""Exported checkpoints load in plain transformers and peft and generate; the card says where they come from."""

import json
from pathlib import Path

import pytest
import torch
from huggingface_hub import ModelCard
from peft import PeftModel
from safetensors.torch import load_file
from tiny_engine import TINY, evaluated, layered, plan_of, run_all
from tiny_models import tiny_model
from token_folder import plan_on_arrays, write_tokenizer
from transformers import AutoModelForCausalLM, AutoTokenizer
from typer.testing import CliRunner

from indelible import records
from indelible.cli.main import build_app
from indelible.errors import UserError
from indelible.workflow.exporting import export_run, push_folder
from indelible.workflow.model_card import read_lineage

KEPT = {"method": "lora", "lora": {"r": 4, "alpha": 8, "merge": False, "targets": ["q_proj", "o_proj", "down_proj"]}}
IDS = torch.tensor([[1, 2, 3, 4, 5, 6]])


def finished(out: Path, over: dict | None = None, until: str = "") -> Path:
    """A study of three stages, run; each run has its spec.json, as the scheduler writes it."""
    plan_on_arrays(out, layered({**TINY, "description": "tiny", "precision": "fp32"}, over or {}), 512)
    run_all(out, until=until)
    for run in plan_of(out).stage_runs:
        head = {"id": run.id, "stage": run.stage, "parent": run.parent, "spec": run.spec}
        folder = records.run_dir(out, run.id)
        if folder.is_dir():
            (folder / "spec.json").write_text(json.dumps(head))
    return out


def run_of(out: Path, stage: str) -> Path:
    return next(records.run_dir(out, run.id) for run in plan_of(out).stage_runs if run.stage == stage)


@pytest.fixture(scope="module")
def full(tmp_path_factory) -> Path:
    return finished(tmp_path_factory.mktemp("full") / "out")


@pytest.fixture(scope="module")
def lora(tmp_path_factory) -> Path:
    """Stage 2 keeps its adapters, stage 3 trains on with them."""
    return finished(tmp_path_factory.mktemp("lora") / "out", {"posttrain": KEPT, "finetune": KEPT})


def logits(model: torch.nn.Module) -> torch.Tensor:
    with torch.no_grad():
        return model.eval()(input_ids=IDS).logits.float()


def test_a_full_run_loads_in_plain_transformers_and_generates(full, tmp_path):
    run = run_of(full, "finetune")
    assert export_run(run, tmp_path / "model") == run
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "model")
    assert torch.equal(logits(model), logits(AutoModelForCausalLM.from_pretrained(run / "checkpoint")))
    assert model.generate(IDS, max_new_tokens=4, do_sample=False).shape == (1, 10)
    assert len(AutoTokenizer.from_pretrained(tmp_path / "model")) == 512


def test_bf16_is_half_the_size_and_rounded(full, tmp_path):
    run = run_of(full, "posttrain")
    export_run(run, tmp_path / "model", dtype="bf16")
    exact, rounded = (load_file(folder / "model.safetensors") for folder in (run / "checkpoint", tmp_path / "model"))
    assert all(torch.equal(rounded[name], weight.to(torch.bfloat16)) for name, weight in exact.items())
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "model")
    assert model.dtype == torch.bfloat16
    assert model.generate(IDS, max_new_tokens=2, do_sample=False).shape == (1, 8)
    assert "Rounded to bf16" in (tmp_path / "model" / "README.md").read_text()


@pytest.mark.parametrize("stage", ["posttrain", "finetune"])
def test_kept_adapters_load_in_peft_on_the_model_under_them(lora, tmp_path, stage):
    export_run(run_of(lora, stage), tmp_path / "adapters", adapters=True)
    config = json.loads((tmp_path / "adapters" / "adapter_config.json").read_text())
    base = Path(config["base_model_name_or_path"])
    assert base == run_of(lora, "pretrain") / "checkpoint"
    model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), tmp_path / "adapters")
    merged = AutoModelForCausalLM.from_pretrained(run_of(lora, stage) / "checkpoint")
    assert torch.allclose(logits(model), logits(merged), atol=1e-5)
    assert not torch.allclose(logits(merged), logits(AutoModelForCausalLM.from_pretrained(base)), atol=1e-3)
    assert model.generate(input_ids=IDS, max_new_tokens=4, do_sample=False).shape == (1, 10)
    card = ModelCard.load(tmp_path / "adapters" / "README.md")
    assert (card.data.library_name, "lora" in card.data.tags) == ("peft", True)
    assert not (tmp_path / "adapters" / "model.safetensors").exists()


def test_a_lora_run_is_also_exported_whole(lora, tmp_path):
    export_run(run_of(lora, "posttrain"), tmp_path / "model")
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "model")
    assert torch.equal(
        logits(model), logits(AutoModelForCausalLM.from_pretrained(run_of(lora, "posttrain") / "checkpoint"))
    )
    assert not (tmp_path / "model" / "adapters.safetensors").exists()


def test_the_card_is_in_the_hubs_form_and_says_lineage_and_losses(full, tmp_path):
    run = run_of(full, "finetune")
    export_run(run, tmp_path / "model")
    card = ModelCard.load(tmp_path / "model" / "README.md")
    assert card.data.library_name == "transformers"
    assert card.data.pipeline_tag == "text-generation"
    losses = evaluated(full, run.name)
    results = {one.dataset_type: one.metric_value for one in card.data.eval_results}
    assert results == {corpus: pytest.approx(one.nats_per_token, abs=1e-6) for corpus, one in losses.items()}
    assert card.data.base_model is None, "it was drawn at random"
    for step in read_lineage(run).steps:
        assert step.run.id in card.text
        assert step.result.weights_sha256[:12] in card.text
    post = losses["post"]
    line = next(one for one in card.text.splitlines() if one.startswith("| finetune | post |"))
    cells = [cell.strip() for cell in line.strip("|").split("|")]
    assert cells[2:] == [f"{post.nats_per_token:.4f}", f"{post.standard_error:.4f}", f"{post.tokens:,}", cells[5]]
    assert int(cells[5]) == post.documents


def test_the_card_names_the_model_that_the_chain_started_from(tmp_path):
    hub = tmp_path / "models--owner--name" / "snapshots" / "abc"
    tiny_model("qwen2").save_pretrained(hub)
    write_tokenizer(hub, 64)
    raw = layered({**TINY, "precision": "fp32"}, {"init": {"from": str(hub), "at": "finetune"}})
    out = plan_on_arrays(tmp_path / "out", raw, 64)
    run_all(out)
    run = run_of(out, "finetune")
    (run / "spec.json").write_text("{}")
    export_run(run, tmp_path / "model")
    card = ModelCard.load(tmp_path / "model" / "README.md")
    assert card.data.base_model == "owner/name"
    start = plan_of(out).chains[0].start
    assert f"| start | {start} |" in card.text


def test_what_cannot_be_exported_is_refused(full, tmp_path):
    run = run_of(full, "posttrain")
    with pytest.raises(UserError, match=r"it keeps no adapters; --adapters is for a stage with lora and merge: false"):
        export_run(run, tmp_path / "a", adapters=True)
    assert not list(tmp_path.iterdir()), "nothing is left of it"
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").write_text("mine")
    with pytest.raises(UserError, match=r"--to .*full: is there already and not empty"):
        export_run(run, tmp_path / "full")
    with pytest.raises(UserError, match=r"no stage run; give the path of a folder with spec.json"):
        export_run(full / "nothing", tmp_path / "b")


def test_a_run_that_is_not_finished_is_refused(tmp_path):
    out = finished(tmp_path / "out", until="pretrain")
    run = run_of(out, "posttrain")
    run.mkdir(parents=True, exist_ok=True)
    (run / "spec.json").write_text("{}")
    with pytest.raises(UserError, match=r"posttrain-.* is not finished; give a stage run that `indelible status"):
        export_run(run, tmp_path / "model")


@pytest.fixture
def hub(monkeypatch):
    """A hub that takes everything; what it was asked."""
    asked: list[tuple] = []

    class Api:
        def create_repo(self, name, **settings):
            asked.append(("create", name, settings))
            return f"hub:{name}"

        def upload_folder(self, **settings):
            files = sorted(path.name for path in Path(settings["folder_path"]).iterdir())
            asked.append(("upload", settings["repo_id"], files))

    monkeypatch.setattr("huggingface_hub.HfApi", Api)
    return asked


def test_nothing_is_uploaded_unless_it_is_asked_for(full, tmp_path, hub):
    arguments = ["export", str(run_of(full, "finetune")), "--to"]
    done = CliRunner().invoke(build_app("export"), [*arguments, str(tmp_path / "a"), "--dtype", "bf16"])
    assert done.exit_code == 0, done.output
    assert hub == []
    done = CliRunner().invoke(build_app("export"), [*arguments, str(tmp_path / "b"), "--push", "me/model"])
    assert done.exit_code == 0, done.output
    assert hub[0] == ("create", "me/model", {"private": True, "exist_ok": True})
    assert hub[1][:2] == ("upload", "me/model")
    assert {"README.md", "config.json", "model.safetensors", "tokenizer.json"} <= set(hub[1][2])
    assert "hub:me/model" in done.output


def test_an_unknown_dtype_is_refused(full, tmp_path):
    arguments = ["export", str(run_of(full, "finetune")), "--to", str(tmp_path / "a"), "--dtype", "int8"]
    done = CliRunner().invoke(build_app("export"), arguments)
    assert isinstance(done.exception, UserError)
    assert "--dtype int8: expected fp32 or bf16" in str(done.exception)


def test_a_hub_that_refuses_is_one_message(tmp_path, monkeypatch):
    class Api:
        def create_repo(self, name, **settings):
            raise OSError("no network")

    monkeypatch.setattr("huggingface_hub.HfApi", Api)
    with pytest.raises(UserError, match=r"--push me/model: the hub did not take it \(no network\); log in with"):
        push_folder(tmp_path, "me/model")
