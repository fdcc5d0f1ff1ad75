"""Which windows each stage of an arm shows: main corpus and mix, as stretches of the corpora's permutations."""

from collections.abc import Mapping
from dataclasses import dataclass

from indelible.study.arm import ArmSpec
from indelible.study.purposes import main_purpose, purpose_of
from indelible.study.row_rules import own_rules
from indelible.study.stage_spec import CorpusUse, MixUse, StageData
from indelible.study.training import MixSpec


@dataclass(frozen=True)
class Stores:
    """Folder names of the token stores and of the tokenizer, by their fingerprints."""

    corpora: Mapping[str, str]  # corpus name to `<corpus>-<fingerprint>`
    tokenizer: str  # `tokenizer-<fingerprint>`


def num_windows(tokens: int, seq_len: int) -> int:
    """Windows that hold ``tokens`` to within half a window, at least one."""
    return max(1, round(tokens / seq_len))


def stage_data(name: str, arm: ArmSpec, stores: Mapping[str, str]) -> StageData:
    """The windows of one stage.

    Args:
        name: of the stage.
        arm: the resolved arm; its earlier stages decide what `not_shown_in` leaves.
        stores: corpus name to store folder name.
    """
    stage = arm.stages[name]
    asked, sequences = _own_windows(name, arm), stage.objective.sequences
    first = min(shown_end(stage.corpus, stage.not_shown_in, arm), asked)
    main = CorpusUse(
        purpose=main_purpose(name),
        store=stores[stage.corpus],
        first_window=first,
        windows=asked - first,
        rows=own_rules(stage.corpus, arm),
        sequences=sequences,
    )
    mix = [use for entry in stage.mix if (use := _mix_use(name, entry, arm, stores)) is not None]
    data = StageData(main=main, total_windows=0, order=stage.order, mix=tuple(sorted(mix, key=lambda use: use.purpose)))
    budget = None if stage.not_shown_in else stage.max_tokens  # exactly the rest is shown once
    total = data.pass_windows
    if budget:  # rows of the data order, of which pairs are two sequences each
        total = num_windows(budget, arm.seq_len) if sequences == 1 else _rows_of(budget, data, arm.seq_len)
    return data.model_copy(update={"total_windows": total})


def _own_windows(name: str, arm: ArmSpec) -> int:
    """Windows of a stage's own corpus, or pairs: each counts as the two sequences that are computed for it."""
    stage = arm.stages[name]
    return num_windows(stage.tokens, arm.seq_len * stage.objective.sequences)


def _rows_of(tokens: int, data: StageData, seq_len: int) -> int:
    """Rows of so many tokens of passes over pairs with what is mixed into them."""
    return max(1, round(tokens / seq_len * data.pass_windows / max(1, data.pass_sequences)))


def mix_windows(name: str, entry: MixSpec, arm: ArmSpec) -> int:
    """Windows that a mix shows, over all its passes; 0 for a fraction of 0."""
    base = arm.stages[entry.share_of or name].tokens
    if entry.per == "stage":
        return round(entry.fraction * base / arm.seq_len)
    return max(1, round(entry.fraction * num_windows(base, arm.seq_len))) if entry.fraction else 0


def mix_tokens(name: str, entry: MixSpec, arm: ArmSpec) -> int:
    """Tokens that a mix is asked for by the study, before they are cut into windows."""
    return round(entry.fraction * arm.stages[entry.share_of or name].tokens)


def _mix_use(name: str, entry: MixSpec, arm: ArmSpec, stores: Mapping[str, str]) -> MixUse | None:
    total = mix_windows(name, entry, arm)
    if not total:
        return None
    whole = num_windows(arm.stages[entry.share_of or name].tokens, arm.seq_len)  # one pass over what it is a share of
    return MixUse(
        purpose=purpose_of(name, entry, arm),
        store=stores[entry.corpus],
        first_window=shown_end(entry.corpus, entry.not_shown_in, arm),
        windows=min(total, whole),
        rows=own_rules(entry.corpus, arm),
        per=entry.per,
        total_windows=total,
        mode=entry.mode,
        placement=entry.placement,
    )


def shown_end(corpus: str, stages: tuple[str, ...], arm: ArmSpec) -> int:
    """Where in the corpus's permutation everything ends that these stages show of it.

    Every use starts at the front or right behind what others showed, so that what was shown is a prefix.
    """
    ends = [0]
    for name in stages:
        stage = arm.stages[name]
        if stage.corpus == corpus:
            ends.append(max(_own_windows(name, arm), shown_end(corpus, stage.not_shown_in, arm)))
        for entry in stage.mix:
            if entry.corpus == corpus and (total := mix_windows(name, entry, arm)):
                whole = num_windows(arm.stages[entry.share_of or name].tokens, arm.seq_len)
                ends.append(shown_end(corpus, entry.not_shown_in, arm) + min(total, whole))
    return max(ends)
