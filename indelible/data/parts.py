"""Documents to part files: chunks of the stream, tokenised by a pool of processes, each written whole or not at all.

A part is a file of tokens and one of records on its documents, in rising order of the order key; of conversations, one
more of what the assistant says, token by token. The records are
written last, so a part counts as done if they exist and name the same documents; a killed run takes the stream up again
and skips the chunks that are done.
"""

import contextlib
import os
import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from multiprocessing import active_children, get_context
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import numpy as np

from indelible.corpora.document import Document, content_hash
from indelible.data.minhash import signatures
from indelible.data.part_tokens import encode_part, write_array
from indelible.data.split import document_keys
from indelible.data.tokenizer import TokenizerInfo
from indelible.errors import UserError

CHUNK_BYTES = 4_000_000  # characters of text a part, about
MAX_SOURCES = 10_000  # of a corpus: they are held in memory and stand in the manifest
RECORD = np.dtype(
    [
        ("short", "<u8"),  # first half of the hash of the text
        ("rest", "<u8"),  # second half
        ("order", "<u8"),  # place in the corpus
        ("split", "<u8"),  # side of the held-out split
        ("tokens", "<u4"),  # with the end-of-text token, which a conversation has not
        ("prompt_tokens", "<u4"),  # all that are not of the completion
        ("chosen_tokens", "<u4"),  # of a pair: the better answer with its end-of-text token; 0 = no pair
        ("bytes", "<u4"),  # UTF-8
        ("source", "<u4"),  # index into the corpus's list of sources
        ("start", "<u8"),  # first token in the part
    ]
)


@dataclass(frozen=True)
class Chunk:
    """Some consecutive documents of a stream and the place of their part."""

    path: Path  # without ending
    documents: list[Document]
    sources: list[int]


@dataclass(frozen=True)
class EncodeSettings:
    """What a worker must know."""

    tokenizer: TokenizerInfo
    seed: int
    has_signatures: bool


def encode_chunk(chunk: Chunk, settings: EncodeSettings) -> tuple[int, int]:
    """Tokenises a chunk into its part files; returns (documents, tokens)."""
    keyed = [(document_keys(d, settings.seed), d, s) for d, s in zip(chunk.documents, chunk.sources, strict=True)]
    keyed.sort(key=lambda item: (item[0][1], item[0][0]))
    documents = [document for _, document, _ in keyed]
    records = np.zeros(len(keyed), RECORD)
    corpus = chunk.path.parent.parent.name
    tokens, sizes, prompt_tokens, chosen_tokens = encode_part(documents, settings.tokenizer, corpus, chunk.path)
    start = 0
    for row, ((content, order, split), document, source) in enumerate(keyed):
        num_bytes = len((document.text + document.rejected).encode("utf-8", "surrogatepass"))
        numbers = order, split, sizes[row], prompt_tokens[row], chosen_tokens[row], num_bytes, source, start
        records[row] = (*np.frombuffer(content, "<u8"), *numbers)
        start += sizes[row]
    if (largest := int(tokens.max())) >= settings.tokenizer.vocab_size:
        raise UserError(
            f"{settings.tokenizer.path}: the tokenizer gave id {largest}, but its vocabulary ends at "
            f"{settings.tokenizer.vocab_size - 1}; its files do not belong together."
        )
    write_array(chunk.path.with_suffix(".tokens.npy"), tokens.astype(settings.tokenizer.dtype, copy=False))
    if settings.has_signatures:
        write_array(chunk.path.with_suffix(".minhash.npy"), signatures([document.text for _, document, _ in keyed]))
    write_array(chunk.path.with_suffix(".records.npy"), records)
    return len(keyed), start


def content_hex(records: np.ndarray) -> list[str]:
    """The content hashes of some documents, as 32 hex digits."""
    halves = np.stack([records["short"], records["rest"]], axis=1).astype("<u8")
    return [row.tobytes().hex() for row in halves]


def read_records(path: Path) -> np.ndarray:
    """The records of a finished part: structured array of dtype `RECORD`, one row a document, by rising order key."""
    return np.load(path.with_suffix(".records.npy"), allow_pickle=False)


