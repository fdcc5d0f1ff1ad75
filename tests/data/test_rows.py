"""Conversations from files to rows: tokens, masks and counts by packing, and what is refused before training."""

import json
import os
import subprocess
import sys
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from chat_folder import CHATML, LAST_ONLY, MARKED, write_chat_tokenizer
from chat_study import SEQ, WORDS, raw_study, talks, write_inputs, write_talks

from indelible.corpora.messages import Message
from indelible.data import parts
from indelible.data.audit import audit_study
from indelible.data.audit_rows import rows_are_counted, rows_hold_whole_documents
from indelible.data.chat import ChatTokenizer, encode_chat
from indelible.data.fingerprint import study_stores
from indelible.data.loader import read_part
from indelible.data.prepare import prepare
from indelible.data.row_reader import num_rows, row_counts, target_documents
from indelible.data.store import TokenStore
from indelible.errors import UserError
from indelible.study.corpus_spec import DataSpec
from indelible.study.graph import build_graph
from indelible.study.load import resolve_study
from indelible.study.row_rules import RowRules
from indelible.workflow.tokens import check_tokens


def made(tmp_path: Path, corpus: dict[str, Any], template: str | None = CHATML) -> TokenStore:
    """The store of one corpus of conversations."""
    write_chat_tokenizer(tmp_path / "tok", template)
    data = DataSpec.model_validate(
        {
            "corpora": {"chat": {"kind": "local", **corpus}},
            "tokenizer": {"kind": "hf", "path": str(tmp_path / "tok")},
            "split": {"heldout_fraction": 0.2},
            "leaks": {"near": False},
        }
    )
    prepare(data, tmp_path / "out" / "tokens", tmp_path / "cache")
    (folder,) = (tmp_path / "out" / "tokens").glob("chat-*")
    return TokenStore.open(folder, verify=True)


def conversations_of(store: TokenStore, split: str) -> list[tuple[list[int], list[int]]]:
    count = len(store._splits[split].document_sizes)
    found = [store.document(split, number) for number in range(count)]
    return [(ids.tolist(), mask.tolist() if mask is not None else []) for ids, mask in found]


@pytest.mark.parametrize("template", [CHATML, MARKED])
def test_a_store_holds_what_the_template_writes(tmp_path: Path, template: str) -> None:
    given = talks(60)
    store = made(
        tmp_path, {"path": str(write_talks(tmp_path / "a.jsonl", given)), "messages_column": "messages"}, template
    )
    tokenizer = ChatTokenizer(tmp_path / "tok")
    expected = []
    for talk in given:
        messages = [Message(**message) for message in talk]
        ids, assistant = encode_chat(tokenizer, messages, "assistant")
        _, completion = encode_chat(tokenizer, messages, "completion")
        expected.append((ids.tolist(), (assistant + 2 * completion).tolist()))
    found = conversations_of(store, "train") + conversations_of(store, "heldout")
    assert sorted(found) == sorted(expected)
    assert store.manifest["has_mask"]
    assert store.manifest["chat"] == {"unmarked": 0, "why_not": ""}


def test_parts_of_a_larger_corpus_keep_their_masks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def done(self: parts.Pool, *job: Any) -> Future[tuple[int, int]]:
        future: Future[tuple[int, int]] = Future()
        future.set_result(parts.encode_chunk(*job))
        return future

    path = write_talks(tmp_path / "a.jsonl", talks(80))
    for name in ("one", "many"):
        (tmp_path / name).mkdir()
    one = made(tmp_path / "one", {"path": str(path), "messages_column": "messages"})
    monkeypatch.setattr(parts, "CHUNK_BYTES", 1_000)
    monkeypatch.setattr(parts.Pool, "submit", done)
    many = made(tmp_path / "many", {"path": str(path), "messages_column": "messages"})
    assert one.manifest["fingerprint"] == many.manifest["fingerprint"]
    assert one.manifest["shards"] == many.manifest["shards"], "the files have the same hashes"


