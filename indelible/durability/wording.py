"""The card's sentences: the verdict for a manager, the threat model, what was not tested, what a loss says."""

from collections.abc import Sequence
from typing import Literal

from indelible.durability.card import Kept, SettingRow, Verdict
from indelible.durability.request import AuditRequest
from indelible.durability.study import Portion

VERDICT_WORDS: dict[str, str] = {"durable": "durable", "not_durable": "not durable", "cannot_tell": "cannot tell"}
PARTS = {0.5: "half", 0.8: "four fifths"}
CUSTOMER_WORDS = {
    "careful": "a careful customer (the best setting of the battery)",
    "typical": "a typical customer (the median setting)",
    "careless": "a careless customer (the worst setting of the battery)",
}

ACCURACIES_TEXT = (
    "Before: the checkpoint itself, with the interval over examples. After: at the end of the trials without replay, "
    "mean over their settings, with the interval over seeds of fine-tuning and examples; a trial that diverged has "
    "nothing right. Not at equal gain, as losses are; chance level is not subtracted, and the verdict does not look "
    "at them."
)


def names_text(names: Sequence[str]) -> str:
    """A list as people write it."""
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def short_name(checkpoints: Sequence[str]) -> str:
    """What a side is called."""
    parts = [part for part in checkpoints[0].split("/") if part] or [checkpoints[0]]
    last = parts[-2] if parts[-1] == "checkpoint" and len(parts) > 1 else parts[-1]  # of a stage run its id
    return last if len(checkpoints) == 1 else f"{last} and {len(checkpoints) - 1} more of its recipe"


def number_text(kept: Kept) -> str:
    """The number with its interval."""
    if kept.unit == "share":
        value, ends = (
            f"{100 * kept.value:.0f} %",
            [None if e is None else f"{100 * e:.0f}" for e in (kept.low, kept.high)],
        )
    else:
        value, ends = f"{kept.value:.3f} nats", [None if e is None else f"{e:.3f}" for e in (kept.low, kept.high)]
    return f"{value} ({ends[0]} to {ends[1]})" if ends[0] is not None else f"{value} (no interval: n = {kept.n})"


def sentence(request: AuditRequest, verdict: Verdict, kept: Kept | None, bar: float) -> str:
    """The card in one sentence."""
    model, who = short_name(request.models), CUSTOMER_WORDS[request.customer]
    if kept is None:
        return f"What {model} keeps of {request.keep} cannot be told: no trial of the battery gains on the new data."
    new = names_text(request.later)
    after = f"After {who} has fine-tuned it to {PARTS[request.gain]} of the gain that is to be had on {new}"
    if kept.unit == "share":
        what, limit = (
            f"{model} keeps {number_text(kept)} of what it had on {request.keep}",
            f"{100 * bar:g} % are required",
        )
    else:
        what, limit = f"{model} has lost {number_text(kept)} per token on {request.keep}", f"{bar:g} nats are allowed"
    return f"{after}, {what}; {limit}: {VERDICT_WORDS[verdict]}."


def threat_model(request: AuditRequest, portion: Portion) -> tuple[str, ...]:
    """What the battery does to the model."""
    battery = request.battery
    rates = sorted({setting.lr for setting in portion.settings if setting.adapt == "full"})
    lora = sorted({setting.lr for setting in portion.settings if setting.adapt == "lora"})
    ways = [f"all weights at learning rates {_rates(rates)}"] if rates else []
    ways += [f"LoRA of rank {battery.lora_r} at {_rates(lora)}"] if lora else []
    replays = sorted({setting.replay for setting in portion.settings if setting.replay})
    found = [
        "A customer holds the weights and fine-tunes them on data of their own. They mean no harm, do not know what "
        "was "
        "to be kept, and stop where the new task is learned.",
        f"New data: {names_text(request.later)}. Ways: {'; '.join(ways)}; AdamW, a cosine to a tenth, "
        f"{battery.updates} updates of {battery.batch} sequences of {battery.seq_len} tokens "
        f"({battery.trial_tokens:,} tokens).",
        f"Seeds of fine-tuning: {len(portion.seeds)} for each setting and checkpoint.",
    ]
    if replays:
        shares = names_text([f"{100 * one:g} %" for one in replays])
        found.append(f"As a remedy, in rows of their own: {shares} of the kept data mixed in.")
    if request.is_hostile:
        found.append("Some new data are files of the auditor's; whether they attack the capability is theirs to say.")
    return tuple(found)


def _rates(rates: Sequence[float]) -> str:
    return ", ".join(f"{rate:g}" for rate in rates)


def not_tested(request: AuditRequest, portion: Portion) -> tuple[str, ...]:
    """What the verdict does not cover."""
    tried = {setting.adapt for setting in portion.settings}
    found = [
        f"Longer fine-tuning than {request.battery.trial_tokens:,} tokens, other data, and other learning rates.",
        "Preference tuning and reinforcement learning, distillation, merging, pruning and quantisation.",
        "What the model writes: losses are measured on held-out text, nothing is generated and nothing is scored by "
        "tasks.",
        "Prompts that suppress or bring out the capability without training.",
    ]
    if "lora" not in tried:
        found.insert(1, "Adapters (LoRA).")
    if not request.is_hostile:
        found.append("Data that were made to attack the capability: give them as files of your own with --later.")
    if request.base is None:
        found.append("How much of the capability there was: without --base a loss is told in nats, not as a share.")
    return tuple(found)


def proxy_text(request: AuditRequest) -> str:
    """What a loss on the kept text says and what not."""
    return (
        f"Loss on held-out text of {request.keep} is how surprised the model is by text that shows the capability. "
        "Where it "
        "rises, the model has become less likely to write such text; where it does not, the capability is not lost. Of "
        "refusals it says how likely the model still finds its refusals, word for word: a model may refuse in other "
        "words, "
        "and one that finds them likely may yet comply. Judge behaviour by generating; use this number to compare "
        "and to "
        "notice."
    )


def edge_of(rows: Sequence[SettingRow], setting: str | None) -> Literal["largest", "smallest"] | None:
    """Whether the setting that gains most lies at an edge of the rates that were tried its way."""
    best = next((row for row in rows if row.name == setting), None)
    if best is None:
        return None
    rates = [row.lr for row in rows if (row.later, row.adapt) == (best.later, best.adapt) and not row.replay]
    if best.lr == max(rates):
        return "largest"
    return "smallest" if best.lr == min(rates) else None


def covers(request: AuditRequest, documents: int) -> str:
    """What the intervals are about, in words."""
    if request.is_about_recipes:
        return (
            f"The recipe: the interval is over {len(request.models)} checkpoints that it made with other training "
            "seeds, on "
            "this held-out text."
        )
    files = "these two files" if request.against else "this one file"
    text = f" and which of texts like the {documents} held-out documents it is judged on" if documents else ""
    return (
        f"{files[0].upper()}{files[1:]}: the interval is over seeds of fine-tuning{text}. Another training seed of "
        "the same "
        "recipe may differ by more; give several checkpoints to speak of a recipe."
    )
