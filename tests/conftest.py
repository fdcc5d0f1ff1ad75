"""A tiny study on generated text: three stages of a one-layer model in well under a second each."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from tiny_engine import TINY, layered


@pytest.fixture(scope="session")
def tiny_tokens(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study folder whose tokens are prepared, to be copied."""
    from indelible.cli.study_commands import write_plan

    folder = tmp_path_factory.mktemp("tiny")
    (folder / "tiny.yaml").write_text(yaml.safe_dump(TINY))
    write_plan(str(folder / "tiny.yaml"), [], folder / "out", {})
    return folder / "out" / "tokens"


@pytest.fixture
def tiny_study(tmp_path: Path, tiny_tokens: Path) -> Callable[..., Path]:
    """Makes a planned study folder: ``tiny_study(over, name)`` returns it."""
    from indelible.cli.study_commands import write_plan

    def make(over: dict[str, Any] | None = None, name: str = "out") -> Path:
        out = tmp_path / name
        if not (out / "tokens").exists():
            shutil.copytree(tiny_tokens, out / "tokens")
        (tmp_path / f"{name}.yaml").write_text(yaml.safe_dump(layered(TINY, over or {})))
        write_plan(str(tmp_path / f"{name}.yaml"), [], out, {})
        return out

    return make
