"""What no held-out loss can be computed of is said from the tokens, before anything is trained."""

from types import SimpleNamespace

import numpy as np
import pytest
from token_folder import write_store

from indelible.data.heldout import check_heldout
from indelible.data.store import TokenStore
from indelible.errors import UserError
from indelible.study.row_rules import RowRules
from indelible.study.stage_spec import EvaluationSpec, StopWindows


def kind(store: TokenStore, **changes) -> EvaluationSpec:
    values = {"stop_windows": 1, "windows": 2, "seq_len": 8, "loss_on": "all"}
    return EvaluationSpec(checkpoint="", store=store.folder.name, **{**values, **changes})


def stops(store: TokenStore, windows: int, loss_on: str = "completion") -> SimpleNamespace:
    stop = StopWindows(store=store.folder.name, windows=windows)
    return SimpleNamespace(stop=stop, seq_len=8, rules=lambda use: RowRules(loss_on=loss_on))


def check(store: TokenStore, kinds, specs=()) -> None:
    check_heldout(kinds, specs, {store.folder.name: store})


def store_of(tmp_path, heldout: int, completion: slice | None = None) -> TokenStore:
    def completions(count: int) -> np.ndarray:
        mask = np.zeros(count, bool)
        mask[completion] = True
        return mask

    masks = completions if completion is not None else None
    return TokenStore.open(tmp_path / write_store(tmp_path, "a", np.arange(64), np.arange(heldout), 64, masks))


def test_a_split_shorter_than_two_windows_is_refused(tmp_path):
    store = store_of(tmp_path, 16)
    with pytest.raises(UserError, match=r"corpus 'a': its held-out split has 16 tokens, which is 1 window\(s\)"):
        check(store, [kind(store)])
    with pytest.raises(UserError, match=r"which is 1 window\(s\) of seq_len 8, and at least 2 are needed"):
        check(store, [], [stops(store, 1)])
    store = store_of(tmp_path, 17)
    check(store, [kind(store)], [stops(store, 1)])


def test_reported_windows_without_a_completion_are_refused(tmp_path):
    store = store_of(tmp_path, 41, slice(30, 33))  # targets of window 3, the fourth of five
    check(store, [kind(store)])
    with pytest.raises(UserError, match=r"stands in its held-out windows 1 to 2 of 8 tokens, that are reported"):
        check(store, [kind(store, loss_on="completion")])
    check(store, [kind(store, loss_on="completion", windows=3)])
    check(store, [kind(store, loss_on="completion", stop_windows=99)])  # two stop at most, so three are reported
    store = store_of(tmp_path, 41, slice(2, 5))
    with pytest.raises(UserError, match=r"held-out windows 1 to 4 of 8 tokens"):  # those that stop are not reported
        check(store, [kind(store, loss_on="completion", windows=99)])


def test_windows_that_stop_a_stage_need_a_completion_too(tmp_path):
    store = store_of(tmp_path, 41, slice(10, 13))
    check(store, [kind(store, loss_on="completion")], [stops(store, 2)])
    check(store, [], [SimpleNamespace(stop=None, seq_len=8, loss_on="completion"), stops(store, 1, "all")])
    with pytest.raises(UserError, match=r"windows 0 to 0 of 8 tokens, that stop a stage"):
        check(store, [kind(store, loss_on="completion")], [stops(store, 1)])


def test_a_store_without_prompts_counts_every_token(tmp_path):
    store = store_of(tmp_path, 41)
    check(store, [kind(store, loss_on="completion")], [stops(store, 2)])
