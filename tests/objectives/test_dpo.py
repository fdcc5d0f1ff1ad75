"""DPO: value and gradient by hand, log-probabilities at the start, mixes and guards, resumes, ranks, cost, identity."""

import json
import math
from dataclasses import replace
from functools import partial
from pathlib import Path

import chat_pairs
import numpy as np
import pytest
import torch
from preferring import planned, preference_study
from resuming import (
    assert_killed_equals_uninterrupted,
    assert_stopped_equals_uninterrupted,
    assert_two_ranks_equal_one,
    runs_on_ranks,
)
from safetensors.numpy import load_file as load_arrays
from safetensors.torch import load_file
from tiny_engine import evaluated, layered, loop_of, losses_of, plan_of, quiet, result_of, run_all, runs_of

from indelible.data.loader import read_batch
from indelible.errors import UserError
from indelible.objectives.dpo import Dpo
from indelible.objectives.preference import measures_against, own_measures
from indelible.study.identity import without_tags
from indelible.study.load import resolve_study
from indelible.study.stage_spec import StageSpec
from indelible.train import start_log_probs as start_room
from indelible.train.pair_pieces import length_groups
from indelible.train.pieces import step_pieces
from indelible.train.preference import Trim

LORA = {"adapt": {"kind": "lora", "r": 4, "alpha": 8}}
HEADS = {"tied": ({}, {}), "untied": ({"model": {"tie_embeddings": False}}, {}), "lora": ({}, LORA)}
MIX = {"mix": [{"corpus": "pre", "fraction": 0.3}]}
EVERYTHING = layered(MIX, {"guard": {"kind": "kl", "weight": 0.2}, "dropout": 0.1, "eval_interval": 2, "patience": 4})
FILE = "start_log_probs.safetensors"


def folder_of(out: Path, stage: str = "prefer") -> Path:
    """Folder of the preference run."""
    return out / "runs" / runs_of(out, stage)[0].id


def by_hand(loop, rows: slice) -> torch.Tensor:
    """The loss of a step from whole logits of transformers."""
    preference, model = loop.context.preference, loop.program.model
    step, others = preference.split_rows(loop.ledger, rows)
    batch = read_batch(loop.ledger, loop.context.stores, others)

    def losses(tokens: np.ndarray, valid: np.ndarray) -> torch.Tensor:
        ids = torch.from_numpy(tokens)
        logits = model(input_ids=ids[:, :-1]).logits.float()
        each = torch.nn.functional.cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten(), reduction="none")
        return each.view(valid.shape) * torch.from_numpy(valid)

    now = -losses(step.pairs.tokens, step.pairs.valid).sum(1).view(-1, 2)
    gap = (now - torch.from_numpy(step.start)).diff(dim=1).squeeze(1)  # worse minus better
    pairs = -torch.nn.functional.logsigmoid(-0.5 * gap).mean()
    if not len(others):
        return pairs
    sequences = 2 * len(gap) + len(others)
    windows = losses(batch.tokens, batch.valid).sum() / batch.valid.sum()
    return (2 * len(gap) * pairs + len(others) * windows) / sequences


