"""The training loops that benchmarks/train.py compares, each in a process of its own; the processes take turns.

A loop asks its `Gate` before every step. The gate lets it run as many steps as the benchmark asked for, reports the
time that they took, and then blocks until its next turn, so that at any moment one loop runs. This file is started by
benchmarks/train.py; litgpt's loop needs nothing of this project, so its interpreter may be another one's.
"""

import json
import os
import resource
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F

Settings = dict[str, Any]
OPTIMIZER = {"lr": 1e-3, "weight_decay": 0.1, "betas": (0.9, 0.95)}
MARK = "@@ "  # in front of reports; loops print other things too


class Gate:
    """Lets a loop run in turns."""

    def __init__(self) -> None:
        self._steps = self._left = 0
        self._begun = (0.0, 0.0)

    def __call__(self) -> None:
        """To be called at the beginning of every step."""
        if self._left == 0:
            if self._steps:
                self._report()
            self._steps = self._left = int(sys.stdin.readline() or 0)
            if not self._steps:
                os._exit(0)
            self._begun = time.process_time(), time.perf_counter()
        self._left -= 1

    def _report(self) -> None:
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        cpu, wall = time.process_time() - self._begun[0], time.perf_counter() - self._begun[1]
        peak_bytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        if torch.cuda.is_available():
            peak_bytes = torch.cuda.max_memory_allocated()
        report = {"steps": self._steps, "cpu_seconds": cpu, "wall_seconds": wall, "peak_bytes": peak_bytes}
        print(MARK + json.dumps(report), flush=True)


def windows(settings: Settings) -> torch.Tensor:
    """Some random windows (64, T + 1) that all loops read round and round."""
    source = torch.Generator().manual_seed(0)
    return torch.randint(0, settings["vocab_size"], (64, settings["seq_len"] + 1), generator=source)


def llama(settings: Settings) -> torch.nn.Module:
    """The model, of transformers."""
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    shape = {key: settings[key] for key in ("vocab_size", "hidden_size", "intermediate_size")}
    return LlamaForCausalLM(
        LlamaConfig(
            **shape,
            num_hidden_layers=settings["num_layers"],
            num_attention_heads=settings["num_heads"],
            num_key_value_heads=settings["num_kv_heads"],
            max_position_embeddings=settings["seq_len"],
            tie_word_embeddings=settings.get("tie_embeddings", True),
            dtype="float32",
        )
    )


def ours(settings: Settings, gate: Gate) -> None:
    """This project's stage loop, as a worker runs it."""
    from random_loop import stage_loop

    from indelible.study.execution import ExecutionSpec
    from indelible.train.device import choose_device

    execution = ExecutionSpec(threads=settings["threads"], compile=settings.get("ours_compile", "on"))
    device = choose_device(settings["precision"], execution)
    folder = Path(tempfile.mkdtemp())
    stage_loop(settings, llama(settings), windows(settings).numpy(), device, folder, on_read=gate).run()


def trainer(settings: Settings, gate: Gate) -> None:
    """transformers' Trainer with its default settings, compiled or not."""
    from transformers import Trainer, TrainerCallback, TrainingArguments

    rows = windows(settings)[:, :-1].contiguous()

    class Rows(torch.utils.data.Dataset):
        def __len__(self) -> int:
            return 10**7

        def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
            row = rows[index % len(rows)]
            return {"input_ids": row, "labels": row}

    class Turns(TrainerCallback):
        def on_step_begin(self, *args: Any, **kwargs: Any) -> None:
            gate()

    arguments = TrainingArguments(
        tempfile.mkdtemp(),
        per_device_train_batch_size=settings["batch_size"],
        max_steps=10**5,
        learning_rate=OPTIMIZER["lr"],
        weight_decay=OPTIMIZER["weight_decay"],
        adam_beta2=OPTIMIZER["betas"][1],
        bf16=settings["precision"] == "bf16",
        torch_compile=settings["compile"],
        use_cpu=not torch.cuda.is_available(),
        report_to=[],
        save_strategy="no",
    )
    Trainer(llama(settings), arguments, train_dataset=Rows(), callbacks=[Turns()]).train()


