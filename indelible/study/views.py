"""Named losses of a chain: the paper's, those of corpora of pairs and of tasks, and a study's own."""

from collections.abc import Mapping, Sequence

from indelible.study.arm import ArmSpec
from indelible.study.task_spec import IM

# L_im and its kin: (after which stage, on the corpus of which stage)
PAPER_VIEWS = {
    "L_im": ("posttrain", "posttrain"),
    "L_ret": ("finetune", "posttrain"),
    "L_ft": ("finetune", "finetune"),
    "L_pre": ("finetune", "pretrain"),
    "L_pre_post": ("posttrain", "pretrain"),
}


def chain_views(
    arm: ArmSpec, runs: Mapping[str, str], start: str | None, pairs: Sequence[str]
) -> dict[str, tuple[str, str]]:
    """Each named loss of a chain as (checkpoint, corpus or task).

    A stage that a given checkpoint replaces is that checkpoint.

    Args:
        arm: the chain's settings.
        runs: stage to run id.
        start: checkpoint id of the given checkpoint that it starts from.
        pairs: the study's corpora of pairs of answers.
    """
    views = {}
    own = {name: (view.after, view.corpus) for name, view in arm.views.items()}
    wanted = {**PAPER_VIEWS, **_pair_views(arm, pairs), **_task_views(arm), **own}
    for name, (after, on) in wanted.items():
        checkpoint = runs.get(after) or (start if after in arm.stages else None)
        known = (*arm.corpora, *pairs, *arm.evaluation.tasks)
        corpus = arm.stages[on].corpus if on in arm.stages else on if on in known else None
        if checkpoint is not None and corpus is not None:
            views[name] = checkpoint, corpus
    return views


def _pair_views(arm: ArmSpec, pairs: Sequence[str]) -> dict[str, tuple[str, str]]:
    """For each corpus of pairs: at the end of the chain, and, as ``<corpus>_im``, right after its preference stage.

    Chains without such a stage have the first of them too: what they are compared with.
    """
    last = next(reversed(arm.stages))
    views = {name: (last, name) for name in pairs}
    own = {stage.corpus: name for name, stage in arm.chain.items() if stage.objective.needs_pairs}
    return views | {f"{corpus}{IM}": (stage, corpus) for corpus, stage in own.items() if stage != last}


def _task_views(arm: ArmSpec) -> dict[str, tuple[str, str]]:
    """For each task: at the end of the chain, and, as ``<task>_im``, at the hand-over like L_im."""
    last, (hand_over, _) = next(reversed(arm.stages)), PAPER_VIEWS["L_im"]
    views = {name: (last, name) for name in arm.evaluation.tasks}
    if hand_over in arm.stages and hand_over != last:
        views |= {f"{name}{IM}": (hand_over, name) for name in arm.evaluation.tasks}
    return views
