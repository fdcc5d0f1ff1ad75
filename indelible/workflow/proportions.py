"""Proportions that make a study say little though it runs: each with what was found and what to do about it."""

import math
from collections.abc import Iterable, Iterator
from pathlib import Path

from indelible.data.ledger import corpus_of
from indelible.data.loader import split_heldout
from indelible.data.row_reader import num_rows
from indelible.data.store import TokenStore
from indelible.study.arm import ArmSpec
from indelible.study.graph import Graph
from indelible.study.load import Study
from indelible.study.training import StageSettings

MANY_PASSES = 2.0  # of a stage's own data in one optimizer step, or before the first evaluation that may stop it
FEW_STEPS = 10  # optimizer steps of a stage: fewer than a warmup and a decay want
FEW_WINDOWS = 16  # reported held-out windows


def proportions(study: Study) -> list[str]:
    """What is out of proportion in some arm of a study, once each, in the order of the stages."""
    return list(dict.fromkeys(line for arm in study.arms for line in _of_arm(arm)))


def heldout_notes(graph: Graph, tokens_dir: Path) -> list[str]:
    """Held-out splits that hold far fewer windows than are asked for; only the tokens tell, so none before they exist.

    Args:
        graph: of the study.
        tokens_dir: with its token stores; those that are not there yet are passed over.
    """
    return list(dict.fromkeys(_small_splits(graph, tokens_dir)))


def _small_splits(graph: Graph, tokens_dir: Path) -> Iterator[str]:
    for kind in graph.heldout:
        if not (tokens_dir / kind.store / "manifest.json").is_file():
            continue
        available = num_rows(TokenStore.open(tokens_dir / kind.store), "heldout", kind.seq_len, kind.rules)
        if available < 2:
            continue  # refused where the study is run
        corpus = corpus_of(kind.store)
        split = split_heldout(
            corpus, available, stop_windows=kind.stop_windows, windows=kind.windows, seq_len=kind.seq_len
        )
        if 2 * split.windows < kind.windows:
            yield (
                f"{corpus}: its held-out split has {split.windows:,} of the {kind.windows:,} windows asked to be "
                f"reported ({split.windows * kind.seq_len:,} tokens), which leaves its losses uncertain; raise "
                "data.split.heldout_fraction, or give it more text."
            )


def _of_arm(arm: ArmSpec) -> Iterable[str]:
    for name, stage in arm.chain.items():
        yield from _of_stage(name, stage, arm.seq_len * stage.objective.sequences)
    if arm.evaluation.windows < FEW_WINDOWS:
        yield (
            f"evaluation.windows = {arm.evaluation.windows}: so few windows ({arm.evaluation.windows * arm.seq_len:,} "
            "tokens) leave every loss uncertain; ask for more."
        )


def _of_stage(name: str, stage: StageSettings, row_tokens: int) -> Iterable[str]:
    """What is out of proportion in a stage whose rows, windows or pairs, are of so many tokens."""
    step, rows = stage.global_batch_size * row_tokens, "pairs" if stage.objective.needs_pairs else "windows"
    passes = step / stage.tokens
    budget = stage.max_tokens or stage.tokens
    steps = budget / step
    if passes > MANY_PASSES:
        fitting = max(1, stage.tokens // (10 * row_tokens))
        yield (
            f"{name}: one step of {stage.global_batch_size} {rows} ({step:,} tokens) is {passes:.1f} passes over its "
            f"{stage.tokens:,} tokens; a global_batch_size of {fitting} makes about ten steps a pass."
        )
    elif steps < FEW_STEPS:
        yield (
            f"{name}: {math.ceil(steps)} step(s) in all ({budget:,} tokens, {step:,} a step); give it more tokens, or "
            f"a global_batch_size of at most {max(1, budget // (FEW_STEPS * row_tokens))}."
        )
    if stage.patience is not None and stage.eval_interval is not None and not stage.not_shown_in:
        first = stage.eval_interval * step / stage.tokens
        if first > MANY_PASSES and first > passes:
            interval = max(1, stage.tokens // step)
            yield (
                f"{name}: the first evaluation that may stop it comes after {first:.0f} passes over its data; an "
                f"eval_interval of {interval} looks about once a pass."
            )
