"""A finding's numbers in words, the same on the screen and on the page: what is shown is what decides."""

from collections.abc import Sequence

from indelible.claims.evidence import INCONCLUSIVE
from indelible.claims.verdicts import Finding
from indelible.results.columns import is_higher_better
from indelible.results.labels import plural
from indelible.statistics.by_document import DocumentComparison
from indelible.statistics.compare import Comparison
from indelible.statistics.inference import Inference


def confidence_text(confidence: float) -> str:
    """0.9875 is ``98.75 %``."""
    return f"{100 * confidence:.4g} %"


def effect_text(effect: float | None, low: float | None, high: float | None, confidence: float | None) -> str:
    """``-0.3104 [-0.4051, -0.2157] (98.75 %)``; without an interval where there is but one seed."""
    if effect is None:
        return ""
    if low is None or high is None or confidence is None:
        return f"{effect:+.4f}"
    return f"{effect:+.4f} [{low:+.4f}, {high:+.4f}] ({confidence_text(confidence)})"


def seeds_text(num_seeds: int, num_same_sign: int, num_other_sign: int) -> str:
    """``n=16, signs 15 / 1``: seeds whose own difference has the sign of the effect, and seeds with the other."""
    return f"n={num_seeds}" + (f", signs {num_same_sign} / {num_other_sign}" if num_seeds > 1 else "")


def spread_text(low: float | None, num_seeds: int) -> str:
    """Why several seeds have no interval: what does not vary between them says nothing of the noise."""
    return "all seeds have the same difference, so no interval" if low is None and num_seeds > 1 else ""


def numbers_text(found: Finding) -> str:
    """Everything of a finding but its verdict and its scope, in one line."""
    parts = [effect_text(found.effect, found.low, found.high, found.confidence)]
    parts.append(seeds_text(found.num_seeds, found.num_same_sign, found.num_other_sign))
    parts.append(spread_text(found.low, found.num_seeds))
    if found.detectable is not None:
        parts.append(f"{'shows a margin of' if found.is_margin else 'detectable'} {found.detectable:.4f}")
    parts.append(open_text(found))
    return ", ".join(part for part in parts if part)


def open_text(found: Finding) -> str:
    """Of what is not settled how many seeds would settle it; where the means point, if that is not what was decided."""
    if found.effect is None:
        return ""
    needed = found.new_seeds.text if found.new_seeds else ""
    reading = "" if found.reading in (INCONCLUSIVE, found.verdict) else f"reads {found.reading}"
    return ", ".join(
        part for part in (needed, f"{reading}: {found.reason}" if reading and found.reason else reading) if part
    )


def comparison_text(found: Comparison) -> str:
    """A comparison of two values of a setting in one loss, in one line."""
    result = found.result
    if result.effect is None:
        return "no finished pair at equal settings"
    if found.is_same_runs:
        return f"the same runs ({plural(result.n, 'seed')}): nothing to compare"
    parts = [effect_text(result.effect, result.low, result.high, 1 - result.level)]
    parts.append(seeds_text(result.n, result.num_same_sign, result.num_other_sign))
    parts.append(spread_text(result.low, result.n))
    if result.detectable is not None:
        parts.append(f"detectable {result.detectable:.4f}")
    conclusion = result.conclusion()
    if conclusion == "inconclusive" and (needed := found.new_seeds()) is not None:
        parts.append(needed.text)
    if found.num_diverged:
        parts.append(f"{plural(found.num_diverged, 'diverged chain')} counted as the worst loss")
    return f"{', '.join(part for part in parts if part)}, {plural(found.num_blocks, 'setting')}: {conclusion}"


def documents_text(found: DocumentComparison) -> str:
    """Two checkpoints on the documents of one corpus, in one line."""
    parts = [effect_text(found.effect, found.low, found.high, 1 - found.level)]
    if found.standard_error is not None:
        parts.append(f"standard error {found.standard_error:.4f}")
    parts.append(f"{plural(found.num_documents, 'document')}: {found.num_worse} worse, {found.num_better} better")
    return ", ".join(parts)


def family_text(inference: Inference, *, is_corrected: bool) -> str:
    """Whose risk the stated level is."""
    risk = confidence_text(inference.level)
    if is_corrected:
        return f"the findings of one claim share a risk of {risk} (Holm; --uncorrected: each by itself has it)"
    return f"each finding by itself has a risk of {risk} (uncorrected)"


def verdicts_footnote(inference: Inference, *, is_corrected: bool) -> str:
    """How to read the lines of `numbers_text`."""
    return (
        "Effects in nats per token, paired over seeds (n; signs: seeds with the effect's sign / with the other), with "
        "the paired t interval that decides, in brackets, and its confidence: "
        f"{family_text(inference, is_corrected=is_corrected)}, and where one of several comparisons of a finding is "
        "enough, each is held to a part of it. Detectable: the true effect that so many seeds, with this spread, find "
        f"with power {inference.power:g} (of what shall be flat: the margin that they show). New seeds: a range that "
        "holds the number needed about half of the time. The numbers hold for one look at a number of seeds fixed "
        "beforehand. The runs behind each: --json."
    )


def compare_footnote(inference: Inference, losses: Sequence[str] = ()) -> str:
    """How to read the lines of `comparison_text`; ``losses`` are those that are compared."""
    of_pairs = " (of accuracies shares of pairs or examples, of preference losses nats a pair)"
    units = of_pairs if any(is_higher_better(loss) for loss in losses) else ""
    risk = f"Each comparison by itself has a risk of {confidence_text(inference.level)}"
    return (
        f"Effects in nats per token{units}, paired over seeds (n; signs: seeds with the effect's sign / with the "
        f"other), with paired t intervals. {risk}: they are for looking, and nothing corrects for how many there are. "
        f"Detectable: the true effect that so many seeds find with power {inference.power:g}. New seeds: a range that "
        "holds the number needed about half of the time. The runs behind each: --json."
    )


def documents_footnote(inference: Inference) -> str:
    """How to read the lines of `documents_text`."""
    return (
        "Differences in nats per token, the second checkpoint minus the first, paired by held-out document, with the t "
        f"interval over documents ({confidence_text(1 - inference.level)}; clustered by document). They are about "
        "these two checkpoints and texts like these: what another seed would give, --by says."
    )
