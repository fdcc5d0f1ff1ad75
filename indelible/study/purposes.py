"""What a corpus is in a stage for, in one word: it names the random streams of that use, and its columns.

A stream belongs to a corpus and a purpose, never to a position in a list, so that what else is mixed in moves nothing,
and neither does a stage that is put behind the others. The paper's two uses keep the bare words that version 0.1 seeded
its streams with; so its data orders stay as they were.
"""

from indelible.study.arm import ArmSpec
from indelible.study.training import MixSpec

_MAIN = {"pretrain": "pre", "posttrain": "post", "finetune": "ft"}


def main_purpose(stage: str) -> str:
    """The purpose of a stage's own corpus."""
    return _MAIN.get(stage, stage)


def purpose_of(stage: str, mix: MixSpec, arm: ArmSpec) -> str:
    """The purpose of a corpus that is mixed into a stage.

    * ``replay`` of the chain's first corpus, ``replay <corpus>`` of another earlier stage's;
    * ``exposure`` of a share of `posttrain`, shown in `pretrain`: the paper's early exposure;
    * ``mix <corpus>`` of any other.
    """
    names = list(arm.stages)
    earlier = [arm.stages[name].corpus for name in names[: names.index(stage)]]
    if mix.corpus in earlier:
        return "replay" if mix.corpus == earlier[0] else f"replay {mix.corpus}"
    is_papers = stage == "pretrain" and mix.share_of == "posttrain" and mix.corpus == arm.stages["posttrain"].corpus
    return "exposure" if is_papers else f"mix {mix.corpus}"
