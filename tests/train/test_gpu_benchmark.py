"""The GPU benchmark on the CPU with tiny models, where only what training needs is installed."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
# what reads corpora, draws reports and submits jobs; a GPU machine may lack all of it
NOT_NEEDED = ("polars", "altair", "moocore", "submitit", "datasets", "datasketch", "zstandard", "lm_eval")


def test_tiny_mode_needs_only_what_trains(tmp_path: Path) -> None:
    absent = "\n".join(f"sys.modules[{name!r}] = None" for name in NOT_NEEDED)
    (tmp_path / "sitecustomize.py").write_text(f"import sys\n{absent}\n")
    command = [sys.executable, "benchmarks/gpu.py", "--tiny", "--out", str(tmp_path / "out")]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(tmp_path), str(ROOT)])}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads((tmp_path / "out" / "gpu.json").read_text())
    assert {row["check"]: row["ok"] for row in found["checks"]} == dict.fromkeys(
        ("loss", "resume", "resume_compiled", "micro_batch"), True
    )
    assert [row["ok"] for row in found["ranks"]] == [True]
    assert all(row["tokens_per_second"] > 0 for row in found["speed"] + found["workers"])
    text = (tmp_path / "out" / "gpu.md").read_text()
    assert "### speed" in text
    assert "no GPU" in text
