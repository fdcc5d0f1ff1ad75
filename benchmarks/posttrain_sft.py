"""Supervised fine-tuning beside TRL's SFTTrainer: the same model, the same batches, the same optimizer.

TRL (``pip install trl``, the extra `bench`) is needed for its half alone.
"""

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

PACKINGS = ("documents", "best_fit")  # TRL: rows padded on the right, and its padding-free packing
WORDS = ("the", "river", "runs", "past", "a", "town", "where", "people", "ask", "short", "questions", "and", "answer")
TEMPLATE = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


def write_inputs(folder: Path, conversations: int, words: int) -> None:
    """A tokenizer with a chat template, and conversations of made-up sentences of up to ``words`` words."""
    source = np.random.default_rng(0)
    talks = [
        [
            {"role": role, "content": " ".join(source.choice(WORDS, source.integers(1, words)))}
            for _ in range(source.integers(1, 4))
            for role in ("user", "assistant")
        ]
        for _ in range(conversations)
    ]
    (folder / "chat.jsonl").write_text("".join(json.dumps({"messages": talk}) + "\n" for talk in talks))
    write_tokenizer(folder / "tok")


def write_tokenizer(folder: Path) -> None:
    """A byte-level tokenizer of 512 ids with a chat template."""
    from tokenizers import AddedToken, Tokenizer, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    special = [AddedToken(mark, special=True) for mark in ("<|endoftext|>", "<|im_start|>", "<|im_end|>")]
    trainer = trainers.BpeTrainer(
        vocab_size=512, special_tokens=special, initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator([" ".join(WORDS)] * 4, trainer)
    folder.mkdir(exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "chat_template.jinja").write_text(TEMPLATE)
    config = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "<|endoftext|>"}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))


def study(folder: Path, packing: str, settings: dict[str, Any]) -> dict[str, Any]:
    """One stage on the conversations, trained on their last answers alone."""
    rows = settings["steps"] * settings["batch_size"]
    corpus = {"kind": "local", "path": str(folder / "chat.jsonl"), "messages_column": "messages"}
    return {
        "name": "sft",
        "scale": "pico",
        "precision": "fp32",
        "seq_len": settings["seq_len"],
        "tokenizer": {"kind": "hf", "path": str(folder / "tok")},
        "corpora": {"chat": {**corpus, "loss_on": "completion", "packing": packing, "too_long": "drop"}},
        "data": {"leaks": {"near": False}},
        "model": settings["model"],
        "stages": {
            "pretrain": {
                "corpus": "chat",
                "tokens": settings["rows"] * settings["seq_len"],
                "max_tokens": rows * settings["seq_len"],
                "global_batch_size": settings["batch_size"],
                "lr": settings["lr"],
                "schedule": "constant",
                "warmup_steps": 0,
            }
        },
        "execution": {"compile": settings["compile"], "threads": settings["threads"], "device": "cpu"},
        "seeds": [0],
    }


def loop_of(folder: Path, packing: str, settings: dict[str, Any]) -> Any:
    """This project's loop before its first step, on the conversations."""
    return loop_of_study(study(folder, packing, settings), folder / packing)


def loop_of_study(raw: dict[str, Any], out: Path) -> Any:
    """The loop of the first stage before its first step, from a study file as users have it."""
    from indelible import records
    from indelible.study.load import resolve_study
    from indelible.study.stage_spec import StageSpec
    from indelible.train import stage as engine
    from indelible.train.device import choose_device
    from indelible.train.distributed import World
    from indelible.train.job import StageJob
    from indelible.train.loop import Loop
    from indelible.train.start import starting_program
    from indelible.workflow.planning import plan_study
    from indelible.workflow.preparing import write_plan

    planned = plan_study(resolve_study(raw))
    plan = write_plan(planned, out)
    run = plan.stage_runs[0]
    run_dir = records.run_dir(out, run.id)
    run_dir.mkdir(parents=True, exist_ok=True)
    job = StageJob(
        run_dir=run_dir, run_id=run.id, stage=run.stage, spec=run.spec, start_dir=None, tokens_dir=out / "tokens",
        execution=plan.execution,
    )  # fmt: skip
    spec: StageSpec = planned.graph.runs[run.id].spec
    inputs = engine.open_inputs(spec, job)
    program = starting_program(job, spec, inputs.tokenizer_dir, choose_device("fp32", job.execution))
    loop = Loop(engine._context(job, inputs, program, lambda _: None, lambda: None, World()))
    program.model.train()
    return loop


def rows_of(loop: Any) -> Iterator[dict[str, list[int]]]:
    """The rows of a loop, in the order that it trains on them, as TRL reads them."""
    from indelible.data.loader import read_batch

    batch = read_batch(loop.ledger, loop.context.stores, slice(None))
    for number, (tokens, valid) in enumerate(zip(batch.tokens, batch.valid, strict=True)):
        store = loop.context.stores[loop.ledger.stores[0]]
        rules = loop.ledger.rules_of(0)
        plan = store.row_plan("train", loop.ledger.seq_len, rules.packing, rules.too_long)
        row = int(loop.ledger.window[number])
        sizes = plan.size[plan.first[row] : plan.first[row + 1]]
        end = int(sizes.sum())
        labels = np.where(np.concatenate([[False], valid]), tokens, -100)
        found = {"input_ids": tokens[:end].tolist(), "labels": labels[:end].tolist()}
        yield {**found, "seq_lengths": sizes.tolist()} if rules.packing == "best_fit" else found


