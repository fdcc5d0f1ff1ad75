"""Whether every held-out loss that a study asks for can be computed: known from the tokens, before training."""

from collections.abc import Iterable, Mapping

from indelible.data.ledger import corpus_of
from indelible.data.loader import read_heldout, split_heldout
from indelible.data.store import TokenStore
from indelible.errors import UserError
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
        UserError: a held-out split is of fewer than two windows, or, where only completions count, no token of one
            stands in the windows that stop a stage or in those that are reported.
    """
    reported = {(one.store, one.seq_len, one.stop_windows, one.windows, one.loss_on) for one in kinds}
    stopping = {
        (spec.stop.store, spec.seq_len, spec.stop.windows, spec.loss_on) for spec in specs if spec.stop is not None
    }
    for name, seq_len, stop_windows, windows, loss_on in sorted(reported):
        split = split_heldout(
            corpus_of(name),
            _available(stores[name], seq_len),
            stop_windows=stop_windows,
            windows=windows,
            seq_len=seq_len,
        )
        if loss_on == "completion":
            _check_completions(stores[name], split.first_window, split.windows, seq_len, "that are reported")
    for name, seq_len, stop_windows, loss_on in sorted(stopping):
        available = _available(stores[name], seq_len)
        split = split_heldout(corpus_of(name), available, stop_windows=stop_windows, windows=1, seq_len=seq_len)
        if loss_on == "completion":
            _check_completions(stores[name], 0, split.stop_windows, seq_len, "that stop a stage")


def _available(store: TokenStore, seq_len: int) -> int:
    found = store.num_windows("heldout", seq_len)
    if found < MIN_HELDOUT_WINDOWS:
        raise UserError(
            f"corpus {corpus_of(store.folder.name)!r}: its held-out split has {store.num_tokens('heldout'):,} tokens, "
            f"which is {found} window(s) of seq_len {seq_len}, and at least {MIN_HELDOUT_WINDOWS} are needed; give the "
            f"corpus more text, raise data.split.heldout_fraction, or lower seq_len.{store.left_out()}"
        )
    return found


def _check_completions(store: TokenStore, first: int, count: int, seq_len: int, which: str) -> None:
    if store.has_mask and not read_heldout(store, first, count, seq_len, "completion").valid.any():
        raise UserError(
            f"corpus {corpus_of(store.folder.name)!r}: no token of a completion stands in its held-out windows {first} "
            f"to {first + count - 1} of {seq_len} tokens, {which}, and data.loss_on: completion counts nothing else; "
            "raise evaluation.windows and evaluation.stop_windows, take longer windows (seq_len) or shorter prompts."
        )
