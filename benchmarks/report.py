"""Times the tables and the report of a large made-up study: `python benchmarks/report.py [CHAINS]` (10,000 by default).

Prints seconds (on the clock, and of the processor: the machine may be busy) and megabytes, with the targets.
"""

import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "support"))

from fake_study import FakeStudy, write_fake_study

from indelible.report.contents import report_contents, table_contents
from indelible.report.page import report_html
from indelible.results.losses import losses
from indelible.results.run_folder import read_study_run
from indelible.results.table import read_table, write_table


def main() -> None:
    """Writes the study to a temporary folder and times what the commands do."""
    num_chains = int(sys.argv[1]) if len(sys.argv) > 1 else 10_000
    per_rate = 3 * 5 * 3 * 5 * 2 * 3  # seeds, lambdas, |D_post|, stage-2 LRs, replays, dropouts
    num_rates = max(2, -(-num_chains // per_rate))  # so many chains at least
    study = FakeStudy(
        name="large",
        fractions=(0.0, 0.25, 0.5, 0.75, 1.0),
        post_tokens=(10_000, 50_000, 100_000),
        posttrain_lrs=(3e-4, 1e-3, 2e-3, 5e-3, 1e-2),
        replays=(0.0, 0.01),
        dropouts=(0.0, 0.02, 0.05),
        finetune_lrs=tuple(1e-4 * 1.5**step for step in range(num_rates)),
        seeds=(0, 1, 2),
    )
    with tempfile.TemporaryDirectory() as folder:
        root = write_fake_study(Path(folder) / "run", study)
        start = (time.perf_counter(), time.process_time())
        table = read_table(root)
        table_seconds = _since(start)
        start = (time.perf_counter(), time.process_time())
        long = losses(read_study_run(root))
        losses_seconds = _since(start)
        num_files = len(list(root.glob("evaluations/*/*.json")))
        start = (time.perf_counter(), time.process_time())
        page = report_html(report_contents(read_study_run(root)))
        report_seconds = _since(start)
        write_table(table, Path(folder) / "large.parquet", "parquet")
        start = (time.perf_counter(), time.process_time())
        report_html(table_contents(read_table(Path(folder) / "large.parquet")))
        of_table_seconds = _since(start)
        if len(sys.argv) > 2:
            Path(sys.argv[2]).write_text(page, encoding="utf-8")
    print(f"{table.height:,} chains, {num_files:,} evaluations, {long.height:,} rows of losses")
    print(f"table  {table_seconds} (target 5 s for 10,000)")
    print(f"losses {losses_seconds}")
    print(f"report of the folder {report_seconds} (target 8 s for 10,000)")
    print(f"report of the table  {of_table_seconds} (target 8 s for 10,000)")
    print(f"page   {len(page.encode()) / 1e6:6.2f} MB (target 8 MB)")


def _since(start: tuple[float, float]) -> str:
    clock, processor = time.perf_counter() - start[0], time.process_time() - start[1]
    return f"{clock:6.2f} s, of the processor {processor:6.2f} s"


if __name__ == "__main__":
    main()
