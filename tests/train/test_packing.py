"""Rows of several documents: each is computed as if it were alone, trained on as such, and resumed bitwise."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from chat_study import SEQ, WORDS, raw_study, write_inputs
from gloo_ranks import run_tasks
from model_zoo import MODELS, zoo_config, zoo_model
from safetensors.torch import load_file
from tiny_engine import evaluated, job_of, losses_of, result_of, run_all, runs_of

from indelible.data.batch import Batch
from indelible.data.loader import read_part
from indelible.data.row_reader import num_rows, row_counts, target_documents
from indelible.data.store import TokenStore
from indelible.errors import UserError
from indelible.objectives import NextToken
from indelible.objectives.kl import Kl
from indelible.study.execution import ExecutionSpec
from indelible.study.load import resolve_study
from indelible.study.row_rules import RowRules
from indelible.train.batch import padded
from indelible.train.device import choose_device
from indelible.train.evaluate import target_losses
from indelible.train.packing_check import check_packing
from indelible.train.program import Program, forget_programs, get_program
from indelible.train.stage import run_stage
from indelible.workflow.planning import plan_study
from indelible.workflow.preparing import write_plan

DOCUMENTS = (9, 14, 5)  # tokens, in a row of 32 with padding
EXACT = 1e-6  # nats and logits, fp32


@pytest.fixture(autouse=True)
def _programs_are_forgotten():
    yield
    forget_programs()


def program_of(name: str, compile_mode: str = "off") -> Program:
    device = choose_device("fp32", ExecutionSpec(device="cpu", compile=compile_mode, threads=1))
    program = get_program(zoo_config(name), 0.0, None, device)
    program.load_base(dict(zoo_model(name).named_parameters()), 0)
    return program


def packed_and_alone(vocabulary: int = 96, seq_len: int = 31) -> tuple[Batch, Batch, np.ndarray]:
    """Documents in one row, the same one a row, and where their targets stand in the first."""
    source = np.random.default_rng(0)
    documents = [source.integers(0, vocabulary, size) for size in DOCUMENTS]
    tokens, places = np.zeros((1, seq_len + 1), np.int64), np.zeros((1, seq_len + 1), np.int64)
    alone = np.zeros((len(documents), seq_len + 1), np.int64)
    valid = np.zeros((len(documents), seq_len), np.bool_)
    at, where = 0, []
    for line, document in enumerate(documents):
        here = slice(at, at + len(document))
        tokens[0, here], places[0, here] = document, np.arange(len(document))
        alone[line, : len(document)], valid[line, : len(document) - 1] = document, True
        where += range(at, at + len(document) - 1)
        at += len(document)
    places[0, at:] = np.arange(seq_len + 1 - at)
    all_valid = np.zeros((1, seq_len), np.bool_)
    all_valid[0, where] = True
    return Batch(tokens, all_valid, places[:, :-1]), Batch(alone, valid), np.array(where)


@pytest.mark.parametrize("name", MODELS)
def test_a_packed_document_has_the_losses_that_it_has_alone(name):
    program = program_of(name)
    check_packing(program, "x")
    packed, alone, where = packed_and_alone()
    together = target_losses(program, packed)[0, where]
    apart = target_losses(program, alone)[alone.valid]
    assert np.abs(together - apart).max() < EXACT * 10, "losses of 5 nats and more, in fp32"
    blind = target_losses(program, Batch(packed.tokens, packed.valid))[0, where]
    assert np.abs(blind - apart).max() > 1e-3, "without positions the documents do see each other"


def test_logits_are_those_of_the_document_alone():
    program = program_of("llama")
    packed, alone, where = packed_and_alone()
    with torch.no_grad():
        outputs = program.forward(torch.from_numpy(packed.tokens[:, :-1]), torch.from_numpy(packed.positions))
        together = (outputs.hidden @ program.head_weight.t())[0, where]
        outputs = program.forward(torch.from_numpy(alone.tokens[:, :-1]))
        apart = (outputs.hidden @ program.head_weight.t())[torch.from_numpy(alone.valid)]
    assert (together - apart).abs().max() < EXACT * apart.abs().max()


def test_a_window_beside_packed_rows_is_the_same_window():
    """Rows of a stream in a stage that packs others: they have positions too."""
    program = program_of("llama")
    packed = packed_and_alone()[0]
    tokens = packed.tokens
    alone = target_losses(program, Batch(tokens, packed.valid))
    beside = target_losses(program, Batch(tokens, packed.valid, np.arange(tokens.shape[1] - 1)[None]))
    assert np.abs(alone - beside).max() < EXACT * 10


@pytest.mark.parametrize("name", ["llama", "gemma2"])
def test_gradients_are_those_of_documents_one_a_row(name):
    program = program_of(name)
    found = []
    for batch in packed_and_alone()[:2]:
        program.model.zero_grad()
        micro = padded(batch, slice(None), len(batch.tokens), torch.device("cpu"))
        program.step_loss(NextToken(), None, *micro)[0].backward()
        found.append({key: weight.grad.clone() for key, weight in program.trainable().items()})
    for key, gradient in found[0].items():
        assert torch.allclose(gradient, found[1][key], atol=1e-5, rtol=1e-5), key


def test_columns_of_padding_change_no_loss_and_no_gradient():
    program, alone = program_of("llama"), packed_and_alone(seq_len=60)[1]
    trimmed = alone.without_padding()
    assert trimmed.valid.shape[1] == 16, "the longest has 13 targets"
    assert trimmed.valid.sum() == alone.valid.sum()
    found = []
    for batch in (alone, trimmed):
        program.model.zero_grad()
        micro = padded(batch, slice(None), len(batch.tokens), torch.device("cpu"))
        loss = program.step_loss(NextToken(), None, *micro)[0]
        loss.backward()
        found.append((loss.item(), [weight.grad.clone() for weight in program.trainable().values()]))
    assert found[0][0] == pytest.approx(found[1][0], rel=1e-6)
    assert all(torch.allclose(a, b, atol=1e-5) for a, b in zip(found[0][1], found[1][1], strict=True))
    nothing = Batch(alone.tokens, np.zeros_like(alone.valid)).without_padding()
    assert nothing.valid.shape[1] == 8


def test_a_guard_sees_documents_as_the_objective_does():
    program = program_of("llama")
    guard = Kl(weight=1.0).start(program)
    with torch.no_grad():
        for weight in program.trainable().values():
            weight.add_(torch.randn(weight.shape, generator=torch.Generator().manual_seed(0)) * 0.02)
    sums = []
    for batch in packed_and_alone()[:2]:
        micro = padded(batch, slice(None), len(batch.tokens), torch.device("cpu"))
        with torch.no_grad():
            sums.append(program.step_loss(NextToken(), guard, *micro)[1].item())
    assert sums[0] == pytest.approx(sums[1], rel=1e-5)
    assert sums[0] > 0.01


@pytest.mark.slow
def test_a_compiled_program_resets_attention_too():
    packed, alone, where = packed_and_alone()
    program = program_of("llama", "on")
    together = target_losses(program, packed)[0, where]
    apart = target_losses(program, alone)[alone.valid]
    assert np.abs(together - apart).max() < EXACT * 20


def test_a_model_that_sees_beyond_the_border_is_refused():
    program = program_of("llama")
    plain = program.model.forward
    program.model.forward = lambda position_ids=None, **inputs: plain(**inputs)
    with pytest.raises(UserError, match="of type 'llama' sees the documents in front of its own"):
        check_packing(program, "x")
    program.model.forward = lambda input_ids, use_cache: plain(input_ids=input_ids, use_cache=use_cache)
    with pytest.raises(UserError, match="x: a model of type 'llama' takes no positions"):
        check_packing(program, "x")
    del program.model.forward
    check_packing(program, "x")


RULES = {
    "stream": {"loss_on": "assistant"},
    "documents": {"loss_on": "assistant", "packing": "documents", "too_long": "cut"},
    "best_fit": {"loss_on": "completion", "packing": "best_fit", "too_long": "drop"},
}


def planned(tmp_path: Path, name: str, rules: dict, **more) -> Path:
    """A planned study with conversations in all of its stages: as exposure, of their own, and as replay."""
    raw = raw_study(tmp_path, rules, **more)
    raw["exposure"] = {"fraction": 0.5}
    raw["finetune"]["mix"] = [{"corpus": "chat", "fraction": 0.25}]
    raw["posttrain"]["dropout"] = 0.1
    out = tmp_path / name
    write_plan(plan_study(resolve_study(raw)), out)
    return out


@pytest.fixture
def inputs(tmp_path, monkeypatch):
    monkeypatch.setenv("INDELIBLE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("indelible.train.loop.REPORT_SECONDS", 0.0)
    write_inputs(tmp_path, longest=16)
    return tmp_path


@pytest.mark.parametrize("packing", RULES)
def test_stopped_and_continued_equals_uninterrupted(inputs, packing):
    whole, broken = planned(inputs, "whole", RULES[packing]), planned(inputs, "broken", RULES[packing])
    results = run_all(whole)
    for entry in runs_of(broken):
        job, stops = job_of(broken, entry), {2, 3}

        def stop(now, stops=stops):
            if now.phase == "training" and now.step in stops:
                stops.discard(now.step)
                raise InterruptedError

        for _ in range(2):
            with pytest.raises(InterruptedError):
                run_stage(job, progress=stop, guard=lambda: None)
        run_stage(job, progress=stop, guard=lambda: None)
        one, other = (result_of(out, entry.id) for out in (whole, broken))
        assert one.weights_sha256 == other.weights_sha256
        assert one.sources == other.sources
        mine, theirs = ({c: e.nats_per_token for c, e in evaluated(out, entry.id).items()} for out in (whole, broken))
        assert mine == theirs
        assert other.resumed
    assert results["pretrain"].sources["chat"].rows == 6
    assert results["finetune"].sources["chat"].rows == 4


@pytest.mark.parametrize("packing", ["documents", "best_fit"])
def test_a_stage_counts_what_it_trains_on_and_held_out_losses_follow_the_rules(inputs, packing):
    out = planned(inputs, "out", RULES[packing])
    results = run_all(out, until="posttrain")
    result = results["posttrain"]
    rules = RowRules(**RULES[packing])
    (folder,) = (out / "tokens").glob("chat-*")
    store = TokenStore.open(folder)
    assert result.train_tokens == result.sources["chat"].trained_tokens > 0
    assert result.tokens_seen == {"chat": result.sources["chat"].rows * SEQ}
    assert result.sources["chat"].tokens < result.sources["chat"].rows * (SEQ + 1)
    plan = json.loads((out / "plan.json").read_text())
    kind = next(one for one in plan["heldout"] if one["store"].startswith("chat"))
    assert (kind["packing"], kind["too_long"], kind["loss_on"]) == (packing, rules.too_long, rules.loss_on)
    (run,) = runs_of(out, "posttrain")
    found = evaluated(out, run.id)["chat"]
    available = num_rows(store, "heldout", SEQ, rules)
    stop = min(4, available // 2)
    shown = np.arange(stop, stop + min(8, available - stop))
    batch = read_part(store, "heldout", shown, SEQ, rules)
    assert found.tokens == batch.valid.sum() == row_counts(store, "heldout", SEQ, rules).trained[shown].sum()
    documents = target_documents(store, "heldout", shown, SEQ, rules)
    assert found.documents == len(np.unique(documents[batch.valid]))
    assert found.standard_error is not None
    losses = []
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(out / "runs" / run.id / "checkpoint", dtype=torch.float32).eval()
    for number in np.unique(documents[documents >= 0]):  # each document alone, by transformers
        ids, mask = store.document("heldout", int(number))
        ids, mask = ids[: SEQ + 1].astype(np.int64), mask[: SEQ + 1]
        bit = 1 if rules.loss_on == "assistant" else 2
        with torch.no_grad():
            logits = model(input_ids=torch.from_numpy(ids[None, :-1])).logits[0]
        one = torch.nn.functional.cross_entropy(logits, torch.from_numpy(ids[1:]), reduction="none")
        losses += one[torch.from_numpy((mask[1:] & bit) != 0)].tolist()
    assert len(losses) == found.tokens
    assert found.nats_per_token == pytest.approx(float(np.mean(losses)), abs=1e-5)


def test_documents_of_prompt_and_completion_in_a_mix_with_a_stream(tmp_path, monkeypatch):
    """The shipped kind of instruction data: a prompt, a completion and an end of text."""
    monkeypatch.setenv("INDELIBLE_CACHE", str(tmp_path / "cache"))
    write_inputs(tmp_path)
    source = np.random.default_rng(3)
    pairs = [{"prompt": " ".join(source.choice(WORDS, 6)), "completion": " ".join(source.choice(WORDS, 3))}
             for _ in range(120)]  # fmt: skip
    (tmp_path / "chat.jsonl").write_text("".join(json.dumps(pair) + "\n" for pair in pairs))
    rules = {"loss_on": "completion", "packing": "documents", "messages_column": None,
             "prompt_column": "prompt", "completion_column": "completion"}  # fmt: skip
    out = planned(tmp_path, "out", rules)
    results = run_all(out, until="posttrain")
    sources = results["posttrain"].sources["chat"]
    assert 0 < sources.trained_tokens < sources.tokens / 2
    (folder,) = (out / "tokens").glob("chat-*")
    store = TokenStore.open(folder)
    ids, mask = store.document("train", 0)
    batch = read_part(store, "train", np.array([0]), SEQ, RowRules(loss_on="completion", packing="documents"))
    assert batch.valid[0, : len(ids) - 1].tolist() == mask[1:].tolist()
    assert mask[-1], "the end of text is the completion's"
    assert not batch.valid[0, len(ids) - 1 :].any()


def test_weights_differ_by_packing_and_by_mask(inputs):
    found = set()
    for number, rules in enumerate([*RULES.values(), {}]):
        out = planned(inputs, f"out{number}", rules)
        run_all(out, until="posttrain")
        (run,) = runs_of(out, "posttrain")
        found.add(result_of(out, run.id).weights_sha256)
        weights = load_file(out / "runs" / run.id / "checkpoint" / "model.safetensors")
        assert all(torch.isfinite(weight).all() for weight in weights.values())
    assert len(found) == 4


@pytest.mark.slow
def test_two_ranks_train_packed_rows_as_one_process_does(inputs):
    outs = {name: planned(inputs, name, RULES["best_fit"]) for name in ("one", "ddp", "fsdp")}
    tasks = [
        {"out": str(out), "world": 1 if name == "one" else 2, "until": "pretrain",
         "execution": {} if name == "one" else {"parallel": name, "micro_batch_size": 1}}
        for name, out in outs.items()
    ]  # fmt: skip
    run_tasks(tasks, inputs)
    results = {name: result_of(out, runs_of(out, "pretrain")[0].id) for name, out in outs.items()}
    curves = {
        name: list(losses_of(out / "runs" / runs_of(out, "pretrain")[0].id).values()) for name, out in outs.items()
    }
    for name in ("ddp", "fsdp"):
        assert results[name].sources == results["one"].sources
        assert np.abs(np.array(curves[name]) - curves["one"]).max() < 1e-5
        (run,) = runs_of(outs[name], "pretrain")
        mine, alone = evaluated(outs[name], run.id)["chat"], evaluated(outs["one"], run.id)["chat"]
        assert mine.nats_per_token == pytest.approx(alone.nats_per_token, abs=1e-4)
        assert mine.documents == alone.documents