def test_parquet_and_the_other_spelling_and_pairs_give_the_same_tokens(tmp_path: Path) -> None:
    given = [talk[:2] for talk in talks(40)]
    sharegpt = [[{"from": "human", "value": a["content"]}, {"from": "gpt", "value": b["content"]}] for a, b in given]
    pairs = [{"prompt": a["content"], "completion": b["content"]} for a, b in given]
    lists = [{"prompt": [a], "completion": [b]} for a, b in given]
    for name in "abcde":
        (tmp_path / name).mkdir()
    pq.write_table(pa.table({"messages": given}), tmp_path / "b" / "x.parquet")
    (tmp_path / "d" / "x.jsonl").write_text("".join(json.dumps(pair) + "\n" for pair in pairs))
    (tmp_path / "e" / "x.jsonl").write_text("".join(json.dumps(pair) + "\n" for pair in lists))
    columns = {"prompt_column": "prompt", "completion_column": "completion", "template": "chat"}
    column = {"messages_column": "messages"}
    stores = [
        made(
            tmp_path / "a", {"path": str(write_talks(tmp_path / "a" / "x.jsonl", given)), "messages_column": "messages"}
        ),
        made(tmp_path / "b", {"path": str(tmp_path / "b" / "x.parquet"), **column}),
        made(
            tmp_path / "c",
            {"path": str(write_talks(tmp_path / "c" / "x.jsonl", sharegpt, "talk")), "messages_column": "talk"},
        ),
        made(tmp_path / "d", {"path": str(tmp_path / "d" / "x.jsonl"), **columns}),
        made(tmp_path / "e", {"path": str(tmp_path / "e" / "x.jsonl"), **columns}),
    ]
    found = [conversations_of(store, "train") for store in stores]
    assert all(one == found[0] for one in found)
    assert len({store.manifest["fingerprint"] for store in stores}) == 5


RULES = [RowRules(loss_on=loss_on, packing=packing, too_long="drop")
         for loss_on in ("all", "completion", "assistant") for packing in ("documents", "best_fit")]  # fmt: skip


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> TokenStore:
    folder = tmp_path_factory.mktemp("rows")
    path = write_talks(folder / "a.jsonl", talks(150, longest=20))
    return made(folder, {"path": str(path), "messages_column": "messages"})


@pytest.mark.parametrize("rules", RULES, ids=str)
def test_rows_are_whole_documents_with_their_masks(store: TokenStore, rules: RowRules) -> None:
    count = num_rows(store, "train", SEQ, rules)
    batch = read_part(store, "train", np.arange(count), SEQ, rules)
    documents = target_documents(store, "train", np.arange(count), SEQ, rules)
    bit = {"all": None, "assistant": 1, "completion": 2}[rules.loss_on]
    seen: list[int] = []
    for line in range(count):
        numbers = list(dict.fromkeys(n for n in documents[line].tolist() if n >= 0))
        pieces = [store.document("train", number) for number in numbers]
        joined = np.concatenate([ids for ids, _ in pieces])
        assert batch.tokens[line, : len(joined)].tolist() == joined.tolist()
        assert not batch.tokens[line, len(joined) :].any()
        counts = [np.ones(len(ids), bool) if bit is None else (mask & bit) != 0 for ids, mask in pieces]
        for one in counts:
            one[0] = False
        expected = np.zeros(SEQ + 1, bool)
        expected[: len(joined)] = np.concatenate(counts)
        assert (batch.valid[line] == expected[1:]).all()
        places = np.concatenate([*(np.arange(len(ids)) for ids, _ in pieces), np.arange(SEQ + 1 - len(joined))])
        if rules.packing == "best_fit":
            assert batch.positions is not None
            assert (batch.positions[line] == places[:-1]).all()
        else:
            assert batch.positions is None
            assert len(numbers) == 1
        seen += numbers
    sizes = [len(ids) for ids, _ in conversations_of(store, "train")]
    assert sorted(seen) == [number for number, size in enumerate(sizes) if size <= SEQ + 1]
    assert 0 < len(seen) < len(sizes), "some are too long"
    totals = row_counts(store, "train", SEQ, rules)
    assert (totals.trained == batch.valid.sum(1)).all()
    assert totals.tokens.sum() == sum(size for size in sizes if size <= SEQ + 1)
    assert rows_hold_whole_documents(store, SEQ, rules)
    assert rows_are_counted(store, SEQ, rules)


@pytest.mark.parametrize("loss_on", ["all", "completion", "assistant"])
def test_windows_of_a_stream_count_by_the_mask(store: TokenStore, loss_on: str) -> None:
    rules = RowRules(loss_on=loss_on)  # type: ignore[arg-type]
    count = num_rows(store, "train", SEQ, rules)
    batch = read_part(store, "train", np.arange(count), SEQ, rules)
    counts = row_counts(store, "train", SEQ, rules)
    assert (counts.trained == batch.valid.sum(1)).all()
    assert batch.valid.all() == (loss_on == "all")
    assert (counts.tokens == SEQ).all()


