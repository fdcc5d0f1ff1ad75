"""`bench`: the real loop on random tokens, and what `plan` makes of the speed."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from indelible.cli import plan_commands
from indelible.errors import UserError
from indelible.measure import bench, speed
from indelible.measure.speed import Speed, find_speed, keep_speeds, read_speeds
from indelible.records import StageResult
from indelible.study.cost import forward_flops_per_token
from indelible.study.load import resolve_study
from indelible.workflow.estimate import CPU_FLOPS_PER_CORE

RAW = {"name": "b", "scale": "pico", "pipeline": {"pre": "general", "post": "music", "ft": "chemistry"}, "seeds": [0]}
SPEED = Speed("a machine", "pico", "cpu", 1, 1, 100.0, 1e9, "2026-01-01T00:00:00Z")


@pytest.fixture
def app(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> typer.Typer:
    """The commands of this module, with a cache folder of their own."""
    monkeypatch.setenv("INDELIBLE_CACHE", str(tmp_path / "cache"))
    made = typer.Typer()
    plan_commands.register(made)
    return made


def _call(app: typer.Typer, *arguments: str) -> str:
    result = CliRunner().invoke(app, list(arguments), catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.stdout


def test_the_spec_is_the_scales_model_on_random_tokens(tmp_path: Path) -> None:
    study = resolve_study({**RAW, "exposure": {"fraction": [0.5, 1.0]}})
    store, tokenizer = bench.write_random_tokens(tmp_path, 128, 2048)
    spec = bench.bench_spec(study, 16, store, tokenizer)
    assert spec.model == study.arms[0].model
    assert (spec.data.main.store, spec.data.main.windows, spec.data.mix) == (store, bench.WINDOWS, ())
    assert (spec.precision, spec.init, spec.stop) == ("fp32", None, None)
    assert spec.training.lr == study.arms[0].stages["pretrain"].lr
    assert (spec.training.eval_interval, spec.training.patience) == (None, None)
    assert spec.data.total_windows > 1_000_000
    assert bench.bench_spec(study, 16, store, tokenizer, "bf16").precision == "bf16"


def test_a_study_that_starts_from_a_checkpoint_is_measured_from_scratch(tmp_path: Path) -> None:
    stages = {"go_on": {"corpus": "music", "tokens": "10k", "init": {"from": "/somewhere"}, "adapt": "lora"}}
    study = resolve_study({"name": "b", "scale": "pico", "stages": stages, "seeds": [0]})
    spec = bench.bench_spec(study, 4, *bench.write_random_tokens(tmp_path, 128, 2048))
    assert (spec.stage, spec.init, spec.adapt.kind, spec.model) == ("pretrain", None, "full", study.arms[0].model)


def test_a_step_of_a_large_model_is_cut_down() -> None:
    small = resolve_study(RAW).arms[0]
    large = resolve_study({**RAW, "scale": "135m"}).arms[0]
    assert bench.step_windows(small, 2048, "cpu", None) == small.stages["pretrain"].global_batch_size
    assert bench.step_windows(large, 49_152, "cpu", None) == 1
    assert 1 < bench.step_windows(large, 49_152, "cuda", None) < large.stages["pretrain"].global_batch_size
    assert bench.step_windows(large, 49_152, "cuda", 64) == 64


def test_speeds_are_kept_by_kind_and_number_of_workers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(speed, "this_machine", lambda: "a machine")
    assert read_speeds(tmp_path) == []
    four = replace(SPEED, workers=4, flops_per_second=5e8)
    keep_speeds(tmp_path, [SPEED, four])
    keep_speeds(tmp_path, [replace(SPEED, flops_per_second=2e9), replace(SPEED, scale="nano")])
    assert len(read_speeds(tmp_path)) == 3
    found = [find_speed(tmp_path, "pico", "cpu", 1, workers) for workers in (1, 3, 4, 64)]
    assert [entry.flops_per_second for entry in found if entry] == [2e9, 2e9, 5e8, 5e8]
    assert find_speed(tmp_path, "pico", "cuda", 1, 1) is None
    assert find_speed(tmp_path, "135m", "cpu", 1, 1) is None
    monkeypatch.setattr(speed, "this_machine", lambda: "another machine")
    assert find_speed(tmp_path, "pico", "cpu", 1, 1) is None


def test_speeds_of_another_format_are_not_read(tmp_path: Path) -> None:
    (tmp_path / "speeds.json").write_text('{"format": 9, "speeds": [{"x": 1}]}')
    assert read_speeds(tmp_path) == []


def test_a_cache_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"speeds\.json: cannot be written .*; set INDELIBLE_CACHE"):
        keep_speeds(tmp_path / "file", [SPEED])


def test_a_worker_that_fails_is_one_message(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"bench: worker [01] of 2 ended with code 1: .*task\.json: no such file"):
        bench._run_workers(tmp_path, 2, 1, "cpu")
    (tmp_path / "1.log").write_text("")
    with pytest.raises(UserError, match="bench: worker 1 of 2 ended with code -9: killed; is there memory enough"):
        bench._check(tmp_path, [None, -9])


def test_wrong_requests(app: typer.Typer) -> None:
    for arguments, message in (
        (["bench", "--scale", "pica"], "did you mean 'pico'"),
        (["bench", "--seconds", "0"], "--seconds 0: more than 0"),
        (["bench", "--workers", "0"], "--workers 0: at least 1"),
        (["plan", "quickstart", "--workers", "0"], "--workers 0: at least 1"),
    ):
        with pytest.raises(UserError, match=message):
            CliRunner().invoke(app, arguments, catch_exceptions=False)


def test_plan_tells_hours_from_the_best_known_speed(app: typer.Typer, tmp_path: Path) -> None:
    assumed = json.loads(_call(app, "plan", "quickstart", "--json", "--workers", "2"))
    assert (assumed["rate"], assumed["flops_per_second"]) == ("assumed", CPU_FLOPS_PER_CORE)
    kind = {"machine": speed.this_machine(), "device": speed.chosen_device("auto"), "workers": 2}
    keep_speeds(tmp_path / "cache", [replace(SPEED, **kind, flops_per_second=1e8)])
    shown = json.loads(_call(app, "plan", "quickstart", "--json", "--workers", "2"))
    assert (shown["rate"], shown["flops_per_second"]) == ("measured", 1e8)
    assert shown["hours"] == pytest.approx(assumed["hours"] * CPU_FLOPS_PER_CORE / 1e8)
    assert "measured by `indelible bench`, 2 at work" in " ".join(_call(app, "plan", "quickstart").split())
    StageResult(
        id="pretrain-x",
        stage="pretrain",
        status="done",
        stop_reason="max_tokens",
        tokens_seen={},
        **dict.fromkeys(("steps", "total_steps", "warmup_steps", "train_tokens"), 1),
        **dict.fromkeys(("trained_seconds", "eval_seconds", "tokens_per_second"), 1.0),
        flops=6e9,
        total_seconds=2.0,
        ledger_sha256="",
        precision="fp32",
    ).write(tmp_path / "out" / "runs" / "pretrain-x" / "result.json")
    shown = json.loads(_call(app, "plan", "quickstart", "--json", "--out", str(tmp_path / "out")))
    assert (shown["rate"], shown["flops_per_second"]) == ("measured", 3e9)
    given = json.loads(_call(app, "plan", "quickstart", "--json", "--flops-per-second", "1e12"))
    assert (given["rate"], given["flops_per_second"]) == ("given", 1e12)


def test_plan_shows_storage_kept_and_at_the_peak(app: typer.Typer) -> None:
    one, four = (
        json.loads(_call(app, "plan", "quickstart", "--json", "--workers", str(workers))) for workers in (1, 4)
    )
    state = one["resume_bytes_per_worker"]
    assert state == 4 * 4 * 229_696  # weights, two moments, best weights, fp32
    assert one["kept_bytes"] == 36 * 4 * 229_696
    assert one["peak_bytes"] == one["kept_bytes"] + one["token_bytes"] + 2 * state
    assert four["peak_bytes"] - one["peak_bytes"] == 3 * 2 * state
    assert "at the peak, with the resume states of 4 workers" in " ".join(
        _call(app, "plan", "quickstart", "--workers", "4").split()
    )


def test_more_workers_than_chains_do_not_shorten_the_longest_chain(app: typer.Typer) -> None:
    hours = [
        json.loads(_call(app, "plan", "quickstart", "--json", "--workers", workers))["hours"]
        for workers in ("1", "2", "100", "1000")
    ]
    assert hours[1] == pytest.approx(hours[0] / 2)
    assert hours[2] > hours[0] / 100
    assert hours[3] == hours[2]


@pytest.mark.slow
def test_bench_runs_the_real_loop(app: typer.Typer, tmp_path: Path) -> None:
    small = ["--set", "model.hidden_size=16", "--set", "model.num_layers=1", "--set", "execution.compile=off"]
    shown = json.loads(_call(app, "bench", "--seconds", "0.5", "--workers", "2", "--json", *small))
    assert [entry["workers"] for entry in shown["speeds"]] == [1, 2]
    arm = resolve_study({**RAW, "model": {"hidden_size": 16, "num_layers": 1}}).arms[0]
    flops = 3 * forward_flops_per_token(arm.model, 2048, arm.seq_len)
    for entry in shown["speeds"]:
        assert entry["tokens_per_second"] > 0
        assert entry["flops_per_second"] == pytest.approx(entry["tokens_per_second"] * flops)
    assert [entry.workers for entry in read_speeds(tmp_path / "cache")] == [1, 2]
    plan = json.loads(_call(app, "plan", "quickstart", "--json", "--workers", "2"))
    assert plan["flops_per_second"] == shown["speeds"][1]["flops_per_second"]
