"""Numbers that cannot be meant and names that collide are refused when the study is read, each in one message."""

import math
from typing import Any

import pytest

from indelible.errors import UserError
from indelible.results.columns import LOSSES
from indelible.statistics.sequential import MAX_SEEDS, sequential_design
from indelible.study.arm import LOSS, PAPER_LOSSES
from indelible.study.execution import MAX_WORKERS, check_workers
from indelible.study.grid import apply_values
from indelible.study.load import resolve_study
from indelible.workflow.estimate import estimate
from indelible.workflow.planning import plan_study
from indelible.workflow.speeds import measure_speeds

BASE: dict[str, Any] = {
    "name": "t",
    "scale": "pico",
    "pipeline": {"pre": "general", "post": "music", "ft": "chemistry"},
    "seeds": [0],
}


@pytest.mark.parametrize(
    ("path", "value"),
    [
        *(
            ("model.init_std", 1.5),
            ("model.rms_norm_eps", 2.0),
            ("model.rope_theta", 1e13),
            ("model.num_layers", 10**5),
        ),
        *(("model.intermediate_size", 10**8), ("seq_len", 10**9), ("pretrain.global_batch_size", 10**7)),
        *(("pretrain.eps", 2.0), ("finetune.warmup_steps", 2**63), ("posttrain.patience", 2**63)),
        *(("evaluation.windows", 2**63), ("evaluation.stop_windows", 2**63), ("stages.finetune.watch.steps", [[-1]])),
        *(("stages.finetune.watch.windows", 2**63), ("execution.workers", 10**6), ("execution.threads", 10**6)),
        *(
            ("execution.slurm.nodes", 10**6),
            ("execution.micro_batch_size", 10**7),
            ("execution.devices_per_run", 10**5),
        ),
        *(("posttrain.lora.r", 10**7), ("posttrain.lora.alpha", 1e10), ("corpora.x.num_documents", "2B")),
        ("corpora.x.document_words", 10**8),
    ],
)
def test_numbers_have_an_upper_rule(path, value):
    lora = {"method": "lora", "lora": {"targets": ["o_proj"]}} if path.startswith("posttrain.lora") else {}
    corpora = {"x": {"kind": "synthetic", "language": 1}} if path.startswith("corpora") else {}
    raw = {**BASE, "posttrain": {**lora, "eval_interval": 10}, "corpora": corpora}
    resolve_study(raw)
    with pytest.raises(UserError, match=r"1 problem\n.*(less|greater) than or equal to"):
        resolve_study(apply_values(raw, {path: value}))


def test_the_width_of_a_head_is_even():
    model = {"hidden_size": 12, "num_heads": 4, "num_kv_heads": 2}
    with pytest.raises(UserError, match=r"hidden_size 12 over num_heads 4 is 3, .* make the width of a head even"):
        resolve_study({**BASE, "model": model})
    resolve_study({**BASE, "model": {**model, "hidden_size": 16}})


def test_a_stage_has_no_more_windows_than_a_ledger_numbers():
    study = {**BASE, "posttrain": {"tokens": 10_000, "max_tokens": "1T"}}
    with pytest.raises(UserError, match=r"posttrain: 7,812,500,000 windows of 128 tokens, and a stage has at most 4,"):
        plan_study(resolve_study(study))


def test_a_mix_has_no_more_entries_than_a_byte_numbers():
    corpora = {f"c{number}": {"kind": "synthetic", "language": number} for number in range(251)}
    mix = [{"corpus": name, "fraction": 0.01, "share_of": "finetune"} for name in corpora]
    raw = {**BASE, "corpora": corpora, "stages": {"finetune": {"mix": mix}}}
    with pytest.raises(UserError, match=r"stages\.finetune\.mix: found 251 entries; at most 250"):
        resolve_study(raw)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        *(
            (name, "views.*begin it with L_")
            for name in ("status", "seed", "posttrain_lr", "forgotten", "L", "l_x", "L_ä")
        ),
        *((name, "views.*begin it with L_") for name in ("L_a b", "L_", "L_x_se", "L_x_bpb", "^L_.*$")),
        *((name, "the table has this loss already") for name in LOSSES),
    ],
)
def test_names_of_losses_are_those_of_no_other_column(name, message):
    with pytest.raises(UserError, match=message):
        resolve_study({**BASE, "views": {name: {"after": "finetune", "corpus": "music"}}})


def test_the_losses_of_the_table_begin_so():
    assert PAPER_LOSSES == LOSSES
    assert all(name.startswith(LOSS) for name in LOSSES)
    resolve_study({**BASE, "views": {"L_2": {"after": "finetune", "corpus": "music"}}})


@pytest.mark.parametrize("name", ["L", "L_more", "start", "evaluate"])
def test_stages_have_no_name_that_begins_a_loss(name):
    with pytest.raises(UserError, match=r"is what tables and status call something else"):
        resolve_study({**BASE, "stages": {name: {"corpus": "music"}}})


def test_a_view_is_on_a_corpus_that_is_evaluated():
    corpora = {"mine": {"kind": "synthetic", "language": 1}}
    raw = {**BASE, "corpora": corpora, "views": {"L_mine": {"after": "finetune", "corpus": "mine"}}}
    with pytest.raises(
        UserError, match=r"views\.L_mine\.corpus = 'mine': no stage trains on it and it is not evaluated"
    ):
        resolve_study(raw)
    resolve_study({**raw, "evaluation": {"corpora": ["mine"]}})
    resolve_study({**raw, "views": {"L_mine": {"after": "finetune", "corpus": "posttrain"}}})


def test_two_counts_of_tokens_share_no_column():
    corpora = {name: {"kind": "synthetic", "language": 1} for name in ("max", "more_x", "x")}
    with pytest.raises(
        UserError, match=r"stages\.posttrain\.max_tokens and corpus 'max' in stage 'posttrain' would both"
    ):
        resolve_study({**BASE, "corpora": corpora, "pipeline": {**BASE["pipeline"], "post": "max"}})
    stages = {"tune": {"corpus": "more_x"}, "tune_more": {"corpus": "x"}}
    with pytest.raises(
        UserError, match=r"'more_x' in stage 'tune' and corpus 'x' in stage 'tune_more' would both be the"
    ):
        resolve_study({**BASE, "corpora": corpora, "stages": stages})


def test_numbers_beside_the_study():
    for wrong in (0, -1, MAX_WORKERS + 1):
        with pytest.raises(UserError, match=f"--workers {wrong}: at "):
            check_workers(wrong)
    planned = plan_study(resolve_study(BASE))
    for speed in (0, -1.0, math.nan, math.inf):
        with pytest.raises(UserError, match=r"--flops-per-second .*: expected a number above 0"):
            estimate(planned, flops_per_second=speed)
        with pytest.raises(UserError, match=r"--seconds .*: more than 0"):
            next(measure_speeds("pico", speed))
    with pytest.raises(UserError, match=f"at most {MAX_SEEDS} seeds can be planned for"):
        sequential_design((3, MAX_SEEDS + 1))


def test_a_corpus_that_could_be_no_folder_is_refused_in_both_forms():
    corpora = {"<b>x</b>": {"kind": "local", "path": "a.jsonl"}}
    general = {"name": "t", "scale": "pico", "seeds": [0], "stages": {"one": {"corpus": "<b>x</b>", "tokens": 5000}}}
    for raw in (general, BASE | {"pipeline": {"pre": "general", "post": "<b>x</b>", "ft": "chemistry"}}):
        with pytest.raises(UserError, match="corpus name '<b>x</b>': use letters, digits and _ only"):
            resolve_study(raw | {"corpora": corpora})