@pytest.mark.parametrize("packing", ["stream", "documents", "best_fit"])
def test_rows_of_several_shards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, packing: str) -> None:
    monkeypatch.setattr("indelible.data.shards.SHARD_TOKENS", 700)
    path = write_talks(tmp_path / "a.jsonl", talks(80))
    store = made(tmp_path, {"path": str(path), "messages_column": "messages"})
    assert len(store.manifest["shards"]["train"]) > 3
    rules = RowRules(loss_on="completion", packing=packing)  # type: ignore[arg-type]
    rows = np.arange(num_rows(store, "train", 150, rules))
    batch = read_part(store, "train", rows, 150, rules)
    counts = row_counts(store, "train", 150, rules)
    assert (counts.trained == batch.valid.sum(1)).all()
    documents = target_documents(store, "train", rows, 150, rules)
    for line, column in zip(*np.nonzero(batch.valid), strict=True):
        ids, _ = store.document("train", int(documents[line, column]))
        assert batch.tokens[line, column + 1] in ids
    if packing != "stream":
        assert rows_hold_whole_documents(store, 150, rules)
        assert sorted(set(documents[documents >= 0].tolist())) == list(range(len(conversations_of(store, "train"))))


def test_an_audit_of_rows_can_fail(store: TokenStore, monkeypatch: pytest.MonkeyPatch) -> None:
    rules = RowRules(loss_on="assistant", packing="best_fit", too_long="drop")
    plan = store.row_plan("train", SEQ, rules.packing, rules.too_long)
    twice = plan.document.copy()
    twice[1] = twice[0]
    broken = type(plan)(twice, plan.size, plan.first, plan.documents, plan.too_long, plan.longest)
    monkeypatch.setattr(store, "row_plan", lambda *_: broken)
    assert not rows_hold_whole_documents(store, SEQ, rules)
    monkeypatch.undo()
    counts = row_counts(store, "train", SEQ, RULES[1])
    monkeypatch.setattr("indelible.data.audit_rows.row_counts", lambda *_: counts)  # as if all tokens were trained on
    assert not rows_are_counted(store, SEQ, rules)


def checked(tmp_path: Path, corpus: dict[str, Any], template: str | None = CHATML, longest: int = 12) -> Any:
    """Prepares a study's tokens and makes every check before the first step."""
    write_inputs(tmp_path, template, longest)
    study = resolve_study(raw_study(tmp_path, corpus))
    prepare(study.data, tmp_path / "out" / "tokens", tmp_path / "cache")
    graph = build_graph(study, study_stores(study, tmp_path / "cache"))
    return graph, check_tokens(graph, tmp_path / "out" / "tokens")


def test_a_study_is_counted_and_audited(tmp_path: Path) -> None:
    graph, sides = checked(tmp_path, {"loss_on": "assistant", "packing": "best_fit", "too_long": "drop"}, longest=20)
    assert [(side.corpus, side.split) for side in sides] == [("chat", "train"), ("chat", "heldout")]
    assert 0 < sides[0].documents_too_long < sides[0].documents
    assert 0 < sides[0].trained_tokens < sides[0].tokens <= sides[0].rows * (SEQ + 1)
    audit = audit_study(graph, tmp_path / "out" / "tokens")
    assert audit.holds
    assert {check.name for check in audit.checks if check.compared} >= {
        "every whole document stands in one row, and fits it",
        "rows of whole documents train on the tokens that are counted",
    }
    rows = {(row.stage, row.use): row for row in audit.rows}
    base, chat = rows["pretrain", "base"], rows["pretrain", "chat"]
    assert base.trained_tokens == base.tokens == base.realised_tokens == base.rows * SEQ
    assert chat.rows == 6  # half of posttrain's 12 rows
    assert 0 < chat.trained_tokens < chat.tokens <= chat.rows * (SEQ + 1)


def test_streams_keep_their_ids_and_rules_move_only_what_they_change(tmp_path: Path) -> None:
    write_inputs(tmp_path)

    def ids(corpus: dict[str, Any]) -> dict[str, str]:
        study = resolve_study(raw_study(tmp_path, corpus))
        graph = build_graph(study, study_stores(study, tmp_path / "cache"))
        return graph.chains[0].runs  # without exposure

    plain = ids({})
    assert ids({"packing": "stream", "loss_on": "all"}) == plain
    packed = ids({"packing": "documents"})
    assert packed["pretrain"] == plain["pretrain"]
    assert packed["posttrain"] != plain["posttrain"]
    assert len({ids(rules)["posttrain"] for rules in (
        {}, {"packing": "documents"}, {"packing": "best_fit"}, {"loss_on": "assistant"}, {"loss_on": "completion"},
        {"packing": "documents", "too_long": "cut"},
    )}) == 6  # fmt: skip


