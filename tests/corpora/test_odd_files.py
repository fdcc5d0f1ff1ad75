"""Files as people have them: marks, links, other encodings, odd JSON. Read, or refused with file, line and fix."""

import bz2
import gzip
import json
import logging
import lzma
import os
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from indelible.corpora import documents, listing, recipe
from indelible.corpora.sources import default_cache_dir
from indelible.corpora.zst import open_zst, zstd
from indelible.data.prepare import prepare
from indelible.errors import UserError
from indelible.study.corpus_spec import DataSpec, HfTokenizer, HubCorpus, LocalCorpus

LINE = json.dumps({"text": "some text"})


def texts(tmp_path: Path, path: Path | str, **spec: object) -> list[str]:
    corpus = LocalCorpus.model_validate({"path": str(path), **spec})
    return [document.text for document in documents(corpus, tmp_path / "cache")]


def refusal(tmp_path: Path, path: Path | str, **spec: object) -> str:
    with pytest.raises(UserError) as caught:
        texts(tmp_path, path, **spec)
    return str(caught.value)


@pytest.fixture
def notices(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    listing._say.cache_clear()
    caplog.set_level(logging.WARNING, "indelible")
    return caplog


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"text": "a", "n": ' + "9" * 5000 + "}", "line 1: Exceeds the limit"),
        ('{"text": "a", "deep": ' + "[" * 200_000, "line 1: lists or objects nested too deep"),
        ('{"text": "a", "text": "b"}', "line 1: the column 'text' stands twice in one object"),
        ('["a"]', "a JSON list where each line must be an object"),
        ('[{"text": "a"},', "one JSON list: write one object a line"),
        ("{", "an object must stand on one line"),
        (r'{"text": "\ud800"}', "half of a surrogate pair"),
        ("3", "a JSON int where each line must be an object"),
        ('{"text": "a"} {"text": "b"}', "not JSON: Extra data at column 15"),
    ],
)
def test_odd_json_is_one_message(tmp_path: Path, line: str, message: str) -> None:
    (tmp_path / "a.jsonl").write_text(line + "\n")
    found = refusal(tmp_path, tmp_path / "a.jsonl")
    assert message in found
    assert "a.jsonl line 1" in found


def test_a_key_inside_the_text_is_no_second_key(tmp_path: Path) -> None:
    rows = [{"text": 'it says "text" and "text"', "more": {"text": 1}}]
    (tmp_path / "a.jsonl").write_text(json.dumps(rows[0]))
    assert texts(tmp_path, tmp_path / "a.jsonl") == [rows[0]["text"]]


def test_a_source_that_is_no_text_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text(r'{"text": "a", "src": "\udc80"}')
    assert "half of a surrogate pair" in refusal(tmp_path, tmp_path / "a.jsonl", source_column="src")


