"""Whether every held-out loss that a study asks for can be computed: known from the tokens, before training."""

from collections.abc import Iterable, Mapping

from indelible.data.ledger import corpus_of
from indelible.data.loader import read_heldout, split_heldout
from indelible.data.row_reader import num_rows
from indelible.data.store import TokenStore
from indelible.errors import UserError
from indelible.study.row_rules import RowRules
from indelible.study.stage_spec import EvaluationSpec, StageSpec

MIN_HELDOUT_WINDOWS = 2  # one that may stop a stage, and one that is reported


def check_heldout(
    kinds: Iterable[EvaluationSpec], specs: Iterable[StageSpec], stores: Mapping[str, TokenStore]
) -> None:
    """Checks the held-out windows of all evaluations and of early stopping, each kind once.

    Args:
        kinds: what is evaluated, on which windows.
        specs: the stage runs; of those that stop early the windows that stop them are checked.
        stores: token stores by folder name.

    Raises:
        UserError: a held-out split is of fewer than two windows, or, where not all tokens count, none that does stands
            in the windows that stop a stage or in those that are reported.
    """
    reported = {(one.store, one.seq_len, one.rules, one.stop_windows, one.windows) for one in kinds}
    stopping = {
        (spec.stop.store, spec.seq_len, spec.rules(spec.stop), spec.stop.windows)
        for spec in specs
        if spec.stop is not None
    }
    for name, seq_len, rules, stop_windows, windows in sorted(reported, key=repr):
        split = split_heldout(
            corpus_of(name),
            _available(stores[name], seq_len, rules),
            stop_windows=stop_windows,
            windows=windows,
            seq_len=seq_len,
        )
        if not stores[name].has_pairs:
            _check_completions(stores[name], split.first_window, split.windows, seq_len, rules, "that are reported")
    for name, seq_len, rules, stop_windows in sorted(stopping, key=repr):
        available = _available(stores[name], seq_len, rules)
        split = split_heldout(corpus_of(name), available, stop_windows=stop_windows, windows=1, seq_len=seq_len)
        if not stores[name].has_pairs:
            _check_completions(stores[name], 0, split.stop_windows, seq_len, rules, "that stop a stage")


def _available(store: TokenStore, seq_len: int, rules: RowRules) -> int:
    found = num_rows(store, "heldout", seq_len, rules)
    if store.has_pairs and found < MIN_HELDOUT_WINDOWS:
        raise UserError(
            f"corpus {corpus_of(store.folder.name)!r}: {found} held-out pairs fit into rows of seq_len {seq_len} "
            f"({store.pairs('heldout').too_long(seq_len):,} do not), and at least {MIN_HELDOUT_WINDOWS} are needed; "
            "take longer rows (seq_len) or shorter pairs, give the corpus more of them, or raise "
            f"data.split.heldout_fraction.{store.left_out()}"
        )
    if found < MIN_HELDOUT_WINDOWS:
        raise UserError(
            f"corpus {corpus_of(store.folder.name)!r}: its held-out split has {store.num_tokens('heldout'):,} tokens, "
            f"which is {found} window(s) of seq_len {seq_len}, and at least {MIN_HELDOUT_WINDOWS} are needed; give the "
            f"corpus more text, raise data.split.heldout_fraction, or lower seq_len.{store.left_out()}"
        )
    return found


def _check_completions(store: TokenStore, first: int, count: int, seq_len: int, rules: RowRules, which: str) -> None:
    if rules.loss_on == "all":
        return
    if store.has_mask and not read_heldout(store, first, count, seq_len, rules).valid.any():
        raise UserError(
            f"corpus {corpus_of(store.folder.name)!r}: no token of a completion stands in its held-out windows {first} "
            f"to {first + count - 1} of {seq_len} tokens, {which}, and data.loss_on: {rules.loss_on} counts nothing "
            "else; "
            "raise evaluation.windows and evaluation.stop_windows, take longer windows (seq_len) or shorter prompts."
        )
