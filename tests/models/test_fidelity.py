"""Any causal language model in, the same one out: held against plain transformers and a plain loop of PyTorch.

The table that these tests fill stands in docs/models.md. It is compared here with what the tests found;
INDELIBLE_WRITE_TABLES=1 writes it anew.
"""

import math
import os
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from model_zoo import LAYOUTS, MODELS, VOCABULARY, zoo_config, zoo_folder, zoo_model
from torch.utils.flop_counter import FlopCounterMode
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, GenerationConfig

from indelible.data.ledger import build_ledger
from indelible.data.loader import Batch
from indelible.objectives import NextToken, NoGuard
from indelible.study import architecture
from indelible.study.adapt import FullAdapt
from indelible.study.execution import ExecutionSpec
from indelible.study.stage_spec import CorpusUse, StageData, StageSpec
from indelible.study.training import Optimization
from indelible.train.checkpoint import save_checkpoint
from indelible.train.context import StageContext
from indelible.train.device import choose_device
from indelible.train.distributed import World
from indelible.train.evaluate import target_losses
from indelible.train.loop import Loop
from indelible.train.program import Program, forget_programs
from indelible.train.start import given_program

SEQ_LEN, STEPS, BATCH = 24, 10, 4
CLOSE = 1e-5  # nats per token, and units of a weight
TABLE = Path(__file__).parents[2] / "docs" / "models.md"
BEGIN, END = "<!-- fidelity: begin -->\n", "<!-- fidelity: end -->"
_found: dict[str, dict[str, str]] = {}  # by model: column to cell


class Rows:
    """Windows in memory, in place of a token store."""

    def __init__(self, count: int) -> None:
        drawn = np.random.Generator(np.random.PCG64(3)).random((count, SEQ_LEN + 1))
        self.tokens = (drawn**3 * VOCABULARY).astype(np.int64)  # some tokens are frequent: there is something to learn

    def read(self, split, windows, seq_len):
        return self.tokens[windows], None


def program_of(folder: Path) -> Program:
    """The program of a given checkpoint, as a stage starts from it."""
    device = choose_device("fp32", ExecutionSpec(device="cpu", compile="off", threads=1))
    return given_program(folder, folder, SEQ_LEN, device)


def plain_model(folder: Path) -> torch.nn.Module:
    """The same folder as anybody loads it."""
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()


def plain_losses(model: torch.nn.Module, tokens: np.ndarray) -> torch.Tensor:
    """The loss of every target, (N, T)."""
    ids = torch.from_numpy(tokens)
    logits = model(input_ids=ids[:, :-1], use_cache=False).logits
    return F.cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten(), reduction="none").view(len(ids), -1)


def note(name: str, column: str, cell: str) -> None:
    """Keeps what a test found for the table; the worst of several layouts is what the last one may add to."""
    _found.setdefault(name, {})[column] = cell


@pytest.fixture(autouse=True)
def _programs_are_forgotten():
    yield
    forget_programs()


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("name", MODELS)
def test_evaluation_is_that_of_plain_transformers(name, layout, tmp_path):
    folder = zoo_folder(name, layout, tmp_path)
    assert len(list(folder.glob("*.safetensors"))) > 1 or "shards" not in layout
    program, tokens = program_of(folder), Rows(6).tokens
    ours = target_losses(program, Batch(tokens, np.ones((6, SEQ_LEN), np.bool_)))
    with torch.no_grad():
        theirs = plain_losses(plain_model(folder), tokens)
    assert 1 < theirs.mean() < 20
    assert np.abs(ours - theirs.numpy()).max() < CLOSE
    note(name, "evaluation", "equal")


@pytest.mark.parametrize("name", MODELS)
def test_ten_steps_are_those_of_a_plain_loop(name, tmp_path):
    folder = zoo_folder(name, "one file", tmp_path)
    loop = loop_of(program_of(folder), tmp_path)
    model = plain_model(folder)  # in evaluation mode: dropout is a setting of the stage, not of the checkpoint
    losses = plain_training(model, loop)
    for expected in losses:
        assert loop._update()
        assert loop._latest["loss"] == pytest.approx(expected, abs=CLOSE)
    ours = loop.program.trainable()
    assert abs(losses[0] - losses[-1]) > 1e-3, "the model learned"
    for key, weight in model.named_parameters():
        assert (ours[key] - weight).abs().max() < CLOSE, key
    note(name, "ten steps", "equal")


def loop_of(program: Program, folder: Path) -> Loop:
    """The product's loop over ten batches of random tokens."""
    training = Optimization(lr=1e-3, min_lr=1e-4, warmup_steps=2, global_batch_size=BATCH, eps=1e-6)
    use = CorpusUse(purpose="main", store="rows-0", first_window=0, windows=STEPS * BATCH)
    spec = StageSpec(
        stage="pretrain",
        code_version=1,
        seed=0,
        seq_len=SEQ_LEN,
        precision="fp32",
        tokenizer="tokenizer-0",
        model=None,
        init=None,
        parent=None,
        loss_on="all",
        data=StageData(main=use, total_windows=STEPS * BATCH, order="permutation"),
        training=training,
        objective=NextToken(),
        guard=NoGuard(),
        adapt=FullAdapt(),
        stop=None,
    )
    count = STEPS * BATCH
    context = StageContext(
        spec=spec,
        program=program,
        guard=None,
        ledger=build_ledger(spec, {"rows-0": count}),
        stores={"rows-0": Rows(count)},
        stop_rule=None,
        watcher=None,
        run_dir=folder,
        progress=lambda now: None,
        fence=lambda: None,
        resume_seconds=1e9,
        world=World(),
        identity={},
    )
    loop = Loop(context)
    program.model.train()
    return loop


