"""One's own files: what is read, and what is refused with which words."""

import gzip
import json
import os
from pathlib import Path

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from indelible.corpora import documents, listing, local, recipe
from indelible.corpora.zst import zstd
from indelible.errors import UserError
from indelible.study.corpus_spec import LocalCorpus

ROWS = [{"text": f"Document number {i}, about matter {i * 7}.", "src": "ab"[i % 2], "n": i} for i in range(6)]


def write_jsonl(path: Path, rows: list[dict]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def texts(tmp_path: Path, **spec: object) -> list[str]:
    return [d.text for d in documents(LocalCorpus.model_validate({"kind": "local", **spec}), tmp_path / "cache")]


def refusal(tmp_path: Path, **spec: object) -> str:
    with pytest.raises(UserError) as caught:
        texts(tmp_path, **spec)
    return str(caught.value)


def test_the_same_rows_come_out_of_every_format(tmp_path: Path) -> None:
    plain = write_jsonl(tmp_path / "a.jsonl", ROWS)
    (tmp_path / "b.jsonl.gz").write_bytes(gzip.compress(plain.read_bytes()))
    (tmp_path / "c.jsonl.zst").write_bytes(zstd.compress(plain.read_bytes()))
    pl.DataFrame(ROWS).write_parquet(tmp_path / "d.parquet")
    wanted = [row["text"] for row in ROWS]
    for name in ("a.jsonl", "b.jsonl.gz", "c.jsonl.zst", "d.parquet"):
        assert texts(tmp_path, path=str(tmp_path / name)) == wanted, name


def test_folders_are_read_in_the_order_of_names_and_hidden_files_left(tmp_path: Path) -> None:
    (tmp_path / "in" / "z").mkdir(parents=True)
    write_jsonl(tmp_path / "in" / "z" / "2.jsonl", ROWS[2:4])
    write_jsonl(tmp_path / "in" / "a.jsonl", ROWS[:2])
    write_jsonl(tmp_path / "in" / ".hidden.jsonl", ROWS[4:])
    (tmp_path / "in" / "notes.doc").write_text("of an unknown kind")
    assert texts(tmp_path, path=str(tmp_path / "in")) == [row["text"] for row in ROWS[:4]]


def test_filter_source_column_and_licence(tmp_path: Path) -> None:
    path = str(write_jsonl(tmp_path / "a.jsonl", ROWS))
    spec = LocalCorpus(path=path, filter={"src": ["a"], "n": [0, 2]}, source_column="src", licence="CC0")
    found = list(documents(spec, tmp_path))
    assert [(d.text, d.source, d.licence) for d in found] == [(ROWS[i]["text"], "a", "CC0") for i in (0, 2)]


def test_prompt_and_completion_are_kept_apart(tmp_path: Path) -> None:
    rows = [{"q": "Two and two?", "a": "Four."}, {"q": "Empty?", "a": " "}]
    path = str(write_jsonl(tmp_path / "a.jsonl", rows))
    spec = LocalCorpus(path=path, prompt_column="q", completion_column="a", template="Q: {prompt}\nA: {completion}")
    (document,) = documents(spec, tmp_path)
    assert document.text[: document.prompt_chars] == "Q: Two and two?\nA: "
    assert document.text[document.prompt_chars :] == "Four."


def test_text_files_are_cut_at_paragraphs(tmp_path: Path) -> None:
    paragraphs = [f"Paragraph {i}. " + "word " * 40 for i in range(200)]
    (tmp_path / "book.txt").write_text("\n\n".join(paragraphs))
    pieces = texts(tmp_path, path=str(tmp_path / "book.txt"), document_bytes=1000)
    assert max(map(len, pieces)) <= 1500
    assert "".join("".join(pieces).split()) == "".join("".join(paragraphs).split())
    assert all(piece.startswith("Paragraph") for piece in pieces)
    assert len(texts(tmp_path, path=str(tmp_path / "book.txt"), document_bytes=None)) == 1


def test_a_long_text_file_is_read_in_blocks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local, "_TEXT_BLOCK", 700)
    lines = [f"line {i} of a file without blank lines" for i in range(400)]
    (tmp_path / "a.txt").write_text("\n".join(lines))
    pieces = texts(tmp_path, path=str(tmp_path / "a.txt"), document_bytes=300)
    assert "\n".join(pieces).split("\n") == lines


def test_recipe_knows_content_not_place(tmp_path: Path) -> None:
    first = write_jsonl(tmp_path / "a.jsonl", ROWS)
    (tmp_path / "moved").mkdir()
    second = write_jsonl(tmp_path / "moved" / "a.jsonl", ROWS)
    recipes = [recipe(LocalCorpus(path=str(path)), tmp_path / "cache") for path in (first, second)]
    assert recipes[0] == recipes[1]
    write_jsonl(second, ROWS[:-1])
    assert recipe(LocalCorpus(path=str(second)), tmp_path / "cache") != recipes[0]


