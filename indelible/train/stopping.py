"""The loss that stops a stage and chooses its best weights: of held-out windows, or of held-out pairs of answers."""

from indelible.train.context import StageContext
from indelible.train.evaluate import mean_loss
from indelible.train.heldout import ReportedPairs
from indelible.train.preference import as_entries, stop_measures

Entries = dict[str, float | None]  # of a line of metrics.jsonl


def stop_loss(context: StageContext) -> tuple[float, Entries]:
    """The loss of the weights as they are now, and what of it is logged.

    Returns:
        Nats per token; of pairs, nats a pair.
    """
    rule, preference = context.stop_rule, context.preference
    assert rule is not None
    if not isinstance(rule.heldout, ReportedPairs):
        loss = mean_loss(context.program, rule.heldout, context.world)
        return loss, {f"eval/{rule.corpus}/nats_per_token": loss}
    assert preference is not None
    measures = stop_measures(context.program, rule.heldout, preference, context.world)
    return measures["preference_loss"].value, as_entries(f"eval/{rule.corpus}", measures, len(rule.heldout.pairs))
