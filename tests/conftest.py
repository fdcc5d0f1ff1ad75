"""A tiny study on generated text: three stages of a one-layer model in well under a second each."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tiny_engine import TINY, layered


@pytest.fixture(scope="session")
def tiny_tokens(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tokens folder of a planned study, to be copied."""
    from indelible.study.load import resolve_study
    from indelible.workflow.planning import plan_study
    from indelible.workflow.preparing import write_plan

    out = tmp_path_factory.mktemp("tiny") / "out"
    write_plan(plan_study(resolve_study(TINY)), out)
    return out / "tokens"


@pytest.fixture
def tiny_study(tmp_path: Path, tiny_tokens: Path) -> Callable[..., Path]:
    """Makes a planned study folder: ``tiny_study(over, name)`` returns it; its study file lies beside it."""
    import yaml

    from indelible.study.load import load_study
    from indelible.workflow.planning import plan_study
    from indelible.workflow.preparing import write_plan

    def make(over: dict[str, Any] | None = None, name: str = "out") -> Path:
        out = tmp_path / name
        if not (out / "tokens").exists():
            shutil.copytree(tiny_tokens, out / "tokens")
        file = tmp_path / f"{name}.yaml"
        file.write_text(yaml.safe_dump(layered(TINY, over or {})))
        write_plan(plan_study(load_study(str(file))), out)
        return out

    return make