@pytest.mark.parametrize("micro_batch_size", [None, 1, 3])
@pytest.mark.parametrize("head", HEADS)
def test_value_and_gradient_by_hand(tmp_path, head, micro_batch_size):
    over, stage = HEADS[head]
    out = planned(tmp_path, over, layered({**MIX, "global_batch_size": 5}, stage))
    run_all(out, until="pretrain")
    loop = loop_of(out, "prefer", {"micro_batch_size": micro_batch_size})
    assert loop.program.has_plain_head == (head != "lora")
    source = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for weight in loop.program.trainable().values():
            weight.add_(torch.randn(weight.shape, generator=source) * 0.05)
    kinds = set()
    for rows in (slice(0, 5), slice(5, 8), slice(8, 15), slice(15, 19)):
        step, others = loop.context.preference.split_rows(loop.ledger, rows)
        kinds.add(len(others))
        batch = read_batch(loop.ledger, loop.context.stores, others)
        total, _ = loop._backward(batch, int(batch.valid.sum()), step)
        found = {name: weight.grad.clone() for name, weight in loop.program.trainable().items()}
        loop.optimizer.zero_grad(set_to_none=True)
        loss = by_hand(loop, rows)
        assert abs(by_hand(loop, rows).item() - math.log(2)) > 0.01, "the model has left its start"
        expected = torch.autograd.grad(loss, list(loop.program.trainable().values()))
        assert total.item() == pytest.approx(loss.item(), abs=2e-6)
        for name, gradient in zip(found, expected, strict=True):
            assert torch.allclose(found[name], gradient, rtol=1e-4, atol=2e-6), name
        assert max(gradient.abs().max().item() for gradient in expected) > 1e-3
    assert len(kinds) > 1, "steps with more and with fewer mixed windows"


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_the_loss_of_a_pair(smoothing):
    now, start = np.array([[-3.0, -4.0], [-7.0, -2.0]]), np.array([[-5.0, -4.5], [-6.0, -2.5]])
    objective = Dpo(beta=0.4, label_smoothing=smoothing)
    gains = [0.4 * ((-3 + 5) - (-4 + 4.5)), 0.4 * ((-7 + 6) - (-2 + 2.5))]
    expected = [
        -(1 - smoothing) * math.log(1 / (1 + math.exp(-x))) - smoothing * math.log(1 / (1 + math.exp(x))) for x in gains
    ]
    assert objective.loss_values(now, start) == pytest.approx(expected, rel=1e-12)
    found = objective.pair_losses(torch.from_numpy(now), torch.from_numpy(start))
    assert found.tolist() == pytest.approx(expected, rel=1e-6)


def test_measures_and_their_errors_by_hand():
    now = np.array([[-2.0, -5.0], [-4.0, -3.0], [-6.0, -6.0]])
    start = np.array([[-3.0, -5.0], [-4.0, -5.0], [-7.0, -6.0]])
    tokens, prompts = np.array([[2, 3], [1, 1], [4, 2]]), np.array([0, 1, 1])
    own = own_measures(now, prompts)
    assert own["accuracy"].value == pytest.approx((1 + 0 + 0.5) / 3)
    residuals = [1 - 0.5, (0 - 0.5) + (0.5 - 0.5)]  # by prompt
    assert own["accuracy"].standard_error == pytest.approx(math.sqrt(2 * sum(r * r for r in residuals)) / 3)
    assert own["margin"].value == pytest.approx((3 - 1 + 0) / 3)
    losses = Dpo(beta=2.0).loss_values(now, start)
    found = measures_against(now, start, losses, 2.0, tokens, prompts)
    assert found["reward_accuracy"].value == pytest.approx(2 / 3)
    assert found["reward_margin"].value == pytest.approx(2.0 * ((1 - 0) + (0 - 2) + (1 - 0)) / 3)
    assert found["preference_loss"].value == pytest.approx(losses.mean())
    assert found["kl"].value == pytest.approx(-(1 + 0 + 0 + 2 + 1 + 0) / tokens.sum())
    alone = own_measures(now[:1], prompts[:1])
    assert alone["accuracy"].standard_error is None


def test_every_figure_has_its_number_and_error(tmp_path):
    out = planned(tmp_path, stage={"eval_interval": 4, "patience": 9})
    result = run_all(out, until="prefer")["prefer"]
    lines = [json.loads(line) for line in (folder_of(out) / "metrics.jsonl").read_text().splitlines()]
    for group in ("train", "eval/pairs"):
        found = [line for line in lines if f"{group}/preference_loss" in line]
        for name in ("preference_loss", "reward_accuracy", "reward_margin", "kl"):
            assert all(f"{group}/{name}_se" in line and line[f"{group}/pairs"] > 1 for line in found)
        assert found[0][f"{group}/preference_loss"] == pytest.approx(math.log(2), abs=1e-6)
        assert found[0][f"{group}/reward_accuracy"] in (0.5, pytest.approx(0.5, abs=0.5))
        assert found[-1][f"{group}/preference_loss"] < 0.1
    stops = [line["eval/pairs/preference_loss"] for line in lines if "eval/pairs/preference_loss" in line]
    assert result.best_stop_loss == min(stops), "the held-out loss of pairs chooses the weights"
    for line in lines:
        if "train/loss" in line:
            assert line["train/loss"] == pytest.approx(line["train/preference_loss"], rel=1e-5)
    before, after = (evaluated(out, folder.name)["pairs"] for folder in (folder_of(out, "pretrain"), folder_of(out)))
    assert after.margin > before.margin + 3
    assert (after.accuracy_se, after.margin_se) != (None, None)
    assert (after.windows, after.loss_on, after.bits_per_byte) == (8, "completion", None)