def _die_with_parent(parent: int) -> None:
    """Ends this worker when its parent is gone: after a SIGKILL nobody else would."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(0.5)
        os._exit(1)

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to answer
    os.environ["TOKENIZERS_PARALLELISM"] = "false"  # one thread a worker: the pool is the parallelism
    threading.Thread(target=watch, daemon=True).start()


class Pool:
    """A lazily started pool of tokenising processes, one a core."""

    def __init__(self) -> None:
        self.num_workers = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        self._executor: ProcessPoolExecutor | None = None
        self._strangers: set[BaseProcess] = set()  # children of this process that are not the pool's

    def submit(self, chunk: Chunk, settings: EncodeSettings) -> "Future[tuple[int, int]]":
        """Hands a chunk to the next free worker."""
        if self._executor is None:
            self._strangers = set(active_children())
            self._executor = ProcessPoolExecutor(
                self.num_workers, get_context("spawn"), initializer=_die_with_parent, initargs=(os.getpid(),)
            )
        try:
            return self._executor.submit(encode_chunk, chunk, settings)
        except (OSError, RuntimeError, ValueError):
            # A worker died while a further one was being started, and the executor closed its pipes in the middle of
            # this call: that is no error of ours. Asked again, a broken pool says that it is broken.
            return self._executor.submit(encode_chunk, chunk, settings)

    def __enter__(self) -> "Pool":
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: Any) -> None:
        if kind is BrokenProcessPool:
            # A worker whose start fell into the break is nobody's: it waits for work, and this process for its end.
            for worker in set(active_children()) - self._strangers:
                worker.kill()
        if self._executor is not None:
            self._executor.shutdown(wait=True, cancel_futures=True)
        if kind is BrokenProcessPool:
            raise UserError(
                "a tokenising process was killed, most likely for want of memory; run the command again on fewer cores "
                "(taskset), what is done is kept. A script of your own needs `if __name__ == '__main__':`."
            ) from None


def _chunks(documents: Iterator[Document], folder: Path, sources: dict[str, tuple[int, str]]) -> Iterator[Chunk]:
    """Cuts the stream into chunks; ``sources`` is filled with name -> (number, licence) as they come up."""
    number, size = 0, 0
    held: list[Document] = []
    marks: list[int] = []
    for document in documents:
        marks.append(sources.setdefault(document.source, (len(sources), document.licence))[0])
        if len(sources) > MAX_SOURCES:
            raise UserError(
                f"{folder.parent.name}: more than {MAX_SOURCES:,} sources, the last one {document.source!r}; name a "
                "source_column that holds kinds of text, not one value a document."
            )
        held.append(document)
        size += len(document.content)
        if size >= CHUNK_BYTES:
            yield Chunk(folder / f"part-{number:06d}", held, marks)
            number, size, held, marks = number + 1, 0, [], []
    if held:
        yield Chunk(folder / f"part-{number:06d}", held, marks)


def _finished(chunk: Chunk) -> tuple[int, int] | None:
    """(documents, tokens) of a part that is already there and holds these very documents."""
    with contextlib.suppress(FileNotFoundError):
        records = read_records(chunk.path)
        content = np.frombuffer(b"".join(content_hash(d.content) for d in chunk.documents), "<u8").reshape(-1, 2)
        if records.dtype == RECORD and np.array_equal(np.sort(content[:, 0]), np.sort(records["short"])):
            return len(records), int(records["tokens"].sum(dtype=np.int64))
    return None


def encode_documents(
    documents: Iterator[Document],
    folder: Path,
    settings: EncodeSettings,
    pool: Pool,
    *,
    enough_tokens: int | None = None,
    progress: Callable[[int, int], None] = lambda tokens, chars: None,
) -> tuple[list[Path], dict[str, str]]:
    """Tokenises a stream of documents into parts under ``folder``.

    Args:
        enough_tokens: stop after the first part that brings the total to this; null = the whole stream.
        progress: called with the tokens and the characters done so far.

    Returns:
        The parts in order, and the licence of every source in order of its number.
    """
    folder.mkdir(parents=True, exist_ok=True)
    sources: dict[str, tuple[int, str]] = {}
    parts: list[Path] = []
    waiting: deque[tuple[Path, int, Future[tuple[int, int]]]] = deque()
    total, total_chars = 0, 0

    def take_oldest() -> None:
        nonlocal total, total_chars
        path, chars, future = waiting.popleft()
        tokens = future.result()[1]
        if enough_tokens is None or total < enough_tokens:
            parts.append(path)
            total, total_chars = total + tokens, total_chars + chars
            progress(total, total_chars)

    chunks = _chunks(documents, folder, sources)
    for number, chunk in enumerate(chunks):
        done = _finished(chunk)
        chars = sum(len(document.text) for document in chunk.documents)
        if (
            done is None and number == 0 and chars < CHUNK_BYTES
        ):  # the whole corpus is one small chunk: starting a pool would take longer
            done = encode_chunk(chunk, settings)
        future: Future[tuple[int, int]] = Future()
        if done is not None:
            future.set_result(done)
        else:
            future = pool.submit(chunk, settings)
        waiting.append((chunk.path, chars, future))
        while waiting and (waiting[0][2].done() or len(waiting) > 2 * pool.num_workers):
            take_oldest()
        if enough_tokens is not None and total >= enough_tokens:
            break
    while waiting:
        take_oldest()
    return parts, {name: licence for name, (_, licence) in sources.items()}
