"""What is known of a study's rows once its tokens are there, before the first step: refused, or counted and said."""

from collections.abc import Iterable, Mapping

from indelible.data.ledger import corpus_of
from indelible.data.row_reader import row_counts
from indelible.data.store import TokenStore
from indelible.errors import UserError
from indelible.records import PackedSide
from indelible.study.row_rules import RowRules

Kind = tuple[str, int, RowRules]  # store folder, seq_len, rules


def check_marks(kinds: Iterable[Kind], stores: Mapping[str, TokenStore]) -> None:
    """Checks that the assistant's tokens are known wherever only they are trained on or evaluated.

    Raises:
        UserError: a chat template does not tell them.
    """
    for name, _, rules in kinds:
        chat = stores[name].manifest.get("chat")
        if chat is not None and chat["unmarked"] and rules.loss_on != "all":
            corpus = corpus_of(name)
            raise UserError(
                f"corpus {corpus}, loss_on: {rules.loss_on}: of {chat['unmarked']:,} conversation(s) it cannot be told "
                f"which tokens the assistant says: {chat['why_not']} Take a template with {{% generation %}} marks, or "
                f"train on all tokens (corpora.{corpus}.loss_on: all)."
            )


def check_trained(kinds: Iterable[Kind], stores: Mapping[str, TokenStore]) -> None:
    """Checks that something of every training split counts in the loss.

    Raises:
        UserError: nothing is left to train on.
    """
    for name, seq_len, rules in kinds:
        is_all = rules.packing == "stream" and (rules.loss_on == "all" or not stores[name].has_mask)
        if not is_all and not row_counts(stores[name], "train", seq_len, rules).trained.any():
            corpus = corpus_of(name)
            raise UserError(
                f"corpus {corpus}: with loss_on: {rules.loss_on}, packing: {rules.packing} and too_long: "
                f"{rules.too_long} no token of its training split is left to train on at seq_len {seq_len}; raise "
                "seq_len, or train on more tokens (loss_on)."
            )


def packed_sides(kinds: Iterable[Kind], stores: Mapping[str, TokenStore]) -> tuple[PackedSide, ...]:
    """What became of the documents of every corpus whose documents stay whole, side by side."""
    found = []
    for name, seq_len, rules in kinds:
        if rules.packing == "stream":
            continue
        for split in ("train", "heldout"):
            plan = stores[name].row_plan(split, seq_len, rules.packing, rules.too_long)
            if not plan.documents:
                continue
            counts = row_counts(stores[name], split, seq_len, rules)
            found.append(
                PackedSide(
                    corpus=corpus_of(name),
                    split=split,
                    seq_len=seq_len,
                    loss_on=rules.loss_on,
                    packing=rules.packing,
                    too_long=rules.too_long,
                    documents=plan.documents,
                    documents_too_long=plan.too_long,
                    longest_tokens=plan.longest,
                    rows=len(plan),
                    tokens=int(counts.tokens.sum()),
                    trained_tokens=int(counts.trained.sum()),
                    rows_without_trained=int((counts.trained == 0).sum()),
                )
            )
    return tuple(found)