def test_pairs_that_stop_are_not_reported_and_long_ones_are_counted(tmp_path):
    loop = loop_of(_pretrained(tmp_path, {"eval_interval": 4}), "prefer")
    stopping, out = loop.context.stop_rule.heldout, tmp_path
    assert stopping.numbers.tolist() == list(range(8))
    inputs = loop.context.stores[loop.spec.data.main.store]
    assert (inputs.num_windows("train", 32), inputs.num_windows("heldout", 32)) == (48, 24)
    assert (inputs.pairs("train").too_long(32), inputs.pairs("train").too_long(64)) == (2, 0)
    assert inputs.num_windows("train", 64) == 50
    run_all(out, until="prefer")
    assert result_of(out, folder_of(out).name).pairs_too_long == 2


def _pretrained(out: Path, stage: dict) -> Path:
    planned(out, stage=stage)
    run_all(out, until="pretrain")
    return out


def test_log_probabilities_at_the_start_are_computed_once_and_read_again(tmp_path, monkeypatch):
    out = _pretrained(tmp_path, {"eval_interval": 4})
    first = loop_of(out, "prefer").context.preference.start
    stored = load_arrays(folder_of(out) / FILE)
    assert np.array_equal(stored["train"], first.train)
    assert len(stored["numbers"]) == 22
    assert stored["stop"].shape == (8, 2)
    assert stored["stop"].dtype == np.float64

    def never(*_):
        raise AssertionError("computed again")

    monkeypatch.setattr(start_room, "training_log_probs", never)
    again = loop_of(out, "prefer").context.preference.start
    assert np.array_equal(first.train, again.train)
    assert np.array_equal(first.stop, again.stop)
    parent = folder_of(out, "pretrain") / "checkpoint" / "model.safetensors"
    weights = load_file(parent)
    from safetensors.torch import save_file

    save_file({name: weight * 1.01 for name, weight in weights.items()}, parent, {"format": "pt"})
    with pytest.raises(AssertionError, match="computed again"):  # of another start they are not used
        loop_of(out, "prefer")


def test_killed_while_they_are_computed_gives_the_same_bits(tmp_path, monkeypatch):
    whole, broken = (_pretrained(tmp_path / name, {"eval_interval": 4}) for name in ("whole", "broken"))
    loop_of(whole, "prefer")
    halves = []
    plain = start_room.answer_log_probs

    def dies(*arguments):
        halves.append(1)
        raise KeyboardInterrupt

    monkeypatch.setattr(start_room, "answer_log_probs", dies)
    with pytest.raises(KeyboardInterrupt):
        loop_of(broken, "prefer")
    assert halves
    assert not (folder_of(broken) / FILE).exists()
    monkeypatch.setattr(start_room, "answer_log_probs", plain)
    loop_of(broken, "prefer")
    assert (folder_of(whole) / FILE).read_bytes() == (folder_of(broken) / FILE).read_bytes()
    (folder_of(broken) / FILE).write_bytes(b"cut off")
    loop_of(broken, "prefer")
    assert (folder_of(whole) / FILE).read_bytes() == (folder_of(broken) / FILE).read_bytes(), (
        "a damaged file is not used"
    )


@pytest.mark.parametrize("adapt", [{}, LORA], ids=["full", "lora"])
def test_stopped_and_continued_equals_uninterrupted(tmp_path, monkeypatch, adapt):
    stage = layered(EVERYTHING, adapt)
    assert_stopped_equals_uninterrupted(
        lambda name: planned(tmp_path / name, stage=stage), "prefer", monkeypatch, stops=(2, 5)
    )


