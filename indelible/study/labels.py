"""What a run id says to people: the corpus, the rate, and whatever an earlier stage did out of the ordinary.

A pure function of the arm, never of the study around it: a study that grows renames nothing.
"""

from indelible.study.adapt import LoraSpec
from indelible.study.arm import ArmSpec
from indelible.study.stage_data import mix_windows, shown_end


def stage_labels(arm: ArmSpec) -> dict[str, str]:
    """A label for each stage of an arm's chain, e.g. ``chemistry-lr0.0003-after-music100k``."""
    trail: list[str] = []
    labels = {}
    for position, (name, stage) in enumerate(arm.chain.items()):
        tags = _tags(name, arm)
        is_scratch = position == 0 and stage.init is None
        own = [*tags] or ["plain"] if is_scratch else [stage.corpus, f"lr{stage.lr:g}", *tags]
        labels[name] = "-".join([*own, *(["after", *trail] if trail else [])])
        trail += tags
    return labels


def _tags(name: str, arm: ArmSpec) -> list[str]:
    """What a stage does beside plain full training on its own corpus; the same for all ways to write the same stage."""
    stage = arm.stages[name]
    tags = []
    for entry in sorted(stage.mix, key=lambda entry: entry.corpus):
        if windows := mix_windows(name, entry, arm):
            tags.append(f"{entry.corpus}{count_text(windows * arm.seq_len)}")
    if shown_end(stage.corpus, stage.not_shown_in, arm):
        tags.append("rest")
    if stage.dropout:
        tags.append(f"d{stage.dropout:g}")
    if isinstance(stage.adapt, LoraSpec):
        tags.append(f"lora{stage.adapt.r}")
    for part in (stage.objective, stage.guard):
        if part.kind not in ("next_token", "none"):
            weight = getattr(part, "weight", None)
            tags.append(part.kind + (f"{weight:g}" if weight is not None else ""))
    return tags


def count_text(count: int) -> str:
    """A count in k, M or B, four digits at most: 30000000 is ``30M``, 99968 is ``99.97k``."""
    for size, unit in ((10**9, "B"), (10**6, "M"), (10**3, "k")):
        if abs(count) >= size:
            return f"{count / size:.4g}{unit}"
    return str(count)
