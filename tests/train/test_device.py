"""What a stage computes on: what `auto` becomes, MFU of known GPUs only, and what a run says of itself."""

import os
import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch
from tiny_engine import TINY, job_of, layered, loop_of, quiet, run_all, runs_of
from token_folder import plan_on_arrays

from indelible.errors import UserError
from indelible.models.build import model_config
from indelible.study.arm import ModelSpec
from indelible.study.cost import num_parameters
from indelible.study.execution import ExecutionSpec
from indelible.study.load import load_study
from indelible.train import attention, stage
from indelible.train import device as devices
from indelible.train.device import Device, choose_device, fitting_micro_batch, stage_execution
from indelible.train.distributed import World
from indelible.train.job import Progress
from indelible.train.program import get_program
from indelible.train.result import stage_result
from indelible.train.stage import run_stage
from indelible.workflow.precision import resolved_precision


def gpu(precision: str = "bf16") -> Device:
    return Device(torch.device("cuda", 0), 1, precision, False, None)


@pytest.fixture
def named(monkeypatch):
    """``named(name)`` makes torch see a GPU of that name."""

    def see(name: str) -> None:
        monkeypatch.setattr(torch.cuda, "get_device_name", lambda *args: name)

    return see


@pytest.mark.parametrize(
    ("name", "peak"),
    [
        ("NVIDIA H100 80GB HBM3", 989e12),
        ("NVIDIA A100-SXM4-80GB", 312e12),
        ("NVIDIA H100 PCIe", None),  # slower than the one above; not in the table, so not guessed
        ("NVIDIA GeForce RTX 4090 Laptop GPU", None),
        ("Some GPU of next year", None),
    ],
)
def test_only_a_gpu_known_by_its_whole_name_has_a_peak(named, name, peak):
    named(name)
    assert gpu().peak_flops == peak
    assert gpu("fp32").peak_flops is None, "the peak is that of bf16"
    assert Device(torch.device("cpu"), 1, "bf16", False, None).peak_flops is None


@pytest.mark.parametrize(("name", "is_known"), [("NVIDIA L40S", True), ("Some GPU", False)])
def test_mfu_is_flops_over_the_peak_or_absent(named, tmp_path, name, is_known):
    out = plan_on_arrays(tmp_path, layered(TINY, {"precision": "fp32"}), 512)
    loop = loop_of(out)
    loop.run()
    named(name)
    loop.program.device = gpu()
    loop.state.trained_seconds = 2.0
    job = job_of(out, runs_of(out)[0])
    found = stage_result(job, loop, "max_tokens", total_seconds=3.0)
    loop.program.device = Device(torch.device("cpu"), 1, "fp32", False, None)
    assert found.mfu == (pytest.approx(found.flops / 2.0 / 362e12) if is_known else None)
    assert stage_result(job, loop, "max_tokens", total_seconds=3.0).mfu is None, "no peak of a CPU"


def test_evaluation_on_a_gpu_does_not_round_to_tf32():
    matmul = torch.backends.cuda.matmul
    before = matmul.allow_tf32
    try:
        matmul.allow_tf32 = True
        with gpu().whole_fp32():
            assert matmul.allow_tf32 is False
        assert matmul.allow_tf32 is True
        with Device(torch.device("cpu"), 1, "fp32", False, None).whole_fp32():
            assert matmul.allow_tf32 is True
    finally:
        matmul.allow_tf32 = before


def micro_batch(scale: str, share: int, gib: float, seq_len: int = 1024, **settings) -> int:
    spec = load_study("quickstart", [f"scale={scale}"]).arms[0].model
    estimate = {key: settings.pop(key) for key in ("has_plain_head", "frozen_parameters") if key in settings}
    device = Device(torch.device("cuda", 0), 1, settings.pop("precision", "bf16"), False, None, **settings)
    config = model_config(spec, 49_152, seq_len, 0)
    parameters = num_parameters(spec, 49_152)
    return fitting_micro_batch(config, parameters, seq_len, share, device, int(gib * 2**30), **estimate)