def test_a_guard_holds_pairs_and_windows(tmp_path):
    guards = {"none": {"kind": "none"}, "kl": {"kind": "kl", "weight": 5}, "l2sp": {"kind": "l2sp", "weight": 3}}
    moved = {}
    for name, guard in guards.items():
        out = planned(tmp_path / name, stage={**MIX, "guard": guard})
        run_all(out, until="prefer")
        held = losses_of(folder_of(out), "train/guard")
        assert (held == {}) == (name == "none")
        before, after = (evaluated(out, folder.name) for folder in (folder_of(out, "pretrain"), folder_of(out)))
        moved[name] = after["pairs"].margin - before["pairs"].margin
    assert moved["none"] > 1.2 * moved["kl"]
    assert moved["none"] > 1.2 * moved["l2sp"]


def test_bf16_starts_at_the_loss_of_no_preference(tmp_path):
    out = planned(tmp_path, {"precision": "bf16"})
    run_all(out, until="prefer")
    losses = list(losses_of(folder_of(out)).values())
    assert losses[0] == pytest.approx(math.log(2), abs=1e-3), "now and start are rounded alike"
    assert losses[-1] < 0.3


def test_cost_counts_both_answers_and_the_start(tmp_path):
    out = planned(tmp_path, stage={"eval_interval": 11})
    result = run_all(out, until="prefer")["prefer"]
    run, loop = runs_of(out, "prefer")[0], loop_of(out, "prefer")
    from indelible.train.result import forward_flops

    forward = forward_flops(loop.program, 32)
    assert result.tokens_seen == {"pairs": 44 * 64}
    assert result.flops == pytest.approx(forward * 64 * (3 * 44 + 22 + 8), rel=1e-12)
    reported = 2 * 8 * 32 + 8 * 64  # two corpora of windows and one of pairs
    assert run.cost.tokens == 44 * 64
    assert run.cost.flops == pytest.approx(forward * (64 * (3 * 44 + 22 + 8) + 3 * 8 * 64 + reported), rel=1e-12)


def test_beta_is_another_run_and_moves_nothing_in_front(tmp_path):
    betas = [{"kind": "dpo", "beta": 0.1}, {"kind": "dpo", "beta": 0.5}]
    raw = preference_study()
    raw["stages"]["prefer"]["objective"] = betas
    from token_folder import plan_on_arrays

    out = plan_on_arrays(tmp_path, raw, 512)
    assert [len(runs_of(out, stage)) for stage in ("pretrain", "prefer", "finetune")] == [1, 2, 2]
    assert "dpo" in runs_of(out, "prefer")[0].id
    columns = [chain.columns for chain in plan_of(out).chains]
    assert [one["prefer_objective_beta"] for one in columns] == [0.1, 0.5]
    spec = StageSpec.model_validate(without_tags(runs_of(out, "prefer")[0].spec))
    assert (spec.data.main.sequences, spec.data.main.windows, spec.data.total_windows) == (2, 22, 44)


@pytest.mark.parametrize(
    ("stage", "message"),
    [
        ({"objective": {"kind": "dpo", "beta": 0}}, r"objective.*beta.*greater than 0"),
        ({"objective": {"kind": "dpo", "label_smoothing": 0.5}}, r"label_smoothing.*less than 0.5"),
        ({"objective": {"kind": "dpo", "betta": 1}}, r"objective.*betta"),
        ({"objective": "dop"}, r"objective.*dop.*did you mean 'dpo'"),
        ({"corpus": "post"}, r"stages.prefer.objective = 'dpo': it needs pairs.*'post' has none.*chosen_column"),
        ({"objective": "next_token"}, r"stages.prefer.corpus = 'pairs' is made of pairs.*set stages.prefer.objective"),
        ({"corpus": "post", "objective": "next_token", "mix": [{"corpus": "pairs"}]}, r"mix: 'pairs' is made of pairs"),
        (
            {"mix": [{"corpus": "pre", "per": "stage", "fraction": 0.1, "mode": "replace"}]},
            r"in the place of pairs, and",
        ),
    ],
)
def test_what_makes_no_sense_is_refused(stage, message):
    raw = preference_study()
    raw["stages"]["prefer"].update(stage)
    with pytest.raises(UserError, match=message):
        resolve_study(raw)


