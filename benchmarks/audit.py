"""Times the card of a large made-up audit: `python benchmarks/audit.py [TRIALS]` (10,000 by default).

Prints seconds (on the clock, and of the processor: the machine may be busy), with the target.
"""

import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "support"))

from fake_audit import FakeAudit, write_fake_audit

from indelible.durability.findings import make_audit
from indelible.durability.run import write_card

SEEDS = 50  # of each setting; two new corpora, full and LoRA


def main() -> None:
    """Writes the study to a temporary folder and times what the command does once everything is run."""
    num_trials = int(sys.argv[1]) if len(sys.argv) > 1 else 10_000
    num_rates = max(1, num_trials // (2 * 2 * SEEDS))
    rates = tuple(1e-5 * 10 ** (2.5 * step / num_rates) for step in range(num_rates))
    fake = FakeAudit(forgetting={"model": 0.4}, lrs=rates, adapt=("full", "lora"), seeds=range(SEEDS))
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        asked = write_fake_audit(root, fake)
        start = (time.perf_counter(), time.process_time())
        found = make_audit(root, asked)
        read = _since(start)
        files = write_card(found, root)
        sizes = ", ".join(f"{path.suffix[1:]} {path.stat().st_size / 1e6:.2f} MB" for path in files)
        print(f"{found.trials:,} trials of {len(found.settings)} settings: {found.sentence}")
        print(f"read-outs {read}")
        print(f"card      {_since(start)} (target 15 s for 10,000); {sizes}")


def _since(start: tuple[float, float]) -> str:
    clock, processor = time.perf_counter() - start[0], time.process_time() - start[1]
    return f"{clock:6.2f} s, of the processor {processor:6.2f} s"


if __name__ == "__main__":
    main()
