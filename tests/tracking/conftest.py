"""Makes tests/support and the made-up engine of tests/scheduling importable; folders to send from."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "support"))
sys.path.insert(0, str(Path(__file__).parents[1] / "scheduling"))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A finished study: two chains of three stages, which share their first two, with curves of the last one."""
    from fake_study import FakeStudy, write_fake_study

    fake = FakeStudy(seeds=(4,), fractions=(0.5,), post_tokens=(10_000,), finetune_lrs=(1e-4, 1e-3), is_watched=True)
    return write_fake_study(tmp_path / "out", fake)
