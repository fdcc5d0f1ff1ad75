"""Pairs of answers: from JSONL and Parquet to a store and back, their split, what is dropped, and what is refused."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from indelible.corpora.document import Document
from indelible.corpora.fields import document_of
from indelible.corpora.parse_preferences import answer_pair
from indelible.corpora.sources import documents, recipe
from indelible.data.audit import audit_study
from indelible.data.encode import Encoder
from indelible.data.pairs import PairBatch, PairTable
from indelible.data.split import document_keys
from indelible.data.store import TokenStore
from indelible.errors import UserError
from indelible.study.corpus_spec import LocalCorpus
from indelible.study.load import resolve_study
from indelible.workflow.planning import plan_study
from indelible.workflow.preparing import write_plan

COLUMNS = {"prompt_column": "prompt", "chosen_column": "chosen", "rejected_column": "rejected"}
SEQ = 48
WORDS = (
    "red",
    "green",
    "blue",
    "round",
    "square",
    "small",
    "large",
    "near",
    "far",
    "old",
    "new",
    "cold",
    "warm",
    "dry",
    "wet",
    "left",
    "right",
    "high",
    "low",
    "soft",
)


def row(number: int) -> dict[str, str]:
    """A question, every third with the prompt of the one before it; the first answer is the better one."""
    source = np.random.Generator(np.random.PCG64(number - (number % 3 == 2)))
    prompt = "what is " + " ".join(source.choice(WORDS, 5)) + "?"
    better, worse = (" ".join(np.random.default_rng([number, side]).choice(WORDS, 3 + side)) for side in (0, 1))
    return {"prompt": prompt, "chosen": f"it is {better}", "rejected": f"none but {worse}"}


def write_rows(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(one) + "\n" for one in rows))
    return path


def raw_study(path: Path, over: dict[str, Any] | None = None, corpus: dict[str, Any] | None = None) -> dict[str, Any]:
    """A study of one stage on text and one on pairs."""
    text = {"tokens": 640, "max_tokens": None, "global_batch_size": 4, "eval_interval": None, "patience": None}
    return {
        "name": "pairs", "scale": "pico", "seq_len": SEQ, "precision": "fp32", "seeds": [0],
        "tokenizer": {"kind": "bpe", "vocab_size": 512},
        "corpora": {
            "pre": {"kind": "synthetic", "language": 1, "num_documents": 60, "document_words": 120, "num_words": 64},
            "answers": {"kind": "local", "path": str(path), **COLUMNS, **(corpus or {})},
        },
        "data": {"leaks": {"near": False}, "split": {"heldout_fraction": 0.2}},
        "stages": {
            "pretrain": {"corpus": "pre", **text},
            "prefer": {"corpus": "answers", "objective": "dpo", **text, "tokens": 2 * SEQ * 40, **(over or {})},
        },
        "evaluation": {"windows": 8, "stop_windows": 8},
    }  # fmt: skip


def prepared(tmp_path: Path, rows: list[dict[str, Any]], **how: Any) -> tuple[Path, TokenStore]:
    out = tmp_path / "out"
    planned = plan_study(resolve_study(raw_study(write_rows(tmp_path / "answers.jsonl", rows), **how)))
    write_plan(planned, out)
    return out, TokenStore.open(out / "tokens" / planned.stores.corpora["answers"], verify=True)


def read_back(store: TokenStore, out: Path, split: str) -> tuple[PairBatch, list[tuple[str, str, str]]]:
    """The pairs of a side that fit, as text."""
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(next(out.glob("tokens/tokenizer-*/tokenizer.json"))))
    batch, found = store.pairs(split).read(np.arange(store.num_windows(split, SEQ)), SEQ), []
    for pair in range(len(batch)):
        parts = []
        for side in (0, 1):
            tokens, valid = batch.tokens[2 * pair + side], batch.valid[2 * pair + side]
            places = np.flatnonzero(valid) + 1
            assert tokens[places[-1]] == 0, "the end of text belongs to the answer"
            assert not tokens[places[-1] + 1 :].any(), "padding stands on the right"
            parts += [tokenizer.decode(tokens[: places[0]]), tokenizer.decode(tokens[places[:-1]])]
        assert parts[0] == parts[2], "both answers stand behind one prompt"
        found.append((parts[0], parts[1], parts[3]))
    return batch, found


def test_pairs_come_back_as_they_were_written(tmp_path):
    rows = [row(number) for number in range(120)]
    long = {**row(500), "rejected": " ".join(WORDS * 6)}
    out, store = prepared(tmp_path, [*rows, rows[0], long])
    found = [text for split in ("train", "heldout") for text in read_back(store, out, split)[1]]
    expected = {(one["prompt"] + "\n", one["chosen"], one["rejected"]) for one in rows}
    assert len(found) == len(expected) == 120, "the copy is left out"
    assert set(found) == expected
    assert store.pairs("train").too_long(SEQ) + store.pairs("heldout").too_long(SEQ) == 1
    assert store.manifest["fates"]["duplicate"]["documents"] == 1
    assert store.has_pairs
    batch, _ = read_back(store, out, "train")
    assert batch.answer_tokens.shape == (len(batch), 2)
    assert (batch.answer_tokens == batch.valid.sum(1).reshape(-1, 2)).all()
    one = batch[3:5]
    assert len(one) == 2
    assert np.array_equal(one.tokens, batch.tokens[6:10])


def test_pairs_of_one_prompt_fall_on_one_side(tmp_path):
    out, store = prepared(tmp_path, [row(number) for number in range(120)])
    sides = [{prompt for prompt, _, _ in read_back(store, out, split)[1]} for split in ("train", "heldout")]
    assert sides[0]
    assert sides[1]
    assert not sides[0] & sides[1]
    prompts = store.pairs("train").prompts(np.arange(store.num_windows("train", SEQ)), SEQ)
    assert len(set(prompts.tolist())) == len(sides[0]) < len(prompts)


def test_parquet_is_the_same_corpus_and_columns_move_no_other_recipe(tmp_path):
    rows = [row(number) for number in range(30)]
    jsonl = write_rows(tmp_path / "answers.jsonl", rows)
    pl.DataFrame(rows).write_parquet(tmp_path / "answers.parquet")
    both = [
        list(documents(LocalCorpus(path=(str(path),), **COLUMNS), tmp_path))
        for path in (jsonl, tmp_path / "answers.parquet")
    ]
    plain = [[(d.text, d.prompt_chars, d.rejected, d.group) for d in found] for found in both]
    assert plain[0] == plain[1]
    assert plain[0][0] == (f"{rows[0]['prompt']}\n{rows[0]['chosen']}", len(rows[0]["prompt"]) + 1,
                           rows[0]["rejected"], f"{rows[0]['prompt']}\n")  # fmt: skip
    text = recipe(LocalCorpus(path=(str(jsonl),), text_column="prompt"), tmp_path)
    assert not {"chosen_column", "rejected_column"} & set(text), "stores of text keep their fingerprints"
    assert recipe(LocalCorpus(path=(str(jsonl),), **COLUMNS), tmp_path)["chosen_column"] == "chosen"


def test_what_a_pair_is_decides_its_place(tmp_path):
    one = Document("p\na", 2, "s", "l", "p\n", rejected="b")
    other = Document("p\na", 2, "s", "l", "p\n", rejected="c")
    assert document_keys(one, 0)[:2] != document_keys(other, 0)[:2]
    assert document_keys(one, 0)[2] == document_keys(other, 0)[2]


def test_marks_of_a_template_stay_special_tokens(tmp_path):
    from token_folder import write_tokenizer

    folder = write_tokenizer(tmp_path / "tokenizer", 20, added=("<u>", "<a>"))
    spec = LocalCorpus(path=("x",), **COLUMNS, template="<u> {prompt} <a> {completion}")
    document = document_of({"prompt": "w3", "chosen": "w4", "rejected": "w5 w6"}, spec, "s", "here")
    prompt, better, worse = next(Encoder(folder / "tokenizer.json").encode([document], "c"))
    assert prompt.tolist() == [20, 3, 21]
    assert (better.tolist(), worse.tolist()) == ([4], [5, 6])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"chosen": " none but red ", "rejected": "none but red"}, r"line 3: 'chosen' and 'rejected' are the same ans"),
        ({"rejected": "  "}, r"line 3: column 'rejected' holds no answer; a pair needs a better and a worse one"),
        ({"chosen": None}, r"line 3: column 'chosen' holds no answer"),
        ({"chosen": [{"role": "assistant", "content": "x"}]}, r"line 3: column 'chosen' is nested, not text"),
    ],
)
def test_pairs_that_say_nothing_are_refused_before_training(tmp_path, change, message):
    rows = [row(number) for number in range(60)]
    with pytest.raises(UserError, match=message):
        prepared(tmp_path, [*rows[:2], {**rows[2], **change}, *rows[3:]])


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"rejected_column": None}, "go together: name all three"),
        ({"prompt_column": None}, "go together: name all three"),
        ({"completion_column": "x"}, "neither text_column nor completion_column"),
        ({"rejected_column": "chosen"}, "must be three columns"),
        ({"template": "{prompt}"}, "must hold {prompt} once and end with {completion}"),
    ],
)
def test_half_named_columns_are_refused(tmp_path, columns, message):
    with pytest.raises(UserError, match=message):
        resolve_study(raw_study(tmp_path / "answers.jsonl", corpus=columns))


def test_a_missing_column_is_named(tmp_path):
    rows = [{key: value for key, value in row(n).items() if key != "rejected"} for n in range(60)]
    with pytest.raises(UserError, match=r"no column 'rejected'; it has 'prompt', 'chosen'"):
        prepared(tmp_path, rows)


def test_pairs_that_are_all_too_long_are_refused(tmp_path):
    rows = [{**row(number), "chosen": " ".join(WORDS * 6)} for number in range(60)]
    with pytest.raises(UserError, match=r"0 held-out pairs fit into rows of seq_len 48 \(\d+ do not\).*longer rows"):
        prepared(tmp_path, rows)


def test_fewer_pairs_than_asked_says_how_many_there_are(tmp_path):
    rows = [row(number) for number in range(60)] + [{**row(n), "chosen": " ".join(WORDS * 6)} for n in range(100, 120)]
    with pytest.raises(
        UserError, match=r"has fewer pairs than asked: \d+ of its training split fit.*asks for 400"
    ) as e:
        prepared(tmp_path, rows, over={"tokens": 2 * SEQ * 400})
    assert "of its pairs are longer than 48 tokens and are left out whole" in str(e.value)


def test_the_audit_counts_pairs_as_two_rows(tmp_path):
    over = {"max_tokens": 2 * SEQ * 90 + SEQ * 9, "mix": [{"corpus": "pre", "fraction": 0.05}]}
    path = write_rows(tmp_path / "answers.jsonl", [row(number) for number in range(120)])
    planned = plan_study(resolve_study(raw_study(path, over)))
    write_plan(planned, tmp_path / "out")
    found = audit_study(planned.graph, tmp_path / "out" / "tokens")
    assert found.holds
    assert ("pairs are shown whole, both answers uncut", True, 1) in [
        (c.name, c.holds, c.compared) for c in found.checks
    ]
    own, mixed = (
        next(one for one in found.rows if one.stage == "prefer" and one.use == use) for use in ("answers", "pre")
    )
    assert own.realised_tokens == sum(own.tenths)
    assert abs(own.realised_tokens - 2 * SEQ * 90) <= 2 * SEQ * 4
    assert abs(own.requested_tokens - own.realised_tokens) <= 2 * SEQ * 4
    assert abs(mixed.realised_tokens - SEQ * 9) <= SEQ * 4


def test_the_audit_notices_a_cut_answer(tmp_path, monkeypatch):
    path = write_rows(tmp_path / "answers.jsonl", [row(number) for number in range(120)])
    planned = plan_study(resolve_study(raw_study(path)))
    write_plan(planned, tmp_path / "out")
    whole = PairTable.read

    def cut(table: PairTable, numbers: np.ndarray, seq_len: int) -> PairBatch:
        batch = whole(table, numbers, seq_len)
        batch.valid[0] = False
        return batch

    monkeypatch.setattr(PairTable, "read", cut)
    found = audit_study(planned.graph, tmp_path / "out" / "tokens")
    assert [check.name for check in found.checks if not check.holds] == ["pairs are shown whole, both answers uncut"]


def test_questions_with_options_become_pairs():
    options = "A. red\nB. blue\nC. green\nD. blue"
    found = answer_pair({"question": "Which? ", "options": options, "answer": "B. blue"})
    assert found.text == "Question: Which?\n\nAnswer: blue"
    assert found.text[found.prompt_chars :] == " blue"
    assert found.rejected in (" red", " green")
    assert found == answer_pair({"question": "Which? ", "options": options, "answer": "B. blue"})
    chosen = [answer_pair({"question": f"q{n}", "options": options, "answer": "B. blue"}).rejected for n in range(40)]
    assert set(chosen) == {" red", " green"}
    assert answer_pair({"question": "Which?", "options": options, "answer": "E. none"}) is None
    assert answer_pair({"question": "Which?", "options": "A. red", "answer": "A. red"}) is None
    assert answer_pair({"question": "Which?", "answer": "yes"}) is None