@pytest.fixture(scope="module")
def ranks(tmp_path_factory) -> dict[str, Path]:
    """Preference runs on one and two ranks, and some killed by SIGKILL; folders by name."""
    plain = {**MIX, "global_batch_size": 5, "eval_interval": 4, "guard": {"kind": "kl", "weight": 0.2}}
    stages = {"full": plain, "lora": layered(plain, LORA), "all": EVERYTHING}
    two_layers = {"model": {"num_layers": 2}}
    plans = {name: partial(planned, over=two_layers, stage=stage) for name, stage in stages.items()}
    killed = {"all": plans["all"], "messages": lambda folder: chat_pairs.made(folder, chat_pairs.records(turns=2))[0]}
    return runs_on_ranks(
        "prefer", {name: plans[name] for name in ("full", "lora")}, killed, tmp_path_factory.mktemp("ranks")
    )


@pytest.mark.slow
@pytest.mark.parametrize("parallel", ["ddp", "fsdp"])
@pytest.mark.parametrize("name", ["full", "lora"])
def test_two_ranks_equal_one(ranks, name, parallel):
    keys = ("train/loss", "train/guard", "train/kl", "train/reward_margin", "eval/pairs/preference_loss")
    assert_two_ranks_equal_one(ranks, "prefer", name, parallel, keys, tolerance=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["all one", "all ddp", "all fsdp", "messages one"])
def test_killed_and_resumed_equals_uninterrupted(ranks, name):
    assert_killed_equals_uninterrupted(ranks, "prefer", name)


def pieces_of(loop, trim, micro_batch_size) -> tuple[set[int], list[int], list[float], torch.Tensor]:
    """Widths and pairs of the micro batches of a step, its loss and gradients, and the log-probabilities found."""
    preference = replace(loop.context.preference, trim=trim)
    loop.context = replace(loop.context, preference=preference)
    loop.program.device = replace(loop.program.device, micro_batch_size=micro_batch_size)
    step, others = preference.split_rows(loop.ledger, slice(0, 9))
    batch = read_batch(loop.ledger, loop.context.stores, others)
    pieces, _ = step_pieces(loop.context, batch, 1, step)
    total, _ = loop._backward(batch, 1, step)
    norm = sum((weight.grad**2).sum() for weight in loop.program.trainable().values()).item()
    loop.optimizer.zero_grad(set_to_none=True)
    found = loop._step_pairs[1]
    return {piece.batch.valid.shape[1] for piece in pieces}, [p.size for p in pieces], [total.item(), norm], found


@pytest.mark.parametrize("micro_batch_size", [None, 4])
def test_padding_is_left_out_and_changes_nothing_but_roundings(tmp_path, micro_batch_size):
    loop = loop_of(_pretrained(tmp_path, {"global_batch_size": 9}), "prefer")
    every, few = loop.context.preference.trim, Trim(16, is_free=False)
    assert every == Trim(8, is_free=True)
    widths, _, expected, now = pieces_of(loop, None, micro_batch_size)
    assert widths == {32}
    free, sizes, values, found = pieces_of(loop, every, micro_batch_size)
    assert len(free) > 1
    assert sum(sizes) == 9
    assert free <= {8, 16, 24, 32}
    assert values == pytest.approx(expected, rel=1e-5)
    assert torch.allclose(found, now, atol=1e-5)
    compiled, sizes, values, found = pieces_of(loop, few, micro_batch_size)
    assert compiled <= {16, 32}, "two shapes, whatever the batch"
    assert len(set(sizes)) == 1
    assert values == pytest.approx(expected, rel=1e-5)
    assert torch.allclose(found, now, atol=1e-5)


def test_with_dropout_rows_keep_their_length_and_order(tmp_path):
    loop = loop_of(_pretrained(tmp_path, {"dropout": 0.1}), "prefer")
    assert loop.context.preference.trim is None
    step, _ = loop.context.preference.split_rows(loop.ledger, slice(0, 4))
    (piece,) = step_pieces(loop.context, read_batch(loop.ledger, loop.context.stores, slice(0, 0)), 1, step)[0]
    assert np.array_equal(piece.batch.tokens, step.pairs.tokens)


