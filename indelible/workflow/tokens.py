"""Checks of a plan: those that need no tokens, which `plan` makes, and those that do, made before the first step."""

from collections.abc import Mapping
from pathlib import Path

from indelible.data.heldout import check_heldout
from indelible.data.ledger import check_fits, check_places
from indelible.data.store import TokenStore
from indelible.models.given import GivenCheckpoint, check_tokenizer
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


def check_tokens(graph: Graph, tokens_dir: Path) -> None:
    """Checks that the stores hold what a study trains on and what it is evaluated on.

    Raises:
        UserError: a corpus is smaller than asked, its held-out split is of fewer than two windows, or none of the
            windows' targets counts.
    """
    opened: dict[str, TokenStore] = {}
    for kind in graph.heldout:
        opened[kind.store] = opened.get(kind.store) or TokenStore.open(tokens_dir / kind.store)
    check_heldout(graph.heldout, (run.spec for run in graph.runs.values()), opened)
    left_out = {name: store.left_out() for name, store in opened.items()}
    sizes: dict[tuple[str, int], int] = {}
    for spec in _distinct(graph):
        asked = [(store, spec.seq_len) for store in spec.data.asked_windows]
        sizes |= {key: opened[key[0]].num_windows("train", key[1]) for key in asked if key not in sizes}
        check_fits(spec, {store: sizes[store, spec.seq_len] for store, _ in asked}, left_out)


def _distinct(graph: Graph) -> list[StageSpec]:
    """One spec for each stage's name, window length and data: the others ask for the same windows."""
    specs = {(run.stage, run.spec.seq_len, run.spec.data): run.spec for run in graph.runs.values()}
    return list(specs.values())


def check_given(given: Mapping[InitSpec, GivenCheckpoint], tokenizer_dir: Path) -> None:
    """Checks that every given checkpoint knows the tokens of the study.

    Raises:
        UserError: one has another vocabulary, or fewer embeddings than the tokenizer has ids.
    """
    for found in given.values():
        check_tokenizer(found.folder, tokenizer_dir, found.vocab_size)
