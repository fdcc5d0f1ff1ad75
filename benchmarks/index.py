"""Memory and time of what `prepare` does once per corpus, at the size of the paper's D_pre.

    python benchmarks/index.py --documents 20

Tokenising streams; only the index of the documents grows with the corpus. This writes the records of so many million
generated documents (8.7B tokens of web text are about 20 million), then does what follows tokenising: split,
duplicates, the search for leaked copies, counts, and the order of the training side; and prints seconds and peak
memory. The mapped file of records is not counted: the system takes its pages back when it wants them.
"""

import argparse
import json
import tempfile
import time
from pathlib import Path

import numpy as np
from tokenization import PeakMemory

from indelible.data.index import TRAIN, build_index
from indelible.data.leaks import check_leaks
from indelible.data.manifest import disposition_counts, source_counts
from indelible.data.parts import RECORD
from indelible.study.corpus_spec import DataSpec

DOCUMENTS_A_PART = 2_000  # 4 MB of web text
MEAN_TOKENS = 435


def write_records(folder: Path, num_documents: int) -> list[Path]:
    """Part files with the records of random documents."""
    rng, parts = np.random.default_rng(0), []
    for number in range(num_documents // DOCUMENTS_A_PART):
        records = np.zeros(DOCUMENTS_A_PART, RECORD)
        for key in ("short", "rest", "order", "split"):
            records[key] = rng.integers(0, 1 << 64, DOCUMENTS_A_PART, dtype=np.uint64)
        records["tokens"] = rng.integers(1, 2 * MEAN_TOKENS, DOCUMENTS_A_PART)
        records["bytes"] = records["tokens"] * 4
        records.sort(order="order")
        parts.append(folder / f"part-{number:06d}")
        np.save(parts[-1].with_suffix(".records.npy"), records)
    return parts


def main() -> None:
    """Runs the benchmark and prints one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--documents", type=float, default=20, help="millions")
    args = parser.parse_args()
    data = DataSpec.model_validate({"corpora": {"big": {"kind": "synthetic", "language": 0}}, "leaks": {"near": False}})
    with tempfile.TemporaryDirectory(prefix="indelible-bench-") as name:
        parts = write_records(Path(name), round(args.documents * 1e6))
        begin = time.perf_counter()
        with PeakMemory() as memory:
            index = build_index("big", parts, data.split, None)
            check_leaks(data, {"big": index}, {"big": ["generated"]})
            counts = disposition_counts(index), source_counts(index, {"generated": "none"})
            rows = index.rows(TRAIN)
        result = {
            "documents_millions": len(index.records) / 1e6,
            "tokens_billions": round(counts[0]["train"]["tokens"] / 1e9, 2),
            "training_documents": len(rows),
            "seconds": round(time.perf_counter() - begin, 1),
            "peak_memory_gigabytes": round(memory.peak / 1e9, 3),
        }
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