def test_groups_of_one_length():
    widths = np.array([5, 30, 8, 9, 31, 6, 1])
    found = [group.tolist() for group in length_groups(widths, 2, 8)]
    assert found == [[6, 0], [5, 2], [3], [1, 4]]
    assert [group.tolist() for group in length_groups(widths, 3, None)] == [[6, 0, 5], [2, 3, 1], [4]]


@pytest.mark.slow
def test_compiled_equals_eager(tmp_path):
    outs = [planned(tmp_path / mode, stage=MIX) for mode in ("off", "on")]
    for out, mode in zip(outs, ("off", "on"), strict=True):
        run_all(out, {"compile": mode}, until="prefer")
    eager, compiled = (list(losses_of(folder_of(out)).values()) for out in outs)
    assert compiled == pytest.approx(eager, abs=1e-3)


def test_a_checkpoint_alone_is_evaluated_like_one_after_its_stage(tmp_path):
    from tiny_engine import evaluation_job_of

    from indelible.records import Evaluation
    from indelible.train.evaluation import run_evaluations

    out = planned(tmp_path)
    run_all(out, until="prefer")
    name = folder_of(out).name
    run_evaluations(evaluation_job_of(out, name, tmp_path / "again"), progress=quiet, guard=lambda: None)
    made = evaluated(out, name)["pairs"]
    again = Evaluation.read(tmp_path / "again" / f"{made.id}.json")
    apart = {"seconds", "environment"}
    assert again.model_dump(exclude=apart) == made.model_dump(exclude=apart)


def test_a_given_checkpoint_is_the_reference_of_a_first_stage_on_pairs(tmp_path):
    from tiny_models import tiny_model
    from token_folder import plan_on_arrays, write_tokenizer

    from indelible.results.losses import losses
    from indelible.results.run_folder import read_study_run

    tiny_model("qwen2").save_pretrained(tmp_path / "given")
    write_tokenizer(tmp_path / "given", 64)
    raw = preference_study(stage={**LORA, "init": str(tmp_path / "given")})
    raw["stages"] = {name: raw["stages"][name] for name in ("prefer", "finetune")}
    raw["stages"]["prefer"]["adapt"] |= {"targets": ["o_proj", "down_proj"]}
    out = plan_on_arrays(tmp_path / "out", raw, 64)
    run_all(out)
    from tiny_engine import evaluation_job_of

    from indelible.train.evaluation import run_evaluations

    (given,) = plan_of(out).given
    run_evaluations(evaluation_job_of(out, given, out / "evaluations" / given), progress=quiet, guard=lambda: None)
    found = losses(read_study_run(out)).to_dicts()
    rows = {row["stage"]: row for row in found if row["corpus"] == "pairs"}
    assert [rows[stage]["reference"] for stage in ("start", "prefer", "finetune")] == [None, given, given]
    assert rows["start"]["accuracy"] is not None
    assert rows["prefer"]["preference_loss"] < 0.6
    assert rows["finetune"]["reward_margin_se"] > 0


def test_a_second_stage_may_show_the_pairs_that_the_first_did_not():
    from indelible.data.ledger import build_ledger
    from indelible.study.graph import Stores, build_graph

    raw = preference_study()
    stages = raw["stages"]
    first = {**stages["prefer"], "tokens": 64 * 10, "max_tokens": None}
    second = {**first, "tokens": 64 * 22, "not_shown_in": ["prefer"]}
    raw["stages"] = {"pretrain": stages["pretrain"], "prefer": first, "again": second}
    graph = build_graph(resolve_study(raw), Stores({"pre": "pre-1", "pairs": "pairs-2"}, "tokenizer-3"))
    specs = {run.stage: run.spec for run in graph.runs.values()}
    shown = {name: build_ledger(specs[name], {"pairs-2": 48}).shown(0).tolist() for name in ("prefer", "again")}
    assert (len(shown["prefer"]), len(shown["again"])) == (10, 12)
    assert not set(shown["prefer"]) & set(shown["again"])
