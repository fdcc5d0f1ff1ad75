"""Time and memory of building ledgers as large as the paper's: 8.5 million windows.

    python benchmarks/ledger.py

Takes the stages of a study at scale 135m (8.7B tokens of D_pre in windows of 1,024, 0.3B of D_post) without any text,
builds each ledger in a process of its own, and prints seconds and peak memory: of the whole process, and what of it the
building added. The goal for 8.5 million windows is 2 seconds and 300 MB.
"""

import argparse
import json
import resource
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from typing import Any

from indelible.data.ledger import build_ledger
from indelible.study.graph import Stores, build_graph
from indelible.study.load import resolve_study
from indelible.study.stage_spec import StageSpec

STORES = Stores({"general": "general-a", "music": "music-b", "chemistry": "chemistry-c"}, "tokenizer-d")
STORE_TOKENS = {"general-a": 9.0e9, "music-b": 0.35e9, "chemistry-c": 0.25e9}
# name: the stage, and what the study says beyond the scale's settings
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "pretrain, no exposure": ("pretrain", {}),
    "pretrain, exposure 0.5": ("pretrain", {"exposure": {"fraction": 0.5}}),
    "pretrain, exposure 1": ("pretrain", {"exposure": {"fraction": 1.0}}),
    "pretrain, exposure 1 in place of D_pre": ("pretrain", {"exposure": {"fraction": 1.0, "mode": "replace"}}),
    "pretrain, exposure 10, late": (
        "pretrain",
        {"exposure": {"fraction": 10, "repeats": True, "placement": "late"}},
    ),
    "posttrain, replay of 1 %": ("posttrain", {"posttrain": {"replay_fraction": 0.01}}),
    "finetune, replay of 10 %": ("finetune", {"finetune": {"replay_fraction": 0.1}}),
    "finetune, replay of 10 % and, late, all of D_post": (
        "finetune",
        {
            "finetune": {"replay_fraction": 0.1},
            "stages": {
                "finetune": {"mix": [{"corpus": "music", "share_of": "posttrain", "per": "stage", "placement": "late"}]}
            },
        },
    ),
    "posttrain, replay of all of D_pre": ("posttrain", {"posttrain": {"replay_fraction": 1.0, "max_tokens": "9B"}}),
}


def stage_spec(stage: str, settings: dict[str, Any]) -> StageSpec:
    """The stage of a one-arm study at scale 135m."""
    roles = {"pre": "general", "post": "music", "ft": "chemistry"}
    graph = build_graph(
        resolve_study({"name": "bench", "scale": "135m", "pipeline": roles, "seeds": [0], **settings}), STORES
    )
    return graph.runs[graph.chains[0].runs[stage]].spec


def peak_megabytes() -> float:
    """Most memory that this process ever had."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3


def measure(name: str) -> dict[str, Any]:
    """Builds one ledger; to be called in a fresh process."""
    spec = stage_spec(*CASES[name])
    windows = {store: int(tokens // spec.seq_len) for store, tokens in STORE_TOKENS.items()}
    before, begin, cpu = peak_megabytes(), time.perf_counter(), time.process_time()
    ledger = build_ledger(spec, windows)
    seconds, processor = time.perf_counter() - begin, time.process_time() - cpu
    peak = peak_megabytes()
    return {
        "ledger": name,
        "windows": len(ledger),
        "seconds": round(seconds, 2),
        "processor_seconds": round(processor, 2),
        "peak_megabytes": round(peak),
        "of_which_building": round(peak - before),
        "ledger_megabytes": round((ledger.window.nbytes + ledger.source.nbytes) / 1e6),
    }


def main() -> None:
    """Runs every case and prints one JSON object a line."""
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    with ProcessPoolExecutor(1, get_context("spawn"), max_tasks_per_child=1) as fresh:
        for name in CASES:
            print(json.dumps(fresh.submit(measure, name).result()), flush=True)


if __name__ == "__main__":
    main()
