"""Speed and memory of making a token store, against bare `encode_batch` on the same cores.

    python benchmarks/tokenization.py --gigabytes 1

Writes a JSONL corpus of recombined paragraphs of the offline `general` text, tokenises a part of it with nothing but
`tokenizers.encode_batch` (texts already in memory), then prepares the whole as a study would, and prints both rates,
their ratio by the clock and by processor time (the clock suffers from whatever else runs), and the peak memory of all
processes together. (Called tokenize.py, it would hide the standard library's module from every script in this folder.)
"""

import argparse
import json
import os
import random
import resource
import shutil
import statistics
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from indelible.corpora import Document, default_cache_dir, documents
from indelible.data.parts import CHUNK_BYTES, Chunk, EncodeSettings, Pool, encode_chunk
from indelible.data.prepare import fingerprints, prepare
from indelible.data.store import TokenStore
from indelible.data.tokenizer import load_fast, open_tokenizer, train_bpe
from indelible.study.corpus_spec import BpeTokenizer, DataSpec, OfflineCorpus

BARE_BATCH = 1_000  # documents an encode_batch call, as its users do it
TARGET_TOKENS = 8.7e9


def paragraphs() -> list[str]:
    """Paragraphs of the offline general corpus."""
    texts = (document.text for document in documents(OfflineCorpus(name="general"), default_cache_dir()))
    return [piece for text in texts for piece in text.split("\n\n") if len(piece) > 100]


def write_corpus(path: Path, num_bytes: int) -> None:
    """Documents of one to nine paragraphs in random order: about as long as web text, no two alike."""
    pieces, rng, written = paragraphs(), random.Random(0), 0
    with open(path, "w", encoding="utf-8") as out:
        while written < num_bytes:
            text = "\n\n".join(rng.choices(pieces, k=rng.randint(1, 9)))
            written += out.write(json.dumps({"text": text}, ensure_ascii=False) + "\n")


def texts_of(path: Path, num_bytes: int) -> Iterator[str]:
    """The first documents of the corpus."""
    taken = 0
    with open(path, encoding="utf-8") as lines:
        for line in lines:
            yield (text := json.loads(line)["text"])
            taken += len(text.encode())
            if taken >= num_bytes:
                return


def cpu_seconds() -> float:
    """Processor time of this process and its finished children."""
    usage = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(u.ru_utime + u.ru_stime for u in usage)


class PeakMemory:
    """Samples the proportional memory of this process and its children, in bytes; file pages not counted."""

    def __init__(self) -> None:
        self.peak = 0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def _watch(self) -> None:
        me = os.getpid()
        while not self._stop.wait(0.2):
            total = 0
            children = Path(f"/proc/{me}/task/{me}/children").read_text().split()
            for pid in (str(me), *children):
                try:
                    status = Path(f"/proc/{pid}/status").read_text()
                except FileNotFoundError:
                    continue
                total += sum(int(x.split()[1]) for x in status.splitlines() if x.startswith("RssAnon")) * 1024
            self.peak = max(self.peak, total)

    def __enter__(self) -> "PeakMemory":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()


def bare(tokenizer_json: Path, texts: list[str]) -> tuple[float, float, int]:
    """(seconds, processor seconds, tokens) of encode_batch alone."""
    tokenizer = load_fast(tokenizer_json)
    begin, cpu, tokens = time.perf_counter(), cpu_seconds(), 0
    for start in range(0, len(texts), BARE_BATCH):
        tokens += sum(
            len(e) for e in tokenizer.encode_batch(texts[start : start + BARE_BATCH], add_special_tokens=False)
        )
    return time.perf_counter() - begin, cpu_seconds() - cpu, tokens


