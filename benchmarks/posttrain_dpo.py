"""Preference stages beside TRL's DPOTrainer: the same model, the same pairs in the same batches, the same optimizer.

TRL (``pip install trl``, the extra `bench`) is needed for its half alone.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import posttrain_sft as sft
import torch

BETA = 0.3


def write_inputs(folder: Path, pairs: int, words: int) -> None:
    """A tokenizer with a chat template, and pairs of messages: most are short, some have up to ``words`` words."""
    source = np.random.default_rng(0)

    def say(role: str, first: str) -> list[dict[str, str]]:
        size = int(words * source.beta(1, 3)) + 2
        return [{"role": role, "content": first + " " + " ".join(source.choice(sft.WORDS, size))}]

    rows = [
        {
            "prompt": say("user", f"question {number}"),
            "chosen": say("assistant", "the river"),
            "rejected": say("assistant", "a town"),
        }
        for number in range(pairs)
    ]
    (folder / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    sft.write_tokenizer(folder / "tok")


def study(folder: Path, settings: dict[str, Any]) -> dict[str, Any]:
    """One preference stage of a random model, which is its own reference."""
    base = sft.study(folder, "documents", settings)
    columns = {name: name.removesuffix("_column") for name in ("prompt_column", "chosen_column", "rejected_column")}
    pairs = {"kind": "local", "path": str(folder / "pairs.jsonl"), "template": "chat", **columns}
    stage = base["stages"]["pretrain"]
    sequences = 2 * settings["seq_len"]
    stage |= {
        "corpus": "pairs",
        "objective": {"kind": "dpo", "beta": BETA},
        "tokens": settings["rows"] * sequences,
        "max_tokens": settings["steps"] * settings["batch_size"] * sequences,
        "global_batch_size": settings["batch_size"],
    }
    return {**base, "name": "dpo", "corpora": {"pairs": pairs}, "stages": {"pretrain": stage}}


def loop_of(folder: Path, settings: dict[str, Any]) -> Any:
    """This project's loop before its first step."""
    return sft.loop_of_study(study(folder, settings), folder / "out")


def rows_of(loop: Any) -> Iterator[dict[str, list[int]]]:
    """The pairs of a loop in the order that it trains on them, as TRL's collator takes them."""
    preference = loop.context.preference
    batch = preference.table.read(loop.ledger.window.astype(np.int64), preference.seq_len)
    for pair in range(len(batch)):
        better, worse = batch.valid[2 * pair], batch.valid[2 * pair + 1]
        prompt = int(np.flatnonzero(better)[0]) + 1
        tokens = [batch.tokens[2 * pair + side] for side in (0, 1)]
        yield {
            "prompt_ids": tokens[0][:prompt].tolist(),
            "chosen_ids": tokens[0][prompt : prompt + int(better.sum())].tolist(),
            "rejected_ids": tokens[1][prompt : prompt + int(worse.sum())].tolist(),
        }


def trl_trainer(loop: Any, folder: Path, settings: dict[str, Any], callback: Any, *, precompute: bool) -> Any:
    """TRL's trainer over the same pairs in the same order, from the same weights.

    ``precompute``: the reference's log-probabilities are computed once, before the first step; else a second model
    computes them in every step, which is TRL's default.
    """
    from datasets import Dataset
    from transformers import AutoTokenizer, LlamaForCausalLM
    from trl import DPOConfig, DPOTrainer

    class InOrder(DPOTrainer):
        """Takes token ids as they are, batch after batch in their order."""

        def _prepare_dataset(self, dataset: Any, *args: Any, **kwargs: Any) -> Any:
            return dataset

        def _get_train_sampler(self, *args: Any, **kwargs: Any) -> torch.utils.data.Sampler:
            return torch.utils.data.SequentialSampler(self.train_dataset)

    model = LlamaForCausalLM(loop.program.config)
    model.load_state_dict(loop.program.model.state_dict())
    model.save_pretrained(folder / "start")  # TRL loads its reference from where the model came from
    tokenizer = AutoTokenizer.from_pretrained(folder / "tok", pad_token="<|endoftext|>")
    config = DPOConfig(
        **sft.trl_arguments(loop.training, folder, settings),
        beta=BETA,
        precompute_ref_log_probs=precompute,
        max_length=None,
    )
    start = LlamaForCausalLM.from_pretrained(folder / "start")
    rows = Dataset.from_list(list(rows_of(loop)))
    return InOrder(model=start, args=config, train_dataset=rows, processing_class=tokenizer, callbacks=[callback])


def losses_of_trl(
    loop: Any, folder: Path, settings: dict[str, Any], *, precompute: bool = False
) -> tuple[list[float], list[float]]:
    """The loss of every step, nats a pair, and its seconds."""
    return sft.watched_losses(lambda watch: trl_trainer(loop, folder, settings, watch, precompute=precompute))


TINY: dict[str, Any] = {**sft.TINY, "rows": 60, "seq_len": 96, "lr": 3e-3}


def parity(folder: Path) -> tuple[list[float], list[float]]:
    """Twenty steps of a tiny random model in fp32: our losses, and TRL's."""
    torch.set_num_threads(1)
    write_inputs(folder, 100, 8)
    loop = loop_of(folder, TINY)
    theirs, _ = losses_of_trl(loop, folder, TINY)
    ours, _ = sft.losses_of_ours(loop)
    return ours, theirs
