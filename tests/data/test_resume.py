"""Preparing is killed, and done twice at once: no document is lost or doubled, no part is made twice."""

import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import polars as pl
import pytest

from indelible.corpora import Document
from indelible.data import parts as parts_module
from indelible.data import prepare as prepare_module
from indelible.data import store_job
from indelible.data.prepare import fingerprints, prepare
from indelible.data.store import TokenStore
from indelible.data.tokenizer import open_tokenizer, train_bpe
from indelible.errors import UserError
from indelible.study.corpus_spec import BpeTokenizer, DataSpec

SCRIPT = """
import sys
from pathlib import Path
from typing import Any
from indelible.data import parts
from indelible.data.prepare import prepare
from indelible.study.corpus_spec import DataSpec

if __name__ == "__main__":
    parts.CHUNK_BYTES = 80_000
    root, tokens = Path(sys.argv[1]), Path(sys.argv[2])
    prepare(DataSpec.model_validate_json((root / "data.json").read_text()), tokens, root / "cache")
"""


@pytest.fixture
def root(tmp_path: Path) -> Path:
    words = [f"word{i}" for i in range(500)]
    rows = [f"Document {i}: " + " ".join(random.Random(i).choices(words, k=100)) for i in range(3000)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps({"text": row}) + "\n" for row in rows))
    data = {
        "corpora": {"rows": {"kind": "local", "path": str(tmp_path / "rows.jsonl")}},
        "tokenizer": {"kind": "bpe", "vocab_size": 600, "sample_bytes": 100_000},
    }
    (tmp_path / "data.json").write_text(json.dumps(data))
    (tmp_path / "script.py").write_text(SCRIPT)
    return tmp_path


def start(root: Path, name: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, str(root / "script.py"), str(root), str(root / name)])


def finish(process: subprocess.Popen[bytes]) -> None:
    assert process.wait(timeout=120) == 0


def tree(folder: Path) -> dict[str, bytes]:
    files = (path for path in sorted(folder.rglob("*")) if path.is_file() and not path.name.startswith("."))
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["local", "hub"])
def test_killed_and_taken_up_again_is_as_if_never_killed(root: Path, kind: str) -> None:
    if kind == "hub":  # a stream, shuffled through a buffer
        rows = [json.loads(line) for line in (root / "rows.jsonl").read_text().splitlines()]
        (root / "set").mkdir()
        for shard in range(3):
            pl.DataFrame(rows[shard::3]).write_parquet(root / "set" / f"train-{shard:05d}-of-00003.parquet")
        data = json.loads((root / "data.json").read_text())
        data["corpora"]["rows"] = {"kind": "hub", "id": str(root / "set"), "revision": "v1", "shuffle_buffer": 500}
        (root / "data.json").write_text(json.dumps(data))
    finish(start(root, "whole"))
    process = start(root, "killed")
    deadline = time.monotonic() + 60
    while len(parts := list((root / "killed").rglob("part-*.records.npy"))) < 5 and time.monotonic() < deadline:
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert len(parts) >= 5, "there was something to take up"
    assert not list((root / "killed").glob("rows-*/manifest.json")), "it was killed before the end"
    kept = {path: path.stat().st_mtime_ns for path in parts}
    seen: dict[Path, int] = {}
    resumed = start(root, "killed")
    while resumed.poll() is None:
        for path in kept:
            try:
                seen[path] = path.stat().st_mtime_ns
            except FileNotFoundError:
                break
        time.sleep(0.01)
    assert resumed.returncode == 0
    assert all(seen[path] == kept[path] for path in seen), "finished parts are not made again"
    assert tree(root / "killed") == tree(root / "whole")


@pytest.mark.slow
def test_two_at_once_make_one_store(root: Path) -> None:
    finish(start(root, "whole"))
    both = [start(root, "both") for _ in range(2)]
    for process in both:
        finish(process)
    assert tree(root / "both") == tree(root / "whole")