def plain_training(model: torch.nn.Module, loop: Loop) -> list[float]:
    """Ten steps as a textbook writes them; returns the loss of each."""
    training, rows = loop.training, loop.context.stores["rows-0"].tokens
    decayed = [weight for weight in model.parameters() if weight.dim() >= 2]
    others = [weight for weight in model.parameters() if weight.dim() < 2]
    groups = [{"params": decayed, "weight_decay": 0.1}, {"params": others, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=1.0, betas=(0.9, 0.95), eps=training.eps)
    losses = []
    for step in range(STEPS):
        if step < 2:
            lr = 1e-3 * (step + 1) / 2
        else:
            lr = 1e-4 + 0.5 * 9e-4 * (1 + math.cos(math.pi * (step - 2) / (STEPS - 2)))
        for group in optimizer.param_groups:
            group["lr"] = lr
        loss = plain_losses(model, rows[loop.ledger.window[step * BATCH : (step + 1) * BATCH].astype(int)]).mean()
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        losses.append(loss.item())
    return losses


@pytest.mark.parametrize("layout", ["one file", "bf16 shards"])
@pytest.mark.parametrize("name", MODELS)
def test_the_checkpoint_that_is_written_is_the_same_model(name, layout, tmp_path):
    given = zoo_folder(name, layout, tmp_path / "given")
    program, written = program_of(given), tmp_path / "written"
    save_checkpoint(written, program.all_weights(), program.config, given, source=given)
    before, after, ids = plain_model(given), plain_model(written), torch.from_numpy(Rows(2).tokens)
    with torch.no_grad():
        assert torch.equal(before(input_ids=ids).logits, after(input_ids=ids).logits)
    assert type(after) is type(before)
    assert AutoConfig.from_pretrained(written).architectures == [type(before).__name__]
    generation = GenerationConfig.from_pretrained(written)
    assert (generation.temperature, generation.eos_token_id) == (0.7, [0, 5])
    tokenizer, theirs = AutoTokenizer.from_pretrained(written), AutoTokenizer.from_pretrained(given)
    assert tokenizer.convert_tokens_to_ids("<|mark|>") == VOCABULARY - 1
    assert tokenizer("w3 <|mark|> w4").input_ids == theirs("w3 <|mark|> w4").input_ids
    assert tokenizer.apply_chat_template([{"role": "user", "content": "w7"}], tokenize=False) == "w7"
    note(name, "written and reloaded", "equal")


@pytest.mark.parametrize("name", MODELS)
def test_size_and_flops_are_counted_exactly(name):
    model = zoo_model(name)
    counted = architecture.architecture_of(model.config.to_dict())
    assert counted.is_exact
    assert counted.num_parameters == sum(weight.numel() for weight in model.parameters())
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(input_ids=torch.zeros(2, 16, dtype=torch.long), use_cache=False)
    rotary = sum(
        sum(flops.values())  # the angles of the positions, which are no product with a weight
        for module, flops in counter.get_flop_counts().items()
        if module.rpartition(".")[2].startswith("rotary_emb")
    )
    assert counted.forward_flops(16) * 2 * 16 == counter.get_total_flops() - rotary
    note(name, "parameters, FLOPs", "exact")


@pytest.mark.parametrize("kind", architecture.EXACT)
def test_a_config_that_is_silent_means_what_transformers_takes(kind):
    config = AutoConfig.for_model(kind).to_dict()
    bare = {
        key: value
        for key, value in config.items()
        if key not in ("tie_word_embeddings", "head_dim", "num_key_value_heads", "attention_bias", "mlp_bias")
    }
    assert architecture.architecture_of(bare) == architecture.architecture_of(config)


def test_another_family_is_an_estimate():
    config = AutoConfig.for_model("stablelm", vocab_size=64, hidden_size=32, num_hidden_layers=2).to_dict()
    assert not architecture.architecture_of(config).is_exact


def test_the_table_in_the_docs_is_what_was_found(request):
    columns = ("evaluation", "ten steps", "written and reloaded", "parameters, FLOPs")
    if any(set(_found.get(name, {})) != set(columns) for name in MODELS):
        pytest.skip("only part of the matrix was run")
    lines = [f"| model | class | {' | '.join(columns)} |", "|---|---|" + "---|" * len(columns)]
    for name in MODELS:
        kind = type(AutoModelForCausalLM.from_config(zoo_config(name))).__name__
        lines.append(f"| {name} | {kind} | {' | '.join(_found[name][column] for column in columns)} |")
    table = "\n".join(lines) + "\n"
    text = TABLE.read_text(encoding="utf-8")
    head, _, rest = text.partition(BEGIN)
    held, _, tail = rest.partition(END)
    if os.environ.get("INDELIBLE_WRITE_TABLES"):
        TABLE.write_text(f"{head}{BEGIN}{table}{END}{tail}", encoding="utf-8")
        return
    assert held == table, "docs/models.md: run these tests with INDELIBLE_WRITE_TABLES=1"