def trl_arguments(training: Any, folder: Path, settings: dict[str, Any]) -> dict[str, Any]:
    """What both of TRL's trainers are told: the optimizer of the stage, fp32 on the CPU, a loss for every step."""
    return {
        "output_dir": str(folder / "trl"),
        "per_device_train_batch_size": settings["batch_size"],
        "max_steps": settings["steps"],
        "learning_rate": training.lr,
        "lr_scheduler_type": "constant",
        "weight_decay": training.weight_decay,
        "adam_beta1": training.betas[0],
        "adam_beta2": training.betas[1],
        "adam_epsilon": training.eps,
        "max_grad_norm": training.max_grad_norm,
        "bf16": False,
        "gradient_checkpointing": False,
        "use_cpu": True,
        "logging_steps": 1,
        "logging_nan_inf_filter": False,
        "report_to": [],
        "save_strategy": "no",
        "disable_tqdm": True,
    }


def trl_trainer(loop: Any, folder: Path, settings: dict[str, Any], callback: Any) -> Any:
    """TRL's trainer over the same rows in the same order, from the same weights."""
    from datasets import Dataset
    from transformers import AutoTokenizer, LlamaForCausalLM
    from trl import SFTConfig, SFTTrainer

    class InOrder(SFTTrainer):
        def _get_train_sampler(self, *args: Any, **kwargs: Any) -> torch.utils.data.Sampler:
            return torch.utils.data.SequentialSampler(self.train_dataset)

    model = LlamaForCausalLM(loop.program.config)
    model.load_state_dict(loop.program.model.state_dict())
    rows = list(rows_of(loop))
    is_packed = "seq_lengths" in rows[0]
    config = SFTConfig(
        **trl_arguments(loop.training, folder, settings),
        packing=is_packed,
        packing_strategy="bfd",
        max_length=settings["seq_len"] + 1,
        dataset_kwargs={"skip_prepare_dataset": True},
        dataloader_drop_last=False,
    )
    tokenizer = AutoTokenizer.from_pretrained(folder / "tok", pad_token="<|endoftext|>")
    return InOrder(
        model=model, args=config, train_dataset=Dataset.from_list(rows), processing_class=tokenizer,
        callbacks=[callback],
    )  # fmt: skip


def losses_of_ours(loop: Any) -> tuple[list[float], list[float]]:
    """The loss of every step, nats per trained token, and its seconds."""
    losses, seconds = [], []
    for _ in range(loop.total_steps):
        begun = time.perf_counter()
        assert loop._update(), "diverged"
        seconds.append(time.perf_counter() - begun)
        losses.append(loop._latest["loss"])
    return losses, seconds


def losses_of_trl(loop: Any, folder: Path, settings: dict[str, Any]) -> tuple[list[float], list[float]]:
    """The same of TRL: the time of a step is that between its callbacks, without reading the batch."""
    return watched_losses(lambda watch: trl_trainer(loop, folder, settings, watch))


def watched_losses(make_trainer: Callable[[Any], Any]) -> tuple[list[float], list[float]]:
    """Trains with a trainer of TRL, made with a callback of ours; the loss of every step, and its seconds."""
    from transformers import PrinterCallback, TrainerCallback

    seconds: list[float] = []

    class Watch(TrainerCallback):
        begun = 0.0

        def on_step_begin(self, *args: Any, **kwargs: Any) -> None:
            self.begun = time.perf_counter()

        def on_step_end(self, *args: Any, **kwargs: Any) -> None:
            seconds.append(time.perf_counter() - self.begun)

    trainer = make_trainer(Watch())
    trainer.remove_callback(PrinterCallback)
    losses: list[float] = []
    plain = trainer.compute_loss  # its log rounds; this is the number that it takes the gradient of

    def noting(*args: Any, **kwargs: Any) -> Any:
        found = plain(*args, **kwargs)
        losses.append((found[0] if isinstance(found, tuple) else found).item())
        return found

    trainer.compute_loss = noting
    trainer.train()
    return losses, seconds


TINY: dict[str, Any] = {
    "steps": 20,
    "batch_size": 4,
    "rows": 60,
    "seq_len": 96,
    "lr": 3e-3,
    "compile": "off",
    "threads": 1,
    "model": {"hidden_size": 32, "num_layers": 2, "num_heads": 4, "num_kv_heads": 2, "intermediate_size": 64},
}


def parity(folder: Path, packing: str) -> tuple[list[float], list[float]]:
    """Twenty steps of a tiny random model in fp32: our losses, and TRL's."""
    torch.set_num_threads(1)
    write_inputs(folder, 400, 12)
    loop = loop_of(folder, packing, TINY)
    theirs, _ = losses_of_trl(loop, folder, TINY)
    ours, _ = losses_of_ours(loop)
    return ours, theirs
