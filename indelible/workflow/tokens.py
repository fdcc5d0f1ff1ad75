"""Checks of a plan: those that need no tokens, which `plan` makes, and those that do, made before the first step."""

from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory

from indelible.data.chat import ChatTokenizer
from indelible.data.heldout import check_heldout
from indelible.data.ledger import check_fits, check_places
from indelible.data.row_checks import check_marks, check_trained, packed_sides
from indelible.data.row_reader import num_rows
from indelible.data.store import TokenStore
from indelible.data.tokenizer import copy_hf
from indelible.errors import UserError
from indelible.files import printable
from indelible.models.catalogue import CATALOGUE
from indelible.models.given import GivenCheckpoint, check_tokenizer
from indelible.records import PackedSide
from indelible.study.corpus_spec import HfTokenizer
from indelible.study.graph import Graph, total_steps
from indelible.study.load import Study
from indelible.study.stage_spec import StageSpec
from indelible.study.training import InitSpec


def check_without_tokens(graph: Graph) -> None:
    """Checks what can be known of every stage before its text is there.

    Raises:
        UserError: a mix does not fit into its place, or a curve has a step that no run of its stage has.
    """
    for spec in _distinct(graph):
        check_places(spec)
    _check_watched_steps(graph)


def check_tokenizer_folder(study: Study, given: Mapping[InitSpec, GivenCheckpoint]) -> None:
    """Checks a tokenizer that lies in a folder here: it can be read, writes what the study needs, and fits the models.

    One that must be fetched is checked when it is.

    Raises:
        UserError: there is no such folder, it is not a tokenizer that can be used, has no chat template where messages
            are to be written, or a given checkpoint knows other tokens.
    """
    spec = study.data.tokenizer
    if not isinstance(spec, HfTokenizer) or spec.path in CATALOGUE:
        return
    if not Path(spec.path).is_dir():
        if spec.path.startswith((".", "/")) or Path(spec.path).exists() or spec.path.count("/") > 1:
            raise UserError(
                f"tokenizer.path = {printable(spec.path)!r}: no such folder; give a folder with tokenizer.json, a hub "
                "id (owner/name), or a name of the catalogue."
            )
        return
    with TemporaryDirectory(prefix="indelible-") as temporary:
        folder = Path(temporary) / (Path(spec.path).resolve().name or "tokenizer")
        copy_hf(spec, folder)
        names = [*study.data.corpora, *study.evaluation_corpora]
        everywhere = {name: one for arm in study.arms for name, one in arm.corpora.items()}
        if any(everywhere[name].has_messages for name in names if name in everywhere):
            ChatTokenizer(folder)
        check_given({init: found for init, found in given.items() if found.folder.is_dir()}, folder)


def _check_watched_steps(graph: Graph) -> None:
    """A step beyond the end of one arm may be another arm's; beyond the end of all it would never be evaluated."""
    last: dict[str, int] = {}
    for run in graph.runs.values():
        last[run.stage] = max(last.get(run.stage, 0), total_steps(run.spec))
    for run in graph.runs.values():
        steps = run.watch.steps if run.watch is not None else None
        if steps and (beyond := [step for step in steps if step > last[run.stage]]):
            raise UserError(
                f"stages.{run.stage}.watch.steps = {beyond[0]:,}: the stage has {last[run.stage]:,} steps at most, so "
                "there would be no such point of the curve; name steps up to that (the end is always one), or give "
                "the stage more tokens."
            )


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