@pytest.mark.parametrize(
    ("corpus", "template", "longest", "message"),
    [
        (
            {"packing": "documents"},
            CHATML,
            20,
            r"corpora\.chat\.packing = documents: \d+ of its \d+ \w+ documents",
        ),
        ({"packing": "best_fit"}, CHATML, 20, r"longer than seq_len \+ 1 = 65 tokens .* corpora\.chat\.too_long: drop"),
        ({"loss_on": "assistant"}, LAST_ONLY, 12, r"loss_on: assistant: of \d+ conversation.* does not mark what the"),
        ({}, None, 12, r"corpus chat|tokenizer .* has no chat template"),
    ],
)
def test_what_cannot_be_trained_on_is_refused(tmp_path, corpus, template, longest, message) -> None:
    with pytest.raises(UserError, match=message):
        checked(tmp_path, corpus, template, longest)


def test_the_commands_refuse_count_and_audit(tmp_path: Path) -> None:
    write_inputs(tmp_path, longest=20)
    raw = raw_study(tmp_path, {"packing": "best_fit", "loss_on": "assistant"})
    (tmp_path / "study.yaml").write_text(yaml.safe_dump(raw))

    def indelible(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "indelible.cli.main", *arguments]
        environment = {**os.environ, "INDELIBLE_CACHE": str(tmp_path / "cache")}
        return subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path, env=environment)

    refused = indelible("run", "study.yaml", "--out", "out")
    assert refused.returncode == 2
    assert "longer than seq_len + 1 = 65 tokens" in refused.stderr
    assert "Traceback" not in refused.stderr
    assert not list((tmp_path / "out").glob("runs/*/metrics.jsonl"))
    drop = ("--set", "corpora.chat.too_long=drop")
    audited = indelible("ledger", "study.yaml", "--out", "out", *drop)
    assert audited.returncode == 0, audited.stderr
    assert "every whole document stands in one row, and fits it: holds (1 compared)" in audited.stdout
    planned = indelible("plan", "study.yaml", "--out", "out", *drop)
    assert "longer than a row left out" in planned.stdout


def test_a_template_without_marks_trains_on_all(tmp_path: Path) -> None:
    _, sides = checked(tmp_path, {"packing": "documents", "too_long": "cut"}, LAST_ONLY, 20)
    assert sides[0].documents_too_long > 0
    assert sides[0].rows == sides[0].documents


def test_nothing_left_to_train_on(tmp_path: Path) -> None:
    write_inputs(tmp_path)
    long = [[{"role": "user", "content": " ".join(WORDS * 20) + f" {n}"}, {"role": "assistant", "content": "Yes"}]
            for n in range(60)]  # fmt: skip
    write_talks(tmp_path / "chat.jsonl", long)
    rules = {"packing": "documents", "too_long": "cut", "loss_on": "assistant"}
    study = resolve_study(raw_study(tmp_path, rules))
    prepare(study.data, tmp_path / "out" / "tokens", tmp_path / "cache")
    graph = build_graph(study, study_stores(study, tmp_path / "cache"))
    with pytest.raises(UserError, match=r"no token of a completion stands|no token of its training split is left"):
        check_tokens(graph, tmp_path / "out" / "tokens")


def test_empty_completions_are_refused(tmp_path: Path) -> None:
    write_inputs(tmp_path)
    write_talks(tmp_path / "chat.jsonl", [[{"role": "user", "content": f"Hello {n}"},
                                           {"role": "assistant", "content": " "}] for n in range(20)])  # fmt: skip
    study = resolve_study(raw_study(tmp_path, {}))
    with pytest.raises(UserError, match=r"of 0 usable documents .* assistant's message is empty"):
        prepare(study.data, tmp_path / "out" / "tokens", tmp_path / "cache")


@pytest.mark.parametrize(
    ("corpus", "message"),
    [
        ({"too_long": "drop"}, "too_long: drop is for packing: documents or best_fit"),
        ({"packing": "tight"}, "corpora.chat.packing = 'tight'"),
        ({"text_column": "text"}, "name either messages_column, or text_column"),
        ({"messages_column": None, "template": "chat"}, "template: chat is for prompt_column and completion_column"),
    ],
)
def test_settings_that_make_no_sense(tmp_path: Path, corpus: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        resolve_study(raw_study(tmp_path, corpus))


def test_a_tokenizer_that_is_trained_has_no_template(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"corpora\.chat is of messages.*kind: bpe\) has none"):
        resolve_study(raw_study(tmp_path, {}) | {"tokenizer": {"kind": "bpe"}})