def test_without_a_micro_batch_size_a_gpu_takes_what_fits():
    assert micro_batch("pico", 16, 80, seq_len=128) == 16, "all of a small batch"
    large, small = micro_batch("135m", 512, 80), micro_batch("135m", 512, 24)
    assert 8 < small < large < 512
    assert large * 30 * 4 * (6 * 576 + 3 * 1536) * 1024 < 80 * 2**30
    assert micro_batch("135m", 512, 24, precision="fp32") < small
    assert micro_batch("135m", 512, 24, activation_checkpointing=True) > small
    assert micro_batch("1b", 512, 8) == 1, "never less than one sequence, even where nothing fits"
    parts = -(-512 // large)
    assert parts * large - 512 < parts, "parts as equal as can be"


def test_whole_logits_count_where_the_head_is_not_plain():
    plain, whole = micro_batch("135m", 512, 80), micro_batch("135m", 512, 80, has_plain_head=False)
    assert whole < 0.6 * plain
    logits = whole * 1024 * 49_152
    assert 0.2 * 80 * 2**30 < 16 * logits < 0.8 * 80 * 2**30, "bf16, fp32, log-softmax and its gradient of each"
    assert micro_batch("135m", 512, 80, has_plain_head=False, precision="fp32") < whole


def test_weights_that_a_guard_keeps_count():
    frozen = 4_000_000_000
    assert micro_batch("135m", 512, 80, frozen_parameters=frozen) < micro_batch("135m", 512, 80)
    taken = 4 * frozen / 2**30
    assert micro_batch("135m", 512, 80, frozen_parameters=frozen) == micro_batch("135m", 512, 80 - taken / 0.8)


@pytest.mark.parametrize("over", [{}, {"posttrain": {"method": "lora", "lora": {"r": 4, "alpha": 8}}}])
def test_a_stage_on_a_gpu_takes_what_fits_beside_its_head(tmp_path, monkeypatch, over):
    # adapters on the head make it one that needs whole logits
    out = plan_on_arrays(tmp_path, layered(TINY, {"precision": "fp32", **over}), 512)
    run_all(out, until="pretrain")
    loop, asked = loop_of(out, "posttrain"), []
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: SimpleNamespace(total_memory=1 << 33))
    monkeypatch.setattr(stage, "fitting_micro_batch", lambda *args, **more: asked.append((args, more)) or 3)
    loop.program.device = gpu()
    found = stage._with_micro_batch(loop.program, job_of(out, runs_of(out, "posttrain")[0]), loop.spec, World())
    loop.program.device = Device(torch.device("cpu"), 1, "fp32", False, None)
    assert found.micro_batch_size == 3
    (((config, parameters, seq_len, share, *_, memory), more),) = asked
    assert (config, seq_len, share, memory) == (loop.program.config, 32, 4, 1 << 33)
    assert parameters == sum(weight.numel() for weight in loop.program.model.parameters())
    assert more == {"has_plain_head": not over, "frozen_parameters": 0}


def test_the_estimate_of_activations_is_what_autograd_keeps(monkeypatch):
    monkeypatch.setattr(attention, "MAX_SCORES", 0)  # as on a GPU: no attention weights are stored
    spec = ModelSpec(hidden_size=128, num_layers=3, num_heads=4, num_kv_heads=2, intermediate_size=384)
    config = model_config(spec, 512, 64, 0)
    program = get_program(config, 0.0, None, Device(torch.device("cpu"), 1, "bf16", False, None))
    program.model.train()
    weights = {weight.untyped_storage().data_ptr() for weight in program.model.parameters()}
    kept: dict[int, torch.UntypedStorage] = {}

    def note(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage
        return tensor

    def kept_bytes(sequences: int) -> int:
        kept.clear()
        ids = torch.zeros((sequences, 64), dtype=torch.int64)
        with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor), program.device.autocast():
            program.loss_sum(ids, ids, torch.ones(ids.shape))
        return sum(storage.nbytes() for storage in kept.values())

    per_token = (kept_bytes(5) - kept_bytes(1)) / (4 * 64)
    assert per_token == pytest.approx(3 * 4 * (6 * 128 + 3 * 384), rel=0.05)


def test_a_gpu_that_is_not_there_is_refused():
    if torch.cuda.is_available():
        pytest.skip("there is one")
    with pytest.raises(UserError, match=r"execution.device = cuda: torch sees no GPU here; use device: auto or cpu"):
        choose_device("fp32", ExecutionSpec(device="cuda"))


@pytest.mark.parametrize(
    ("there", "requested", "chosen"),
    [
        ("cuda", "auto", "cuda"),
        ("mps", "auto", "mps"),
        ("xpu", "xpu", "xpu"),
        ("mps", "cpu", "cpu"),
        ("privateuseone", "auto", "cpu"),  # an accelerator that nothing here was written for
        (None, "auto", "cpu"),
        (None, "mps", "execution.device = mps: torch sees no GPU here"),
        ("mps", "cuda", "execution.device = cuda: torch sees mps here"),
    ],
)
def test_the_device_is_the_accelerator_that_torch_finds(monkeypatch, there, requested, chosen):
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: there is not None)
    found = torch.device(there) if there else None
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda check_available=False: found)
    monkeypatch.setattr(torch.accelerator, "current_device_index", lambda: 0)
    execution = ExecutionSpec(device=requested, threads=1, compile="off")
    if chosen.startswith("execution"):
        with pytest.raises(UserError, match=chosen):
            choose_device("fp32", execution)
        return
    device = choose_device("fp32", execution)
    assert device.torch_device.type == chosen
    assert device.peak_flops is None


@pytest.mark.parametrize(
    ("flags", "precision"),
    [({"avx2", "avx512_bf16"}, "bf16"), ({"amx_bf16"}, "bf16"), ({"avx2", "avx512f"}, "fp32"), (set(), "fp32")],
)
def test_precision_auto_is_what_the_processor_multiplies_when_a_study_is_planned(monkeypatch, flags, precision):
    monkeypatch.setattr("indelible.workflow.precision._cpu_flags", lambda: flags)
    execution = ExecutionSpec(device="cpu", compile="off", threads=1)
    assert resolved_precision(execution) == precision
    assert {choose_device(planned, execution).precision for planned in ("fp32", "bf16")} == {"fp32", "bf16"}, (
        "what was planned is computed, whatever this machine multiplies"
    )


