"""The fake engine, importable here and in worker processes."""

import importlib.util
import os
import sys
from pathlib import Path
from types import ModuleType

import pytest

_HERE = Path(__file__).parent


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The module fake_engine; worker processes find it as ``fake_engine:run_stage``."""
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(_HERE), os.environ.get("PYTHONPATH", "")]))
    if "fake_engine" not in sys.modules:
        spec = importlib.util.spec_from_file_location("fake_engine", _HERE / "fake_engine.py")
        module = importlib.util.module_from_spec(spec)
        sys.modules["fake_engine"] = module
        spec.loader.exec_module(module)
    return sys.modules["fake_engine"]