def in_turns(tokenizer_json: Path, texts: list[str], folder: Path) -> float:
    """Median ratio of processor times, bare encode_batch to a worker's whole chunk, taken in turns on one thread.

    Whatever else runs on the machine slows both alike, so this number is steady where the clock is not.
    """
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    tokenizer, info = load_fast(tokenizer_json), open_tokenizer(tokenizer_json.parent)
    settings = EncodeSettings(info, seed=0, has_signatures=True)
    held, ratios = [], []
    for text in texts:
        held.append(Document(text, 0, "bench", ""))
        if sum(len(document.text) for document in held) < CHUNK_BYTES:
            continue
        begin = time.process_time()
        for start in range(0, len(held), BARE_BATCH):
            batch = [document.text for document in held[start : start + BARE_BATCH]]
            sum(len(encoded) for encoded in tokenizer.encode_batch(batch, add_special_tokens=False))
        between = time.process_time()
        encode_chunk(Chunk(folder / f"part-{len(ratios):06d}", held, [0] * len(held)), settings)
        ratios.append((between - begin) / (time.process_time() - between))
        held = []
    return statistics.median(ratios)


def main() -> None:
    """Runs the benchmark and prints one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gigabytes", type=float, default=1.0)
    parser.add_argument("--vocab-size", type=int, default=16_384)
    parser.add_argument("--bare-megabytes", type=float, default=100)
    parser.add_argument("--folder", type=Path, default=None, help="where to work; default: a temporary folder")
    args = parser.parse_args()
    root = args.folder or Path(tempfile.mkdtemp(prefix="indelible-bench-"))
    root.mkdir(parents=True, exist_ok=True)
    corpus, tokenizer = root / "corpus.jsonl", root / "tokenizer"
    if not corpus.exists():
        write_corpus(corpus, round(args.gigabytes * 1e9))
    if not tokenizer.exists():
        train_bpe(BpeTokenizer(vocab_size=args.vocab_size), texts_of(corpus, 10_000_000), tokenizer)
    data = DataSpec.model_validate(
        {
            "corpora": {"big": {"kind": "local", "path": str(corpus)}},
            "tokenizer": {"kind": "hf", "path": str(tokenizer)},
        }
    )
    size = corpus.stat().st_size
    sample = list(texts_of(corpus, round(args.bare_megabytes * 1e6)))
    sample_bytes = sum(len(text.encode()) for text in sample)
    before = bare(tokenizer / "tokenizer.json", sample)
    shutil.rmtree(root / "tokens", ignore_errors=True)
    stages: list[tuple[float, str]] = []
    start, cpu = time.perf_counter(), cpu_seconds()
    with PeakMemory() as memory:
        prepare(data, root / "tokens", root / "cache", lambda what, _: stages.append((time.perf_counter(), what)))
    seconds, processor = time.perf_counter() - start, cpu_seconds() - cpu
    tokenising = [at for at, what in stages if what.startswith("tokenising")][-1] - start
    after = bare(tokenizer / "tokenizer.json", sample)
    rate = [sample_bytes / run[0] for run in (before, after)]
    bare_cpu = sum(run[1] for run in (before, after)) / (2 * sample_bytes)
    store = TokenStore.open(root / "tokens" / fingerprints(data, root / "cache").store_folder("big"))
    tokens = store.num_tokens("train") + store.num_tokens("heldout")
    result = {
        "corpus_gigabytes": round(size / 1e9, 3),
        "tokens_millions": round(tokens / 1e6, 1),
        "workers": Pool().num_workers,
        "bare_megabytes_per_second": [round(value / 1e6, 2) for value in rate],
        "tokenising_megabytes_per_second": round(size / tokenising / 1e6, 2),
        "prepare_megabytes_per_second": round(size / seconds / 1e6, 2),
        "ratio_tokenising_by_clock": round(size / tokenising / (sum(rate) / 2), 3),
        "ratio_prepare_by_clock": round(size / seconds / (sum(rate) / 2), 3),
        "ratio_prepare_by_processor_time": round(bare_cpu / (processor / size), 3),
        "ratio_of_a_chunk_in_turns": round(in_turns(tokenizer / "tokenizer.json", sample, root), 3),
        "peak_memory_gigabytes": round(memory.peak / 1e9, 3),
        "prepare_seconds": round(seconds, 1),
        "hours_for_8.7B_tokens_here": round(seconds * TARGET_TOKENS / tokens / 3600, 2),
    }
    print(json.dumps(result, indent=1))
    if args.folder is None:
        shutil.rmtree(root)


if __name__ == "__main__":
    main()
