"""What `plan` finds without any text: the tokenizer that lies here, steps of curves, precision of the runs."""

import json
from pathlib import Path

import pytest
from tiny_engine import TINY, layered
from tiny_models import tiny_model

from indelible.data.tokenizer import train_bpe
from indelible.errors import UserError
from indelible.study.corpus_spec import BpeTokenizer
from indelible.study.load import resolve_study
from indelible.workflow.estimate import estimate
from indelible.workflow.planning import Planned, plan_study


@pytest.fixture(autouse=True)
def _own_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("INDELIBLE_CACHE", str(tmp_path / "cache"))


def planned(over: dict) -> Planned:
    return plan_study(resolve_study(layered(TINY, over)))


@pytest.fixture
def tokenizer(tmp_path: Path) -> Path:
    train_bpe(BpeTokenizer(vocab_size=512), ["the cat sat on the mat"] * 50, tmp_path / "tok")
    return tmp_path / "tok"


def with_tokenizer(folder: Path | str, **over: object) -> Planned:
    return planned({"tokenizer": {"kind": "hf", "path": str(folder)}, **over})


def test_a_tokenizer_that_can_be_used_is_planned_with(tokenizer: Path) -> None:
    assert with_tokenizer(tokenizer).graph.runs


@pytest.mark.parametrize("place", ["./nowhere", "/nowhere/at/all", "a/b/c"])
def test_a_tokenizer_folder_that_is_not_there(place: str) -> None:
    with pytest.raises(UserError, match=rf"tokenizer.path = '{place}': no such folder; give a folder with tokenizer"):
        with_tokenizer(place)


def test_a_file_is_no_tokenizer_folder(tokenizer: Path) -> None:
    with pytest.raises(UserError, match=r"tokenizer.path = '.*tokenizer.json': no such folder"):
        with_tokenizer(tokenizer / "tokenizer.json")


def test_a_tokenizer_of_the_hub_is_not_fetched_to_plan() -> None:
    assert with_tokenizer("owner/name").graph.runs


def test_a_tokenizer_that_is_cut_off(tokenizer: Path) -> None:
    path = tokenizer / "tokenizer.json"
    path.write_bytes(path.read_bytes()[:500])
    with pytest.raises(UserError, match=r"tokenizer '.*tok' could not be loaded"):
        with_tokenizer(tokenizer)


def test_a_tokenizer_without_end_of_text(tokenizer: Path) -> None:
    (tokenizer / "tokenizer_config.json").write_text('{"tokenizer_class": "PreTrainedTokenizerFast"}')
    with pytest.raises(UserError, match=r"tokenizer '.*tok' has no end-of-text token"):
        with_tokenizer(tokenizer)


def test_messages_for_a_tokenizer_without_chat_template(tokenizer: Path, tmp_path: Path) -> None:
    chat = [{"role": "user", "content": "the cat"}, {"role": "assistant", "content": "sat"}]
    (tmp_path / "chat.jsonl").write_text((json.dumps({"messages": chat}) + "\n") * 9)
    corpus = {"kind": "local", "path": str(tmp_path / "chat.jsonl"), "messages_column": "messages"}
    over = {"corpora": {"chat": corpus}, "pipeline": {"ft": "chat"}}
    with pytest.raises(UserError, match="tokenizer tok has no chat template, so messages cannot be written"):
        with_tokenizer(tokenizer, **over)
    with pytest.raises(UserError, match="tokenizer tok has no chat template"):
        with_tokenizer(tokenizer, corpora={"chat": corpus}, evaluation={"corpora": ["chat"]})
    (tokenizer / "chat_template.jinja").write_text("{% for m in messages %}{{ m.content }}{% endfor %}")
    assert with_tokenizer(tokenizer, **over).graph.runs
    (tokenizer / "chat_template.jinja").write_text("{% for m in messages %}")
    with pytest.raises(UserError, match="its chat template cannot be read"):
        with_tokenizer(tokenizer, **over)
    (tokenizer / "chat_template.jinja").write_bytes(b"{# caf\xe9 #}{% for m in messages %}{{ m.content }}{% endfor %}")
    with pytest.raises(UserError, match=r"tokenizer '.*tok' could not be loaded"):
        with_tokenizer(tokenizer, **over)


def test_a_given_checkpoint_with_other_tokens(tokenizer: Path, tmp_path: Path) -> None:
    given = tmp_path / "given"
    tiny_model("llama", vocab_size=512, num_hidden_layers=1).save_pretrained(given)
    train_bpe(BpeTokenizer(vocab_size=512), ["a dog lay under the table"] * 50, tmp_path / "other")
    (given / "tokenizer.json").write_bytes((tmp_path / "other/tokenizer.json").read_bytes())
    init = {"init": {"from": str(given), "at": "finetune"}}
    with pytest.raises(UserError, match=r"given: its tokenizer is not the study's: .* tokens have another id"):
        with_tokenizer(tokenizer, **init)


def test_a_step_of_a_curve_that_no_run_has() -> None:
    with pytest.raises(UserError, match=r"stages.finetune.watch.steps = 4: the stage has 3 steps at most"):
        planned({"stages": {"finetune": {"watch": {"steps": [1, 4]}}}})
    assert planned({"stages": {"finetune": {"watch": {"steps": [0, 3]}}}}).graph.runs
    arms = {"stages": {"finetune": {"watch": {"steps": [4]}}}, "finetune": {"tokens": [330, 600]}}
    assert planned(arms).graph.runs, "one of the arms is that long"


def test_the_precision_of_the_runs_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("indelible.workflow.planning.resolved_precision", lambda _: "bf16")
    assert estimate(planned({"precision": "fp32"})).precision == "fp32", "what the study says, not what auto would be"
    assert estimate(planned({"precision": "auto"})).precision == "bf16"
    assert estimate(planned({"precision": ["auto", "fp32"]})).precision == "bf16 and fp32"
