"""What the code never does with what others made (docs/security.md): found by reading the source."""

import ast
import re
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[2] / "indelible"
FORBIDDEN = ("eval", "exec", "os.system", "os.popen", "torch.load", "yaml.load", "yaml.unsafe_load")
FILES = sorted(PACKAGE.rglob("*.py"))


def calls(path: Path) -> list[ast.Call]:
    return [node for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))) if isinstance(node, ast.Call)]


def name_of(call: ast.Call) -> str:
    return ast.unparse(call.func)


def keywords(call: ast.Call) -> dict[str, str]:
    return {keyword.arg: ast.unparse(keyword.value) for keyword in call.keywords if keyword.arg}


@pytest.mark.parametrize("path", FILES, ids=[str(path.relative_to(PACKAGE)) for path in FILES])
def test_nothing_that_is_read_can_run_code(path: Path) -> None:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    imported = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    imported |= {node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert not imported & {"pickle", "dill", "cloudpickle", "shelve", "marshal", "joblib"}, "no pickles"
    for call in calls(path):
        name, given = name_of(call), keywords(call)
        where = f"{path.name} line {call.lineno}: {name}"
        assert name not in FORBIDDEN, where
        assert given.get("shell", "False") == "False", where
        if name.endswith("np.load"):
            assert given.get("allow_pickle") == "False", where
        if name.startswith("Auto") and name.endswith(".from_pretrained"):
            assert given.get("trust_remote_code") == "False", where


def test_the_rules_find_what_they_look_for(tmp_path: Path) -> None:
    """Else they would hold whatever the code does."""
    names = {name_of(call) for path in FILES for call in calls(path)}
    assert any(name.startswith("Auto") and name.endswith(".from_pretrained") for name in names)
    assert any(name.endswith("np.load") for name in names)
    for line in (
        "import pickle",
        "x = eval('1')",
        "AutoModel.from_pretrained('x')",
        "import numpy as np\nnp.load('x')",
    ):
        path = tmp_path / "bad.py"
        path.write_text(line)
        with pytest.raises(AssertionError):
            test_nothing_that_is_read_can_run_code(path)


def test_every_claim_names_tests_that_there_are() -> None:
    page = (PACKAGE.parent / "docs" / "security.md").read_text(encoding="utf-8")
    rows = [line for line in page.splitlines() if line.startswith("|") and "tests/" in line]
    assert len(rows) > 10
    for row in rows:
        for place in re.findall(r"`(tests/[\w/.]+)`", row):
            assert (PACKAGE.parent / place).exists(), f"{place}, named by: {row[:80]}"
