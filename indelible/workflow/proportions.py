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
STEPS_A_PASS = 10  # of the batch that is proposed
MANY_IN_ALL = 500  # passes over a stage's own data that its cap allows: it overfits long before, and is priced at all
FITTING_CAP = 50  # passes of the cap that is proposed: the paper's is 7, those of the small scales 20 and 30
LARGE_EXPOSURE = 0.1  # of pretraining's own tokens: more of D_post than that is no small part of it any more
_AT_THE_TOP = ("pretrain", "posttrain", "finetune")  # stages that a study file may name without `stages`


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
        where = _key(name, arm)
        yield from _of_stage(name, where, stage, arm.seq_len * stage.objective.sequences)
        yield from _large_exposure(name, where, stage, arm)
    if arm.evaluation.windows < FEW_WINDOWS:
        yield (
            f"evaluation.windows = {arm.evaluation.windows}: so few windows ({arm.evaluation.windows * arm.seq_len:,} "
            "tokens) leave every loss uncertain; ask for more."
        )


def _of_stage(name: str, where: str, stage: StageSettings, row_tokens: int) -> Iterable[str]:
    """What is out of proportion in a stage whose rows, windows or pairs, are of so many tokens.

    The fixes go together: each is right once those before it are followed.
    """
    step, rows = stage.global_batch_size * row_tokens, "pairs" if stage.objective.needs_pairs else "windows"
    passes = step / stage.tokens
    budget = stage.max_tokens or stage.tokens
    steps, batch = budget / step, stage.global_batch_size
    if passes > MANY_PASSES:
        batch = max(1, stage.tokens // (STEPS_A_PASS * row_tokens))
        count = max(1, stage.tokens // (batch * row_tokens))
        pace = "about ten steps a pass" if count >= STEPS_A_PASS else f"{count} step(s) a pass"
        yield (
            f"{name}: one step of {stage.global_batch_size} {rows} ({step:,} tokens) is {passes:.1f} passes over its "
            f"{stage.tokens:,} tokens; {_setting(where, 'global_batch_size', batch)} makes {pace}."
        )
    elif steps < FEW_STEPS:
        fitting = max(1, budget // (FEW_STEPS * row_tokens))
        yield (
            f"{name}: {math.ceil(steps)} step(s) in all ({budget:,} tokens, {step:,} a step); give it more tokens, or "
            f"a smaller batch, {_setting(where, 'global_batch_size', fitting)} at most."
        )
    yield from _late_looks(name, where, stage, step, batch * row_tokens)
    if budget > MANY_IN_ALL * stage.tokens:
        yield (
            f"{name}: its cap of {budget:,} tokens is {budget / stage.tokens:,.0f} passes over its {stage.tokens:,} "
            f"tokens, and is what it is priced at; {_setting(where, 'max_tokens', FITTING_CAP * stage.tokens)} allows "
            f"{FITTING_CAP} passes."
        )


def _late_looks(name: str, where: str, stage: StageSettings, step: int, fitting_step: int) -> Iterator[str]:
    """A first look that comes late, with steps of so many tokens as they are and as the advice before makes them."""
    if stage.patience is None or stage.eval_interval is None or stage.not_shown_in:
        return
    now, then = (stage.eval_interval * size / stage.tokens for size in (step, fitting_step))
    if then > MANY_PASSES and stage.eval_interval > 1:
        interval = max(1, stage.tokens // fitting_step)
        after = " with that batch" if fitting_step != step else ""
        yield (
            f"{name}: the first evaluation that may stop it comes after {now:,.0f} passes over its data; "
            f"{_setting(where, 'eval_interval', interval)} looks about once a pass{after}."
        )


def _large_exposure(name: str, where: str, stage: StageSettings, arm: ArmSpec) -> Iterator[str]:
    """A later stage's text that is no small part of this one; the same sentence at every share, to stand once."""
    names = list(arm.stages)
    for mix in stage.mix:
        later = arm.stages[mix.share_of or name]
        is_early = names.index(mix.share_of or name) > names.index(name) and mix.corpus == later.corpus
        if is_early and mix.fraction and mix.mode == "add" and later.tokens > LARGE_EXPOSURE * stage.tokens:
            yield (
                f"{name}: all of {mix.corpus} (λ 1: {later.tokens:,} tokens) is {later.tokens / stage.tokens:.0%} on "
                f"top of its own {stage.tokens:,}, so exposure makes it longer; take less of it, or more for {name}, "
                f"{_setting(where, 'tokens', math.ceil(later.tokens / LARGE_EXPOSURE))} or above."
            )


def _key(stage: str, arm: ArmSpec) -> str:
    """Where a study file sets a stage, as ``--set`` takes it."""
    if stage in _AT_THE_TOP:
        return stage
    return f"arms.{arm.arm}.stages.{stage}" if arm.arm else f"stages.{stage}"


def _setting(where: str, field: str, value: int) -> str:
    return f"`{where}.{field}={value}`"
