"""An arm's settings as columns of the results table, derived from the fields themselves.

A few columns of the paper's chains always stand (docs/run-folder.md); beside them every leaf of the resolved arms that
takes two values in a study is a column, so that nothing that was swept can be pooled without a word.
"""

from collections.abc import Sequence
from typing import Any

from pydantic import BaseModel

from indelible.study.arm import ArmSpec
from indelible.study.purposes import purpose_of
from indelible.study.training import MixSpec, StageSettings

# Columns that every chain has, by the derived name of the leaf that they show; null where a stage is not run.
PAPER_COLUMNS = {
    "pretrain_exposure_fraction": "exposure_fraction",
    "pretrain_exposure_mode": "exposure_mode",
    "pretrain_exposure_placement": "placement",
    "pretrain_tokens": "pretrain_tokens",
    "posttrain_tokens": "post_tokens",
    "finetune_tokens": "finetune_tokens",
    "posttrain_not_shown_in": "allocation",
    "posttrain_adapt": "method",
    "posttrain_replay_fraction": "replay_fraction",
    "posttrain_dropout": "dropout",
    "pretrain_lr": "pretrain_lr",
    "posttrain_lr": "posttrain_lr",
    "finetune_lr": "finetune_lr",
    "posttrain_global_batch_size": "posttrain_global_batch_size",
}
# Names that version 0.1 gave to columns that stand only where they vary.
_NAMES = {"finetune_adapt": "finetune_method", "model_tie_embeddings": "tie_embeddings"}
_NOT_SETTINGS = ("name", "scale", "arm", "corpora", "tokenizer", "stages", "views", "evaluation")
_NOT_OF_A_STAGE = ("corpus", "watch", "init", "mix", "not_shown_in")  # said by `pipeline`, nothing, or another column
_AT_ZERO = {"mode": "add", "placement": "uniform"}  # of an exposure that is not asked for


def chain_columns(study: str, arms: Sequence[ArmSpec]) -> list[dict[str, Any]]:
    """The settings of each arm by column, the same columns for all.

    A leaf that an arm has not (a rate of a stage that is not run, the weight of a guard that is not there) is null in
    it. Having it or not makes no column by itself: the stages, kinds and fractions that decide it are columns.

    Args:
        study: name of the study.
        arms: its resolved arms.

    Returns:
        One dictionary an arm.
    """
    leaves = [_leaves(arm) for arm in arms]
    mixes = dict.fromkeys(name for one in leaves for name in one if name.endswith("_fraction"))
    leaves = [
        {**{name: 0.0 for name in mixes if _stage_of(name, arm)}, **one} for arm, one in zip(arms, leaves, strict=True)
    ]
    names = dict.fromkeys(name for one in leaves for name in one if name not in PAPER_COLUMNS)
    varying = [name for name in names if len({one[name] for one in leaves if name in one}) > 1]
    has_init = any(one["init"] is not None for one in leaves)
    shown = [*varying, *(["init"] if has_init and "init" not in varying else [])]
    return [
        {
            "study": study,
            "scale": arm.scale,
            "pipeline": pipeline_text(arm),
            "arm": arm.arm,
            **{column: one.get(leaf) for leaf, column in PAPER_COLUMNS.items()},
            **{_NAMES.get(name, name): one.get(name) for name in shown},
        }
        for arm, one in zip(arms, leaves, strict=True)
    ]


def pipeline_text(arm: ArmSpec) -> str:
    """The corpora of the stages in order: ``general>music>chemistry``."""
    return ">".join(stage.corpus for stage in arm.stages.values())


def _stage_of(column: str, arm: ArmSpec) -> str | None:
    """The stage of an arm's chain that a mix's column belongs to."""
    return next((name for name in arm.chain if column.startswith((f"{name}_mix_", f"{name}_replay_"))), None)


def _leaves(arm: ArmSpec) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name in ArmSpec.model_fields:
        if name not in _NOT_SETTINGS:
            found.update(_flat(name, getattr(arm, name)))
    init = arm.stages[arm.first].init
    found["init"] = init and (f"{init.checkpoint}@{init.revision}" if init.revision else init.checkpoint)
    found["stages"] = ">".join(arm.chain)
    for name, stage in arm.chain.items():
        found.update(_stage_leaves(name, stage, arm))
    return found


def _stage_leaves(name: str, stage: StageSettings, arm: ArmSpec) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for field in StageSettings.model_fields:
        if field not in _NOT_OF_A_STAGE:
            found.update(_flat(f"{name}_{field}", getattr(stage, field)))
    found[f"{name}_not_shown_in"] = _allocation(stage.not_shown_in)
    for mix in stage.mix:
        prefix = f"{name}_{purpose_of(name, mix, arm).replace(' ', '_')}"
        for field in MixSpec.model_fields:
            if field != "corpus":  # the purpose says it
                found.update(_flat(f"{prefix}_{field}", getattr(mix, field)))
    if name == "pretrain":
        found.setdefault("pretrain_exposure_fraction", 0.0)
        for field, value in _AT_ZERO.items():
            found.setdefault(f"pretrain_exposure_{field}", value)
    if name == "posttrain":
        found.setdefault("posttrain_replay_fraction", 0.0)
    return found


def _allocation(not_shown_in: tuple[str, ...]) -> str:
    """The paper's words for its own two ways; other stages by name."""
    if not_shown_in in ((), ("pretrain",)):
        return "matched" if not_shown_in else "full"
    return f"not shown in {','.join(not_shown_in)}"


def _flat(name: str, value: Any) -> dict[str, Any]:
    """A value as columns: models by field, their `kind` under the name itself, tuples as text."""
    if isinstance(value, BaseModel):
        found: dict[str, Any] = {}
        for field in type(value).model_fields:
            found.update(_flat(name if field == "kind" else f"{name}_{field}", getattr(value, field)))
        return found
    if isinstance(value, tuple):
        is_interval = len(value) == 2 and all(isinstance(part, float) for part in value)
        return {name: ("-" if is_interval else ",").join(f"{v:g}" if isinstance(v, float) else str(v) for v in value)}
    return {name: value}
