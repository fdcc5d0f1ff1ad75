"""An arm's settings under the names of the results table (docs/run-folder.md)."""

from typing import Any

from indelible.study.spec import ArmSpec


def arm_columns(study: str, arm: ArmSpec, seed: int) -> dict[str, Any]:
    """One chain's settings by column.

    Args:
        study: name of the study.
        arm: the resolved arm.
        seed: of the chain.
    """
    pipeline = arm.pipeline
    return {
        "study": study,
        "scale": arm.scale,
        "pipeline": f"{pipeline.pre}>{pipeline.post}>{pipeline.ft}",
        "arm": arm.arm,
        "seed": seed,
        "exposure_fraction": arm.exposure.fraction,
        "exposure_mode": arm.exposure.mode,
        "placement": _placement_name(arm.exposure.placement),
        "pretrain_tokens": arm.pretrain.tokens,
        "post_tokens": arm.posttrain.tokens,
        "finetune_tokens": arm.finetune.tokens,
        "allocation": arm.posttrain.allocation,
        "method": arm.posttrain.method,
        "replay_fraction": arm.posttrain.replay_fraction,
        "dropout": arm.posttrain.dropout,
        "pretrain_lr": arm.pretrain.lr,
        "posttrain_lr": arm.posttrain.lr,
        "posttrain_global_batch_size": arm.posttrain.global_batch_size,
        "posttrain_max_tokens": arm.posttrain.max_tokens,
        "finetune_lr": arm.finetune.lr,
        "finetune_method": arm.finetune.method,
        "finetune_replay_fraction": arm.finetune.replay_fraction,
        "finetune_dropout": arm.finetune.dropout,
        "tie_embeddings": arm.model.tie_embeddings,
        "init": arm.init.checkpoint if arm.init else arm.model.init,
    }


def _placement_name(placement: str | tuple[float, float]) -> str:
    return placement if isinstance(placement, str) else f"{placement[0]:g}-{placement[1]:g}"
