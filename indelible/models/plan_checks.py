"""What can be known of adapters and window lengths before anything is tokenised or trained."""

from collections.abc import Iterable, Mapping

from indelible.errors import UserError
from indelible.study.adapt import Adapt, LoraSpec
from indelible.study.stage_spec import StageSpec

OWN_LINEAR_LAYERS = frozenset(
    {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj", "lm_head"}
)  # of the models that a study describes itself


def check_methods(specs: Mapping[str, StageSpec], linear_layers: Iterable[str] | None = None) -> None:
    """Checks that every adapter has a place, and that kept adapters are trained on.

    Args:
        specs: stage runs by id.
        linear_layers: last parts of the names of a given checkpoint's linear layers; None = a model of our own.

    Raises:
        UserError: a LoRA target is no linear layer of the model, or a stage trains without the adapters that the stage
            before it kept.
    """
    known = frozenset(linear_layers) if linear_layers is not None else OWN_LINEAR_LAYERS
    for spec in specs.values():
        lora = spec.adapt
        if isinstance(lora, LoraSpec) and (missing := sorted(set(lora.targets) - known)):
            raise UserError(
                f"{spec.stage}.lora.targets: {', '.join(missing)} not among the linear layers of this model, which are "
                f"{', '.join(sorted(known))}."
            )
        before = specs.get(spec.parent or "")
        kept = before.adapt if before is not None else None
        if before is not None and isinstance(kept, LoraSpec) and not kept.merge and not _goes_on(kept, lora):
            raise UserError(
                f"{spec.stage}.method: the stage before it keeps its adapters ({before.stage}.lora.merge: false, "
                f"r {kept.r}, alpha {kept.alpha:g}, {', '.join(kept.targets)}), so this one must train on with them: "
                f"set {spec.stage}.method: lora with the same r, alpha and targets, or {before.stage}.lora.merge: true."
            )


def _goes_on(kept: LoraSpec, lora: Adapt) -> bool:
    if not isinstance(lora, LoraSpec):
        return False
    return (lora.r, lora.alpha, sorted(lora.targets)) == (kept.r, kept.alpha, sorted(kept.targets))


def check_packing(specs: Mapping[str, StageSpec], takes_positions: bool, name: str) -> None:
    """Checks that a given checkpoint can be told where the documents of a row begin.

    Raises:
        UserError: rows hold several documents, and it takes no positions.
    """
    for spec in specs.values():
        packed = [store for store, rules in spec.store_rules.items() if rules.packing == "best_fit"]
        if packed and not takes_positions:
            raise UserError(
                f"corpora.{packed[0].rpartition('-')[0]}.packing = best_fit: {name} is a model that takes no "
                "positions, so documents that share a row would see each other; say packing: documents (one a row) or "
                "stream."
            )


def check_context(specs: Mapping[str, StageSpec], context: int | None, name: str) -> None:
    """Checks that a given checkpoint can read the study's windows.

    Raises:
        UserError: they are longer than its context.
    """
    longest = max((spec.seq_len for spec in specs.values()), default=0)
    if context is not None and longest > context:
        raise UserError(f"seq_len = {longest}: {name} has a context of {context} tokens; lower seq_len to that.")