def test_byte_order_marks_are_no_text(tmp_path: Path) -> None:
    mark = b"\xef\xbb\xbf"
    (tmp_path / "a.txt").write_bytes(mark + b"first line\n" + mark + b"second line\n")
    (tmp_path / "b.jsonl").write_bytes(mark + LINE.encode() + b"\n" + mark + LINE.replace("some", "more").encode())
    assert texts(tmp_path, tmp_path / "a.txt") == ["first line\nsecond line"]
    assert texts(tmp_path, tmp_path / "a.txt", document_bytes=None) == ["first line\nsecond line\n"]
    assert texts(tmp_path, tmp_path / "b.jsonl") == ["some text", "more text"]


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-be", "utf-32"])
@pytest.mark.parametrize("name", ["a.txt", "a.jsonl"])
def test_other_encodings_are_named(tmp_path: Path, encoding: str, name: str) -> None:
    start = b"\xfe\xff" if encoding == "utf-16-be" else b""
    (tmp_path / name).write_bytes(start + (LINE + "\n").encode(encoding))
    assert "is UTF-16 (by its byte order mark); convert it to UTF-8" in refusal(tmp_path, tmp_path / name)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (gzip.compress(LINE.encode(), mtime=0), "is no text but gzip; name it .gz"),
        (zstd.compress(LINE.encode()), "is no text but Zstandard; name it .zst"),
        (bz2.compress(LINE.encode()), "is no text but bzip2; unpack it"),
        (lzma.compress(LINE.encode()), "is no text but xz; unpack it"),
        (b"PK\x03\x04\x14\x00", "is no text but a ZIP archive; unpack it"),
        (b"%PDF-1.7\n\xe2\xe3", "is no text but PDF; extract its text"),
    ],
)
@pytest.mark.parametrize("name", ["a.jsonl", "a.txt"])
def test_files_that_are_no_text_are_named(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(content)
    assert message in refusal(tmp_path, tmp_path / name)


def test_parquet_under_another_name_is_named_and_read_when_asked(tmp_path: Path) -> None:
    pq.write_table(pa.table({"text": ["some text"]}), tmp_path / "a.jsonl")
    assert "is no text but Parquet; name it .parquet, or set format" in refusal(tmp_path, tmp_path / "a.jsonl")
    assert texts(tmp_path, tmp_path / "a.jsonl", format="parquet") == ["some text"]


@pytest.mark.parametrize("filtered", [{"n": "3"}, {"n": 4}, {"n": [5, 6], "text": "some text"}])
def test_a_filter_that_leaves_nothing_is_named(tmp_path: Path, filtered: dict) -> None:
    (tmp_path / "a.jsonl").write_text('{"text": "some text", "n": 3}\n')
    found = refusal(tmp_path, tmp_path / "a.jsonl", filter=filtered)
    assert "a.jsonl: no record with text passes the filter (n: " in found
    assert texts(tmp_path, tmp_path / "a.jsonl", filter={"n": 3}) == ["some text"]


@pytest.mark.parametrize("path", ["https://example.org/a.jsonl", "s3://bucket/a.parquet"])
def test_an_address_is_no_path(path: str) -> None:
    with pytest.raises(ValueError, match="is an address, not a path; fetch the file first, or use kind: hub"):
        LocalCorpus.model_validate({"path": [path]})


@pytest.mark.parametrize("path", ["", " ", ["a.jsonl", ""]])
def test_an_empty_path_is_not_the_folder_here(path: object) -> None:
    with pytest.raises(ValueError, match="an empty path; name a file or folder"):
        LocalCorpus.model_validate({"path": path})


def test_json_lines_in_a_json_file_are_read(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(LINE)
    assert texts(tmp_path, tmp_path) == ["some text"]


def test_a_file_name_in_another_encoding_is_read_and_named(tmp_path: Path) -> None:
    folder = tmp_path / "texts"
    folder.mkdir()
    Path(os.fsdecode(os.fsencode(folder) + b"/caf\xe9.jsonl")).write_text(LINE)
    assert texts(tmp_path, folder) == ["some text"]
    found = recipe(LocalCorpus(path=(str(folder),)), tmp_path / "cache")
    assert found["files"][0][1] == "caf\\xe9.jsonl"
    Path(os.fsdecode(os.fsencode(folder) + b"/caf\xe9.jsonl")).write_text("{")
    assert "caf\\xe9.jsonl line 1" in refusal(tmp_path, folder)


def test_links_are_followed_once(tmp_path: Path, notices: pytest.LogCaptureFixture) -> None:
    folder, elsewhere = tmp_path / "texts", tmp_path / "elsewhere" / "deep"
    folder.mkdir()
    elsewhere.mkdir(parents=True)
    (folder / "a.jsonl").write_text(LINE)
    (elsewhere / "b.jsonl").write_text(LINE.replace("some", "linked"))
    (elsewhere.parent / "c.jsonl").write_text(LINE.replace("some", "third"))
    (folder / "c.jsonl").symlink_to("../elsewhere/c.jsonl")
    (folder / "more").symlink_to("../elsewhere/deep")
    (folder / "loop").symlink_to(".")
    assert texts(tmp_path, folder) == ["some text", "third text", "linked text"]
    assert "loop (a link to a folder that is read already)" in notices.text


def test_a_link_to_nothing_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "texts"
    folder.mkdir()
    (folder / "a.jsonl").write_text(LINE)
    (folder / "shard-7.jsonl").symlink_to("/nonexistent/shard-7.jsonl")
    assert "shard-7.jsonl: a link to /nonexistent/shard-7.jsonl, which is not there" in refusal(tmp_path, folder)


def test_what_is_passed_over_is_said_once(tmp_path: Path, notices: pytest.LogCaptureFixture) -> None:
    folder = tmp_path / "texts"
    (folder / "pipe").parent.mkdir()
    os.mkfifo(folder / "pipe.jsonl")
    (folder / ".hidden").write_text("x")
    (folder / "a.jsonl").write_text(LINE)
    for number in range(8):
        (folder / f"table-{number}.csv").write_text("x")
    assert texts(tmp_path, folder) == texts(tmp_path, folder) == ["some text"]
    (message,) = [record.getMessage() for record in notices.records]
    assert (
        "1 files are read; passed over: pipe.jsonl (neither file nor folder), table-0.csv (unknown ending)" in message
    )
    assert "and 4 more" in message
    assert "hidden" not in message


def test_what_indelible_wrote_is_no_text(tmp_path: Path, notices: pytest.LogCaptureFixture) -> None:
    folder = tmp_path / "texts"
    (folder / "out" / "tokens").mkdir(parents=True)
    (folder / "a.jsonl").write_text(LINE)
    (folder / "out" / "tokens" / ".prepare.lock").touch()
    (folder / "out" / "metrics.jsonl").write_text('{"step": 1}')
    (folder / "cache").mkdir()
    (folder / "cache" / "file-hashes.json").write_text("{}")
    corpus = LocalCorpus(path=(str(folder),))
    assert [document.text for document in documents(corpus, folder / "cache")] == ["some text"]
    assert "cache (written by indelible), out (written by indelible)" in notices.text
    assert "this is the folder of a study run" in refusal(tmp_path, folder / "out")


def test_the_output_may_not_lie_on_the_text(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text(LINE)
    data = DataSpec(corpora={"a": LocalCorpus(path=(str(tmp_path),))})
    with pytest.raises(UserError, match="is also the folder of corpus a; choose another --out"):
        prepare(data, tmp_path / "tokens", tmp_path / "cache")


def test_a_window_of_any_length_is_unpacked(tmp_path: Path) -> None:
    options = {zstd.CompressionParameter.window_log: 27, zstd.CompressionParameter.enable_long_distance_matching: 1}
    packed = zstd.ZstdCompressor(options=options)
    (tmp_path / "a.jsonl.zst").write_bytes(packed.compress(LINE.encode() + b"\n") + packed.flush())
    assert texts(tmp_path, tmp_path / "a.jsonl.zst") == ["some text"]
    head = bytes([0x28, 0xB5, 0x2F, 0xFD, 0x00, (31 - 10) << 3])  # a frame that asks for a window of 2 GiB
    (tmp_path / "b.zst").write_bytes(head + bytes([0x01 | 5 << 3, 0, 0]) + b"hello")
    with open_zst(tmp_path / "b.zst") as stream:
        assert stream.read() == b"hello"


@pytest.mark.parametrize("change", ["cut", "flipped", "junk"])
@pytest.mark.parametrize("ending", ["gz", "zst"])
def test_a_damaged_archive_is_one_message(tmp_path: Path, ending: str, change: str) -> None:
    import gzip

    lines = "\n".join(json.dumps({"text": os.urandom(20).hex()}) for _ in range(500)).encode()
    packed = bytearray(gzip.compress(lines) if ending == "gz" else zstd.compress(lines))
    if change == "flipped":
        packed[20] ^= 0xFF
    damaged = {"cut": packed[:-9], "flipped": packed, "junk": b"no archive at all"}[change]
    (tmp_path / f"a.jsonl.{ending}").write_bytes(damaged)
    assert f"a.jsonl.{ending}" in refusal(tmp_path, tmp_path / f"a.jsonl.{ending}")


def test_a_column_that_stands_twice_in_parquet_is_refused(tmp_path: Path) -> None:
    table = pa.Table.from_arrays([pa.array(["a"]), pa.array(["b"])], names=["text", "text"])
    pq.write_table(table, tmp_path / "a.parquet")
    assert "the column 'text' stands there twice" in refusal(tmp_path, tmp_path / "a.parquet")


def test_a_tilde_is_the_home_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("INDELIBLE_CACHE", "~/cache")
    (tmp_path / "a.jsonl").write_text(LINE)
    assert LocalCorpus(path="~/a.jsonl").path == (str(tmp_path / "a.jsonl"),)  # type: ignore[arg-type]
    assert LocalCorpus(path=("~/a.jsonl", "b")).path == (str(tmp_path / "a.jsonl"), "b")
    assert HubCorpus(id="~/set", revision="main").id == str(tmp_path / "set")
    assert HfTokenizer(path="~/tok").path == str(tmp_path / "tok")
    assert default_cache_dir() == tmp_path / "cache"


def test_without_a_home_the_fix_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    def nobody(*_: object) -> str:
        raise KeyError

    monkeypatch.delenv("HOME", raising=False)
    monkeypatch.delenv("INDELIBLE_CACHE", raising=False)
    monkeypatch.setattr("pwd.getpwuid", nobody)
    with pytest.raises(UserError, match="set INDELIBLE_CACHE"):
        default_cache_dir()
    with pytest.raises(ValueError, match="the home folder of ~ is not known here"):
        LocalCorpus(path="~/a.jsonl")  # type: ignore[arg-type]


def test_the_home_of_nobody_is_no_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INDELIBLE_CACHE", "~nobody-has-this-name/cache")
    with pytest.raises(UserError, match="INDELIBLE_CACHE = '~nobody-has-this-name/cache': there is no such home"):
        default_cache_dir()