def test_hashes_are_cached_until_the_file_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_jsonl(tmp_path / "a.jsonl", ROWS)
    monkeypatch.setattr(listing, "_FRESH_SECONDS", -1.0)
    calls: list[Path] = []
    real = listing.file_sha256
    monkeypatch.setattr(listing, "file_sha256", lambda p: calls.append(p) or real(p))
    first = recipe(LocalCorpus(path=str(path)), tmp_path / "cache")
    assert recipe(LocalCorpus(path=str(path)), tmp_path / "cache") == first
    assert len(calls) == 1
    os.utime(path, (1_000_001, 1_000_001))
    recipe(LocalCorpus(path=str(path)), tmp_path / "cache")
    assert len(calls) == 2


@pytest.mark.parametrize("how", ["written over", "renamed over"])
def test_another_file_of_the_same_size_and_time_is_noticed(tmp_path: Path, monkeypatch, how: str) -> None:
    """Two releases of a reproducible archive have the same time of change."""
    monkeypatch.setattr(listing, "_FRESH_SECONDS", -1.0)
    path = write_jsonl(tmp_path / "a.jsonl", ROWS)
    os.utime(path, (1_000_000, 1_000_000))
    first = recipe(LocalCorpus(path=str(path)), tmp_path / "cache")
    other = path if how == "written over" else tmp_path / "b.jsonl"
    other.write_text(path.read_text().replace("matter", "letter"))
    os.utime(other, (1_000_000, 1_000_000))
    os.replace(other, path)
    assert recipe(LocalCorpus(path=str(path)), tmp_path / "cache") != first


@pytest.mark.parametrize("content", ["[1, 2]", "{", '{"a": 3}', ""])
def test_a_broken_cache_of_hashes_is_an_empty_one(tmp_path: Path, content: str) -> None:
    path = write_jsonl(tmp_path / "a.jsonl", ROWS)
    first = recipe(LocalCorpus(path=str(path)), tmp_path / "cache")
    (tmp_path / "cache").mkdir(exist_ok=True)
    (tmp_path / "cache" / "file-hashes.json").write_text(content.replace("a", str(path)))
    assert recipe(LocalCorpus(path=str(path)), tmp_path / "cache") == first


def test_missing_path(tmp_path: Path) -> None:
    assert "no such file or folder" in refusal(tmp_path, path=str(tmp_path / "nowhere"))


def test_unknown_ending(tmp_path: Path) -> None:
    (tmp_path / "a.doc").write_text("x")
    assert "Set format to jsonl, parquet or text" in refusal(tmp_path, path=str(tmp_path / "a.doc"))
    (tmp_path / "folder").mkdir()
    assert "no files to read" in refusal(tmp_path, path=str(tmp_path / "folder"))