@pytest.mark.parametrize(
    ("asked", "steps", "taken"), [("auto", 8, "off"), ("auto", 9, "auto"), ("on", 1, "on"), ("off", 99, "off")]
)
def test_a_handful_of_updates_is_not_compiled_unless_asked(asked, steps, taken):
    assert stage_execution(ExecutionSpec(compile=asked), steps).compile == taken


@pytest.fixture
def new_trial(monkeypatch):
    """The compiler is tried again."""
    devices.compiler_fault.cache_clear()
    devices._reported.clear()
    yield monkeypatch
    devices.compiler_fault.cache_clear()


def test_without_a_compiler_nothing_is_compiled(new_trial):
    new_trial.setattr(devices.shutil, "which", lambda name: None)
    assert choose_device("fp32", ExecutionSpec(device="cpu", threads=1, compile="auto")).compile is False


@pytest.mark.parametrize("compiler", ["no-such-compiler", "'unclosed", ""])
def test_a_compiler_that_does_not_work_is_said_and_done_without(new_trial, capsys, compiler):
    new_trial.setenv("CXX", compiler)
    auto, on, off = (ExecutionSpec(device="cpu", threads=1, compile=compile) for compile in ("auto", "on", "off"))
    assert choose_device("fp32", auto).compile is False
    choose_device("fp32", auto)
    assert capsys.readouterr().out.count("execution.compile = auto: not compiled, torch.compile does not work") == 1
    with pytest.raises(UserError, match=r"execution.compile = on: .* set execution.compile: off"):
        choose_device("fp32", on)
    assert choose_device("fp32", off).compile is False


def test_a_compiler_without_the_headers_of_python_is_found_out(tmp_path):
    """In a process of its own: torch asks for the compiler once."""
    compiler = tmp_path / "cxx"
    compiler.write_text("#!/bin/sh\necho 'main.cpp:1:10: fatal error: Python.h: No such file' >&2\nexit 1\n")
    compiler.chmod(0o755)
    code = (
        "from indelible.study.execution import ExecutionSpec; from indelible.train import device; "
        "print(device.choose_device('fp32', ExecutionSpec(device='cpu')).compile)"
    )
    environment = {**os.environ, "CXX": str(compiler), "TORCHINDUCTOR_CACHE_DIR": str(tmp_path / "cache")}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    first, second = done.stdout.splitlines()
    assert first.startswith("execution.compile = auto: not compiled, torch.compile does not work here (")
    assert second == "False"


def test_a_run_says_at_its_start_what_it_will_do(tmp_path, capsys):
    out = plan_on_arrays(tmp_path, layered(TINY, {"precision": "fp32"}), 512)
    run_all(out, {"micro_batch_size": 2}, until="pretrain")
    said = capsys.readouterr().out
    parameters = sum(weight.numel() for weight in loop_of(out).program.model.parameters())
    for part in (
        f"{parameters:,} parameters on 1 CPU thread, fp32, eager; ",
        "5 steps of 4 x 32 tokens, 2 sequence(s) at a time; ",
        "at most 640 tokens and ",
        "FLOPs",
    ):
        assert part in said
    run_all(plan_on_arrays(tmp_path / "lora", layered(TINY, {"posttrain": {"method": "lora"}}), 512), until="posttrain")
    assert " trained) on " in capsys.readouterr().out, "of adapters, how many weights are trained"


def test_a_run_says_where_it_stands(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("indelible.train.stage.REPORT_LINE_SECONDS", 0.0)
    monkeypatch.setattr("indelible.train.loop.REPORT_SECONDS", 0.0)
    out = plan_on_arrays(tmp_path, layered(TINY, {"precision": "fp32"}), 512)
    seen: list[Progress] = []
    run_stage(job_of(out, runs_of(out)[0]), progress=seen.append, guard=lambda: None)
    training = [now for now in seen if now.phase == "training"]
    assert [now.step for now in training] == [1, 2, 3, 4, 5]
    said = capsys.readouterr().out
    for now in training:
        assert f"step {now.step} of 5, loss {now.loss:.4f}, lr {now.lr:.2e}, grad norm {now.grad_norm:.2f}, " in said
    assert all(now.seconds_left is not None and now.seconds_left >= 0 for now in training)
    assert training[-1].seconds_left == 0
    assert "tokens/s, at most " in said
    other = plan_on_arrays(tmp_path / "other", layered(TINY, {"precision": "fp32"}), 512)
    monkeypatch.setattr("indelible.train.stage.REPORT_LINE_SECONDS", 1e9)
    run_stage(job_of(other, runs_of(other)[0]), progress=quiet, guard=lambda: None)
    assert "step 1 of 5" not in capsys.readouterr().out