def test_workers_end_with_their_parent(root: Path) -> None:
    process = start(root, "killed")
    deadline = time.monotonic() + 60
    while not list((root / "killed").rglob("part-*.records.npy")) and time.monotonic() < deadline:
        time.sleep(0.005)
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    process.kill()
    process.wait()
    assert children
    deadline = time.monotonic() + 10
    while any(is_alive(int(pid)) for pid in children) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not any(is_alive(int(pid)) for pid in children)


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_a_killed_worker_is_one_clear_message(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = DataSpec.model_validate_json((root / "data.json").read_text())
    monkeypatch.setattr(parts_module, "CHUNK_BYTES", 80_000)
    real = parts_module.Pool.submit

    def submit_and_kill(self: Any, *args: Any) -> Any:
        future = real(self, *args)
        for pid in list(self._executor._processes):
            with contextlib.suppress(ProcessLookupError):  # killed when an earlier chunk was handed over
                os.kill(pid, signal.SIGKILL)
        return future

    with monkeypatch.context() as patch:
        patch.setattr(parts_module.Pool, "submit", submit_and_kill)
        with pytest.raises(UserError, match="a tokenising process was killed"):
            prepare(data, root / "tokens", root / "cache")
    prepare(data, root / "tokens", root / "cache")


@pytest.mark.parametrize(
    "torn",
    [
        OSError("handle is closed"),
        ValueError("bad value(s) in fds_to_keep"),
        RuntimeError("cannot schedule new futures"),
    ],
)
def test_a_pool_that_breaks_while_a_worker_starts_is_that_message_too(
    root: Path, monkeypatch: pytest.MonkeyPatch, torn: Exception
) -> None:
    late = get_context("spawn").Process(target=time.sleep, args=(600,))

    class Breaking(ProcessPoolExecutor):
        """Breaks in the middle of `submit`, as when a worker dies while the next one is being started."""

        is_broken = False

        def submit(self, *args: Any, **options: Any) -> Any:
            if self.is_broken:
                raise BrokenProcessPool("a child process terminated abruptly")
            self.is_broken = True
            late.start()
            raise torn

    monkeypatch.setattr(parts_module, "ProcessPoolExecutor", Breaking)
    with pytest.raises(UserError, match="a tokenising process was killed"), parts_module.Pool() as pool:
        pool.submit(parts_module.Chunk(root / "part-000000", [], []), None)
    late.join(10)
    assert late.exitcode == -signal.SIGKILL, "a worker that nobody would end is ended"


def test_a_worker_that_cannot_be_started_is_not_called_killed(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Full(ProcessPoolExecutor):
        def submit(self, *args: Any, **options: Any) -> Any:
            raise BlockingIOError("resource temporarily unavailable")

    monkeypatch.setattr(parts_module, "ProcessPoolExecutor", Full)
    with pytest.raises(BlockingIOError), parts_module.Pool() as pool:
        pool.submit(parts_module.Chunk(root / "part-000000", [], []), None)


@pytest.mark.parametrize(("module", "step"), [(prepare_module, "train_bpe"), (store_job, "encode_documents")])
def test_files_that_change_while_they_are_read_are_refused(
    root: Path, monkeypatch: pytest.MonkeyPatch, module: ModuleType, step: str
) -> None:
    data = DataSpec.model_validate_json((root / "data.json").read_text())
    before = fingerprints(data, root / "cache")
    real = getattr(module, step)

    def and_change(*args: Any, **options: Any) -> Any:
        with open(root / "rows.jsonl", "a") as handle:
            handle.write('{"text": "one more"}\n')
        return real(*args, **options)

    with monkeypatch.context() as patch:
        patch.setattr(module, step, and_change)
        with pytest.raises(UserError, match="the files of rows changed while they were read"):
            prepare(data, root / "tokens", root / "cache")
    if step == "train_bpe":
        assert not (root / "tokens" / before.tokenizer_folder).exists(), "no tokenizer under a name that is not its own"
    prepare(data, root / "tokens", root / "cache")
    assert len(list((root / "tokens").glob("rows-*"))) == 1


def test_parts_of_other_documents_are_made_again(tmp_path: Path) -> None:
    train_bpe(BpeTokenizer(vocab_size=512), ["some words"], tmp_path / "tokenizer")
    settings = parts_module.EncodeSettings(open_tokenizer(tmp_path / "tokenizer"), 0, False)

    def encode(*texts: str) -> np.ndarray:
        with parts_module.Pool() as pool:
            stream = (Document(text, 0, "s", "") for text in texts)
            (part,), _ = parts_module.encode_documents(stream, tmp_path / "parts", settings, pool)
        return parts_module.read_records(part)["short"]

    first, other = encode("one", "two"), encode("one", "three")
    assert set(first) != set(other), "as many documents, but not the same ones"


def test_a_source_for_each_document_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parts_module, "MAX_SOURCES", 20)
    rows = [{"text": f"page {i} and its text", "url": f"https://example.org/{i}"} for i in range(60)]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    corpus = {"kind": "local", "path": str(tmp_path / "a.jsonl"), "source_column": "url"}
    spec = DataSpec.model_validate({"corpora": {"web": corpus}, "tokenizer": {"kind": "bpe", "vocab_size": 512}})
    with pytest.raises(UserError, match=r"web: more than 20 sources, the last one 'https://example.org/20'"):
        prepare(spec, tmp_path / "tokens", tmp_path / "cache")


def test_what_killed_runs_of_other_settings_left_is_cleared(root: Path) -> None:
    (root / "tokens" / ".work-123456" / "rows").mkdir(parents=True)
    prepare(DataSpec.model_validate_json((root / "data.json").read_text()), root / "tokens", root / "cache")
    assert not list((root / "tokens").glob(".work-*"))


def test_max_tokens_takes_a_random_prefix(root: Path) -> None:
    data = DataSpec.model_validate_json((root / "data.json").read_text())
    prepare(data, root / "all", root / "cache")
    whole = TokenStore.open(root / "all" / fingerprints(data, root / "cache").store_folder("rows"))
    spec = data.corpora["rows"].model_copy(update={"max_tokens": 100_000})
    limited = data.model_copy(update={"corpora": {"rows": spec}})
    prepare(limited, root / "part", root / "cache")
    store = TokenStore.open(root / "part" / fingerprints(limited, root / "cache").store_folder("rows"))
    total = store.num_tokens("train") + store.num_tokens("heldout")
    assert 99_000 < total <= 100_000
    some, every = (np.load(s.folder / "train-00000.npy") for s in (store, whole))
    assert (some[: len(some) // 2] == every[: len(some) // 2]).all(), "a prefix of the whole corpus's order"
    documents = pl.read_parquet(store.folder / "train-00000.documents.parquet")
    assert documents.height == store.manifest["fates"]["train"]["documents"]


def test_too_few_documents_to_hold_one_out(tmp_path: Path) -> None:
    spec = {"corpora": {"tiny": {"kind": "local", "path": str(tmp_path / "a.jsonl")}}, "tokenizer": {"kind": "bpe"}}
    for text, count in (('{"text": "only one"}', 1), ('{"text": " "}', 0)):
        (tmp_path / "a.jsonl").write_text(text + "\n")
        with pytest.raises(UserError, match=rf"corpus tiny: of {count} usable documents .* none is on the \w+ side"):
            prepare(DataSpec.model_validate(spec), tmp_path / "tokens", tmp_path / "cache")