def test_empty_file(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text("")
    assert "a.jsonl is empty" in refusal(tmp_path, path=str(tmp_path / "a.jsonl"))


def test_duplicated_files(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    for name in ("a.jsonl", "b.jsonl"):
        write_jsonl(tmp_path / "in" / name, ROWS)
    message = refusal(tmp_path, path=str(tmp_path / "in"))
    assert "b.jsonl holds the same bytes as" in message
    assert "a.jsonl" in message
    assert len(texts(tmp_path, path=str(tmp_path / "in"), odd_files="skip")) == len(ROWS)


def test_wrong_encoding(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes(b'{"text": "fine"}\n{"text": "caf\xe9"}\n')
    assert "a.jsonl line 2: not UTF-8 (byte 13 is 0xe9)" in refusal(tmp_path, path=str(tmp_path / "a.jsonl"))
    (tmp_path / "b.txt").write_bytes(b"fine\n\nfine\ncaf\xe9 au lait")
    for size in (None, 8192):
        message = refusal(tmp_path, path=str(tmp_path / "b.txt"), document_bytes=size)
        assert "b.txt line 4: not UTF-8 (byte 3 is 0xe9)" in message


def test_a_json_line_cut_in_half(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"text": "fine"}\n{"text": "half of\n')
    message = refusal(tmp_path, path=str(tmp_path / "a.jsonl"))
    assert "a.jsonl line 2: not JSON (the line seems cut off)" in message


def test_a_line_without_end_does_not_fill_the_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local, "_MAX_LINE_BYTES", 1000)
    path = write_jsonl(tmp_path / "a.jsonl", ROWS)
    assert len(texts(tmp_path, path=str(path))) == len(ROWS)
    path.write_text(json.dumps(ROWS * 20))
    assert "a.jsonl line 1: a line of more than 1,000 bytes" in refusal(tmp_path, path=str(path))


def test_half_a_surrogate_pair(tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "a.jsonl", [ROWS[0], {"text": "whole \U0001f600, half \ud83d"}])
    assert "a.jsonl line 2: character 14 of the text is '\\ud83d', half of a" in refusal(tmp_path, path=str(path))


def test_a_byte_order_mark_is_no_text(tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "a.jsonl", ROWS)
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    assert texts(tmp_path, path=str(path)) == [row["text"] for row in ROWS]


def test_a_line_that_is_no_object(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('"only text"\n')
    assert "line 1: a JSON str where each line must be an object" in refusal(tmp_path, path=str(tmp_path / "a.jsonl"))


def test_missing_column(tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "a.jsonl", ROWS)
    message = refusal(tmp_path, path=str(path), text_column="body")
    assert "a.jsonl line 1: no column 'body'; it has 'text', 'src', 'n'" in message
    pl.DataFrame(ROWS).write_parquet(tmp_path / "d.parquet")
    assert "no column 'body'" in refusal(tmp_path, path=str(tmp_path / "d.parquet"), text_column="body")


def test_nested_and_numeric_columns(tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "a.jsonl", [{"text": ["a", "b"], "n": 3}])
    assert "line 1: column 'text' is nested, not text" in refusal(tmp_path, path=str(path))
    assert "line 1: column 'n' is of type int, not text" in refusal(tmp_path, path=str(path), text_column="n")


def test_a_document_of_fifty_megabytes(tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "a.jsonl", [ROWS[0], {"text": "x" * 50_000_000}])
    assert "line 2: a document of 50,000,000 bytes" in refusal(tmp_path, path=str(path))
    (tmp_path / "b.txt").write_text("x" * 50_000_000)
    for size in (None, 50_000_000):
        assert "b.txt: a document of" in refusal(tmp_path, path=str(tmp_path / "b.txt"), document_bytes=size)


def test_damaged_archive_and_parquet(tmp_path: Path) -> None:
    whole = gzip.compress(b'{"text": "' + os.urandom(5000).hex().encode() + b'"}\n')
    (tmp_path / "a.jsonl.gz").write_bytes(whole[: len(whole) // 2])
    assert "cannot be unpacked" in refusal(tmp_path, path=str(tmp_path / "a.jsonl.gz"))
    text = "\n\n".join(os.urandom(30).hex() for _ in range(20_000))
    packed = zstd.compress(text.encode())
    for cut in (len(packed) // 2, len(packed) - 1):
        (tmp_path / "a.txt.zst").write_bytes(packed[:cut])
        message = refusal(tmp_path, path=str(tmp_path / "a.txt.zst"))
        assert "a.txt.zst: cannot be unpacked (Compressed file ended before the end-of-stream" in message
    frames = [zstd.compress(part.encode()) for part in (text[:40_001], text[40_001:])]
    (tmp_path / "a.txt.zst").write_bytes(b"".join(frames))
    assert "\n\n".join(texts(tmp_path, path=str(tmp_path / "a.txt.zst"))) == text, "two frames are one file"
    (tmp_path / "b.parquet").write_bytes(b"PAR1 but no more")
    assert "b.parquet: not a Parquet file" in refusal(tmp_path, path=str(tmp_path / "b.parquet"))
    pl.DataFrame({"text": [os.urandom(40).hex() for _ in range(500)]}).write_parquet(tmp_path / "c.parquet")
    data = bytearray((tmp_path / "c.parquet").read_bytes())
    data[1000:9000] = bytes(8000)
    (tmp_path / "c.parquet").write_bytes(data)
    message = refusal(tmp_path, path=str(tmp_path / "c.parquet"))
    assert "c.parquet after row 0: cannot be read" in message
    assert "the file is damaged" in message


def test_parquet_strings_that_are_no_utf8_and_nested_ones(tmp_path: Path) -> None:
    raw = pa.array([b"fine", b"caf\xe9"])
    strings = pa.StringArray.from_buffers(2, *raw.buffers()[1:])  # nobody checks what a file claims to be text
    pq.write_table(pa.table({"text": strings, "list": [["a"], ["b"]], "raw": raw}), tmp_path / "a.parquet")
    path = str(tmp_path / "a.parquet")
    assert "a.parquet rows 1 to 2: not UTF-8" in refusal(tmp_path, path=path)
    assert "a.parquet row 1: column 'list' is nested, not text" in refusal(tmp_path, path=path, text_column="list")
    assert "column 'raw' is of type bytes, not text" in refusal(tmp_path, path=path, text_column="raw")


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ({"prompt_column": "q"}, "name both or neither"),
        ({"prompt_column": "q", "completion_column": "a", "text_column": "t"}, "not all three"),
        ({"template": "{completion}{prompt}"}, "must hold"),
        ({"template": "{prompt}{completion}{completion}"}, "more than once"),
    ],
)
def test_contradicting_columns(spec: dict, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        LocalCorpus.model_validate({"path": "x", **spec})
