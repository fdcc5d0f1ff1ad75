"""DPO beside TRL's trainer: the same start, pairs, batches and optimizer give the same losses, step for step."""

from pathlib import Path

import numpy as np
import pytest
from preferring import planned
from tiny_engine import job_of, losses_of, quiet, run_all, runs_of

from indelible.data.ledger import build_ledger
from indelible.data.store import TokenStore
from indelible.study.identity import without_tags
from indelible.study.stage_spec import StageSpec
from indelible.train.stage import run_stage

trl = pytest.importorskip("trl", reason="TRL, a rival, is not installed; it is in no extra of this package")

STEPS, BATCH, LR, BETA = 20, 4, 3e-3, 0.3
STAGE = {
    "objective": {"kind": "dpo", "beta": BETA}, "tokens": 64 * 40, "max_tokens": 64 * BATCH * STEPS, "lr": LR,
    "schedule": "constant", "weight_decay": 0.0, "global_batch_size": BATCH, "max_grad_norm": 1.0,
}  # fmt: skip
TOLERANCE = 1e-5  # nats


def pairs_in_order(out: Path, spec: StageSpec) -> list[dict[str, list[int]]]:
    """The pairs of a stage in the order of its ledger, as TRL's collator takes them."""
    store = TokenStore.open(out / "tokens" / spec.data.main.store)
    ledger = build_ledger(spec, {spec.data.main.store: store.num_windows("train", spec.seq_len)})
    batch, rows = store.pairs("train").read(ledger.window, spec.seq_len), []
    for pair in range(len(batch)):
        prompt = int(np.flatnonzero(batch.valid[2 * pair])[0]) + 1
        ends = [prompt + int(batch.valid[2 * pair + side].sum()) for side in (0, 1)]
        better, worse = (batch.tokens[2 * pair + side, prompt:end].tolist() for side, end in enumerate(ends))
        shown = batch.tokens[2 * pair, :prompt].tolist()
        rows.append({"prompt_ids": shown, "chosen_ids": better, "rejected_ids": worse})
    return rows


def losses_of_trl(start: Path, tokenizer: Path, rows: list[dict[str, list[int]]], folder: Path) -> list[float]:
    """The losses that TRL's trainer logs, each before its update."""
    from datasets import Dataset
    from torch.utils.data import SequentialSampler
    from transformers import AutoModelForCausalLM, AutoTokenizer

    class InOrder(trl.DPOTrainer):
        """Takes token ids as they are, batch after batch in their order."""

        def _prepare_dataset(self, dataset, *args, **kwargs):
            return dataset

        def _get_train_sampler(self, *args, **kwargs):
            return SequentialSampler(self.train_dataset)

    words = AutoTokenizer.from_pretrained(tokenizer)
    words.pad_token = words.eos_token
    settings = trl.DPOConfig(
        output_dir=str(folder), per_device_train_batch_size=BATCH, max_steps=STEPS, learning_rate=LR, beta=BETA,
        lr_scheduler_type="constant", adam_beta1=0.9, adam_beta2=0.95, adam_epsilon=1e-8, weight_decay=0.0,
        max_grad_norm=1.0, logging_steps=1, report_to=[], save_strategy="no", bf16=False, use_cpu=True, max_length=None,
        gradient_checkpointing=False, disable_tqdm=True,
    )  # fmt: skip
    model = AutoModelForCausalLM.from_pretrained(start)
    trainer = InOrder(model, args=settings, train_dataset=Dataset.from_list(rows), processing_class=words)
    trainer.train()
    return [line["loss"] for line in trainer.state.log_history if "loss" in line]


def test_twenty_steps_have_the_losses_of_trl(tmp_path: Path, record_property):
    out = planned(tmp_path / "out", stage=STAGE)
    run_all(out, until="pretrain")
    run = runs_of(out, "prefer")[0]
    spec = StageSpec.model_validate(without_tags(run.spec))
    run_stage(job_of(out, run), progress=quiet, guard=lambda: None)
    ours = list(losses_of(out / "runs" / run.id).values())
    start = out / "runs" / str(run.parent) / "checkpoint"
    theirs = losses_of_trl(start, out / "tokens" / spec.tokenizer, pairs_in_order(out, spec), tmp_path / "trl")
    assert len(ours) == len(theirs) == STEPS
    assert theirs[-1] < 0.5 * theirs[0], "it learns"
    largest = float(np.abs(np.array(ours) - np.array(theirs)).max())
    record_property("largest_difference_nats", largest)
    print(f"\nlargest difference of {STEPS} losses: {largest:.2e} nats (first {ours[0]:.6f}, last {ours[-1]:.6f})")
    assert largest < TOLERANCE
