"""How the documents of a corpus become the rows that a stage trains on, and which of their tokens count."""

from indelible.strict import Strict
from indelible.study.arm import ArmSpec
from indelible.study.corpus_spec import CorpusSpec, LossOn, Packing, TooLong


class RowRules(Strict):
    """The rules of one corpus in one chain."""

    loss_on: LossOn = "all"  # of documents with parts: which tokens are trained on
    packing: Packing = "stream"  # windows over all text; one document a row; whole documents, as many as fit into a row
    too_long: TooLong = "error"  # what becomes of a document longer than seq_len + 1 tokens, where documents stay whole


def rules_of(corpus: str, arm: ArmSpec, spec: CorpusSpec | None = None) -> RowRules:
    """The rules of a corpus in an arm; of one that the arm does not declare, by its ``spec`` in another."""
    spec = arm.corpora.get(corpus, spec)
    if spec is None:
        return RowRules(loss_on=arm.data.loss_on)
    return RowRules(loss_on=spec.loss_on or arm.data.loss_on, packing=spec.packing, too_long=spec.too_long)


def own_rules(corpus: str, arm: ArmSpec) -> RowRules | None:
    """The rules of a corpus where they are not those of the arm: windows, with the arm's ``data.loss_on``."""
    rules = rules_of(corpus, arm)
    return None if rules == RowRules(loss_on=arm.data.loss_on) else rules