def minimal(settings: Settings, gate: Gate) -> None:
    """The few lines that somebody would write who only wants speed: everything compiled, fused AdamW, autocast."""
    rows, batch, device = windows(settings), settings["batch_size"], "cuda" if torch.cuda.is_available() else "cpu"
    model = llama(settings).to(device)

    def loss_of(inputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        logits = model(input_ids=inputs, use_cache=False).logits
        return F.cross_entropy(logits.float().flatten(0, 1), targets.flatten())

    compiled = torch.compile(loss_of, dynamic=False)
    optimizer = torch.optim.AdamW(model.parameters(), fused=True, **OPTIMIZER)
    for step in range(10**9):
        gate()
        part = rows[torch.arange(step * batch, (step + 1) * batch) % len(rows)].to(device)
        with torch.autocast(device, torch.bfloat16, enabled=settings["precision"] == "bf16"):
            loss = compiled(part[:, :-1].contiguous(), part[:, 1:].contiguous())
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        loss.item()


def litgpt(settings: Settings, gate: Gate) -> None:
    """litgpt's pretraining, through its own entry point; it compiles the model."""
    from litgpt.args import EvalArgs, TrainArgs
    from litgpt.config import Config
    from litgpt.data import DataModule
    from litgpt.pretrain import setup
    from torch.utils.data import DataLoader, IterableDataset

    rows, batch = windows(settings), settings["batch_size"]

    class Batches(IterableDataset):
        def __init__(self, wait: Callable[[], None]) -> None:
            self.wait = wait

        def __iter__(self) -> Iterator[torch.Tensor]:
            for step in range(10**9):
                self.wait()
                yield rows[torch.arange(step * batch, (step + 1) * batch) % len(rows)]

    class Random(DataModule):
        def connect(self, *args: Any, **kwargs: Any) -> None: ...

        def train_dataloader(self) -> DataLoader:
            return DataLoader(Batches(gate), batch_size=None)

        def val_dataloader(self) -> DataLoader:
            return DataLoader(Batches(lambda: None), batch_size=None)

    config = Config(
        name="bench", block_size=settings["seq_len"], vocab_size=settings["vocab_size"],
        padded_vocab_size=settings["vocab_size"], n_layer=settings["num_layers"], n_head=settings["num_heads"],
        n_query_groups=settings["num_kv_heads"], n_embd=settings["hidden_size"], rotary_percentage=1.0,
        parallel_residual=False, bias=False, norm_class_name="RMSNorm", mlp_class_name="LLaMAMLP",
        intermediate_size=settings["intermediate_size"],
    )  # fmt: skip
    steps = {"max_tokens": 10**12, "max_norm": 1.0, "min_lr": 1e-4, "lr_warmup_steps": 10, "save_interval": None}
    setup(
        "bench",
        config,
        Path(tempfile.mkdtemp()),
        "bf16-mixed" if settings["precision"] == "bf16" else "32-true",
        data=Random(),
        train=TrainArgs(global_batch_size=batch, micro_batch_size=batch, tie_embeddings=True, **steps),
        eval=EvalArgs(interval=10**9, max_iters=1),
        optimizer={"class_path": "torch.optim.AdamW", "init_args": OPTIMIZER | {"betas": list(OPTIMIZER["betas"])}},
        devices=1,
        logger_name="csv",
    )


def products(settings: Settings, gate: Gate) -> None:
    """No loop but its limit: the matrix products of a step, each in the faster dtype, into memory that is there."""
    rows = settings["batch_size"] * settings["seq_len"]
    calls = [call for shape in shapes(settings, rows) for call in _fastest(shape, settings["precision"])]
    while True:
        gate()
        for call in calls:
            call()


def shapes(settings: Settings, rows: int) -> list[tuple[int, int, int, int]]:
    """(batch, m, k, n) of every product of a forward; each has two more of its size in the backward."""
    hidden, heads = settings["hidden_size"], settings["num_heads"]
    size = hidden // heads
    kv, wide = settings["num_kv_heads"] * size, settings["intermediate_size"]
    pairs = [(hidden, hidden), (hidden, kv), (hidden, kv), (hidden, hidden)]
    pairs += [(hidden, wide), (hidden, wide), (wide, hidden)]
    layer = [(1, rows, inner, outer) for inner, outer in pairs]
    many, length = settings["batch_size"] * heads, settings["seq_len"]
    layer += [(many, length, size, length), (many, length, length, size)]
    return layer * settings["num_layers"] + [(1, rows, hidden, settings["vocab_size"])]


_known: dict[tuple[int, int, int, int], list[Callable[[], Any]]] = {}


def _fastest(shape: tuple[int, int, int, int], precision: str) -> list[Callable[[], Any]]:
    """The product of a shape and the two of its backward, each in fp32 or, if that is faster and allowed, bf16."""
    if shape in _known:
        return _known[shape]
    chosen = []
    for which in range(3):
        dtypes = (torch.float32, torch.bfloat16) if precision == "bf16" else (torch.float32,)
        chosen.append(min((_product(shape, dtype)[which] for dtype in dtypes), key=_seconds))
    return _known.setdefault(shape, chosen)


def _product(shape: tuple[int, int, int, int], dtype: torch.dtype) -> list[Callable[[], Any]]:
    batch, m, k, n = shape
    x, w, out = torch.randn(batch, m, k), torch.randn(batch, n, k), torch.randn(batch, m, n)
    x, w, out = (tensor.to(dtype) if batch > 1 else tensor[0].to(dtype) for tensor in (x, w, out))
    by_x, by_w = torch.empty_like(x), torch.empty_like(w)
    multiply = torch.bmm if batch > 1 else torch.mm
    return [
        lambda: multiply(x, w.mT, out=out),
        lambda: multiply(out, w, out=by_x),
        lambda: multiply(out.mT, x, out=by_w),
    ]


def _seconds(call: Callable[[], Any]) -> float:
    def once() -> float:
        begun = time.process_time()
        call()
        return time.process_time() - begun

    return sorted(once() for _ in range(5))[1]


LOOPS = {"ours": ours, "trainer": trainer, "minimal": minimal, "litgpt": litgpt, "products": products}

if __name__ == "__main__":
    chosen = json.loads(sys.argv[2])
    torch.set_num_threads(chosen["threads"])
    LOOPS[sys.argv[1]](chosen, Gate())
