"""Checks of a plan: those that need no tokens, which `plan` makes, and those that do, made before the first step."""

from collections.abc import Mapping
from pathlib import Path

from indelible.data.heldout import check_heldout
from indelible.data.ledger import check_fits, check_places
from indelible.data.row_checks import check_marks, check_trained, packed_sides
from indelible.data.row_reader import num_rows
from indelible.data.store import TokenStore
from indelible.models.given import GivenCheckpoint, check_tokenizer
from indelible.records import PackedSide
from indelible.study.graph import Graph
from indelible.study.stage_spec import StageSpec
from indelible.study.training import InitSpec


def check_without_tokens(graph: Graph) -> None:
    """Checks what can be known of every stage before its text is there.

    Raises:
        UserError: a mix does not fit into its place.
    """
    for spec in _distinct(graph):
        check_places(spec)


def check_tokens(graph: Graph, tokens_dir: Path) -> tuple[PackedSide, ...]:
    """Checks that the stores hold what a study trains on and what it is evaluated on.

    Returns:
        What became of the documents of each corpus whose documents stay whole.

    Raises:
        UserError: a corpus is smaller than asked, its held-out split is of fewer than two windows, none of the
            windows' targets counts, or a document is too long.
    """
    opened: dict[str, TokenStore] = {}
    for kind in graph.heldout:
        opened[kind.store] = opened.get(kind.store) or TokenStore.open(tokens_dir / kind.store)
    trained = dict.fromkeys(
        (store, spec.seq_len, rules) for spec in _distinct(graph) for store, rules in spec.store_rules.items()
    )
    kinds = dict.fromkeys([*trained, *((kind.store, kind.seq_len, kind.rules) for kind in graph.heldout)])
    check_marks(kinds, opened)
    check_heldout(graph.heldout, (run.spec for run in graph.runs.values()), opened)
    left_out = {kind.store: _left_out(opened[kind.store], kind.seq_len) for kind in graph.heldout}
    sizes: dict[tuple[str, int], int] = {}
    for spec in _distinct(graph):
        asked = [(store, spec.seq_len) for store in spec.data.asked_windows]
        rules = spec.store_rules
        sizes |= {key: num_rows(opened[key[0]], "train", key[1], rules[key[0]]) for key in asked if key not in sizes}
        check_fits(spec, {store: sizes[store, spec.seq_len] for store, _ in asked}, left_out)
    check_trained(trained, opened)
    return packed_sides(kinds, opened)


def _left_out(store: TokenStore, seq_len: int) -> str:
    """What of a store's text is in neither split, and of a store of pairs how many do not fit into a row, in words."""
    too_long = store.pairs("train").too_long(seq_len) if store.has_pairs else 0
    said = f" {too_long:,} of its pairs are longer than {seq_len} tokens and are left out whole." if too_long else ""
    return store.left_out() + said


def _distinct(graph: Graph) -> list[StageSpec]:
    """One spec for each stage's name, window length and data: the others ask for the same windows."""
    specs = {(run.stage, run.spec.seq_len, run.spec.data, run.spec.loss_on): run.spec for run in graph.runs.values()}
    return list(specs.values())


def check_given(given: Mapping[InitSpec, GivenCheckpoint], tokenizer_dir: Path) -> None:
    """Checks that every given checkpoint knows the tokens of the study.

    Raises:
        UserError: one has another vocabulary, or fewer embeddings than the tokenizer has ids.
    """
    for found in given.values():
        check_tokenizer(found.folder, tokenizer_dir, found.vocab_size)
