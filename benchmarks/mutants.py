"""Do the tests notice when a line is wrong? Changes one thing at a time in the modules that results rest on.

    python benchmarks/mutants.py [--only loader] [--count 20] [--seed 0] [--numbers 3,7]

Of each module a seeded sample of changes is taken: a comparison, an operator, a number, a switch, a condition, a
statement left out. The fast tests of the module's own room are run against each; a change that they pass has survived.

Every change is tried in a fork of this process, which has imported what takes long and nothing of the package, in a
copy of the tree, where child processes of tests see the change too. mutmut passes over properties, class bodies and
most decorated functions; cosmic-ray starts an interpreter, and with it torch, for every change and has one test command
for all modules.
"""

import argparse
import ast
import importlib
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
_LOOP = [f"tests/train/test_{name}.py" for name in ("loop", "numerics", "divergence", "resume", "stage", "watch")]
MODULES = {  # module: tests of its room, those that fail soonest first
    "data/ledger": ["tests/data/test_ledger.py", "tests/data/test_ledger_mixes.py"],
    "data/loader": ["tests/data/test_loader.py", "tests/train/test_heldout.py"],
    "train/loop": _LOOP,
    "train/optim": ["tests/train/test_numerics.py"],
    "train/evaluate": ["tests/train/test_evaluate.py", "tests/train/test_heldout.py"],
    "train/evaluation": ["tests/train/test_evaluation.py", "tests/train/test_divergence.py"],
    "train/checkpoint": ["tests/train/test_resume.py", "tests/train/test_interventions.py"],
    "study/identity": ["tests/study/test_identity.py", "tests/study/test_identity_properties.py"],
    "study/cost": ["tests/study/test_cost.py"],
    "models/lora": ["tests/models/test_lora.py"],
    "models/dropout": ["tests/models/test_dropout.py"],
    "statistics/inference": ["tests/statistics/test_inference.py"],
    "statistics/contrasts": ["tests/statistics/test_contrasts.py"],
    "statistics/compare": ["tests/statistics/test_compare.py", "tests/statistics/test_divergence.py"],
    "statistics/frontier": ["tests/statistics/test_frontier.py"],
    "statistics/frontier_score": ["tests/statistics/test_frontier_score.py"],
    "statistics/stage_seeds": ["tests/statistics/test_stage_seeds.py"],
    "statistics/by_document": ["tests/statistics/test_by_document.py"],
    "scheduling/lease": ["tests/scheduling/test_lease.py"],
}
HEAVY = [
    "torch",
    "transformers",
    "numpy",
    "scipy.stats",
    "polars",
    "pyarrow.parquet",
    "pydantic",
    "hypothesis",
    "pytest",
]
SLACK = 4.0  # of the time that the tests take without a change
LEAST_SECONDS = 60.0


@dataclass(frozen=True)
class Change:
    """One change of a module."""

    line: int
    what: str
    apply: Callable[[], None]  # works on the tree that it was found in


_COMPARED: dict[type, type] = {
    ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot, ast.IsNot: ast.Is, ast.In: ast.NotIn, ast.NotIn: ast.In,
}  # fmt: skip
_OPERATORS: dict[type, type] = {
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult, ast.FloorDiv: ast.Mult,
    ast.Mod: ast.FloorDiv, ast.Pow: ast.Mult, ast.And: ast.Or, ast.Or: ast.And,
}  # fmt: skip
_CALLS = {"min": "max", "max": "min", "any": "all", "all": "any", "floor": "ceil", "ceil": "floor"}
_UNCHANGED = (ast.JoinedStr, ast.Raise, ast.Assert, ast.Import, ast.ImportFrom)  # messages and names


def changes(tree: ast.Module) -> Iterator[Change]:
    """All changes of a module, in the order of its lines."""
    yield from _below(tree)


def _below(node: ast.AST) -> Iterator[Change]:
    for field, value in ast.iter_fields(node):
        if field in ("annotation", "returns", "decorator_list", "type_params", "bases"):
            continue
        children = value if isinstance(value, list) else [value]
        for position, child in enumerate(children):
            if not isinstance(child, ast.AST):
                continue

            def put(new: ast.AST, node: ast.AST = node, field: str = field, position: int | None = None) -> None:
                if position is None:
                    setattr(node, field, new)
                else:
                    getattr(node, field)[position] = new

            place = position if isinstance(value, list) else None
            if isinstance(child, ast.stmt):
                yield from _of_statement(child, lambda new, put=put, place=place: put(new, position=place))
            elif isinstance(child, ast.expr):
                yield from _of_expression(child, node, lambda new, put=put, place=place: put(new, position=place))
            if not isinstance(child, _UNCHANGED) and not _is_for_types(child):
                yield from _below(child)


def _is_for_types(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test)


def _of_statement(node: ast.stmt, put: Callable[[ast.AST], None]) -> Iterator[Change]:
    """A statement left out; a loop that ends at once in place of going on, and the other way round."""
    text = ast.unparse(node).splitlines()[0][:90]
    is_call = isinstance(node, ast.Expr) and isinstance(node.value, ast.Call) and not text.startswith("print(")
    is_attribute = isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Attribute | ast.Subscript)
    if is_call or is_attribute or isinstance(node, ast.AugAssign | ast.Raise | ast.Delete):
        yield Change(node.lineno, f"without  {text}", lambda: put(ast.Pass()))
    elif isinstance(node, ast.Continue):
        yield Change(node.lineno, "continue -> break", lambda: put(ast.Break()))
    elif isinstance(node, ast.Break):
        yield Change(node.lineno, "break -> continue", lambda: put(ast.Continue()))


def _of_expression(node: ast.expr, parent: ast.AST, put: Callable[[ast.AST], None]) -> Iterator[Change]:
    """What may be wrong in an expression by itself."""

    def change(new: ast.expr) -> Change:
        before, after = ast.unparse(node)[:80], ast.unparse(ast.fix_missing_locations(new))[:80]
        return Change(node.lineno, f"{before}  ->  {after}", lambda: put(new))

    if isinstance(node, ast.Compare) and type(node.ops[0]) in _COMPARED:
        new = _COMPARED[type(node.ops[0])]()
        yield change(ast.Compare(node.left, [new, *node.ops[1:]], node.comparators))
    elif isinstance(node, ast.BinOp) and type(node.op) in _OPERATORS and not _has_text(node):
        yield change(ast.BinOp(node.left, _OPERATORS[type(node.op)](), node.right))
    elif isinstance(node, ast.BoolOp):
        yield change(ast.BoolOp(_OPERATORS[type(node.op)](), node.values))
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not | ast.USub):
        yield change(node.operand)
    elif isinstance(node, ast.Call) and (name := getattr(node.func, "attr", getattr(node.func, "id", ""))) in _CALLS:
        other = _CALLS[name]
        func = ast.Name(other) if isinstance(node.func, ast.Name) else ast.Attribute(node.func.value, other)
        yield change(ast.Call(func, node.args, node.keywords))
    elif isinstance(node, ast.Constant) and not (isinstance(parent, ast.keyword) and parent.arg == "strict"):
        if isinstance(node.value, bool):
            yield change(ast.Constant(not node.value))
        elif isinstance(node.value, int | float):
            yield change(ast.Constant(node.value + 1 if isinstance(node.value, int) else node.value * 2 or 1.0))
    is_test = isinstance(parent, ast.If | ast.IfExp | ast.comprehension) and not isinstance(node, ast.Compare)
    is_condition = is_test and (node is getattr(parent, "test", None) or node in getattr(parent, "ifs", []))
    if is_condition and not isinstance(node, ast.UnaryOp | ast.BoolOp):
        yield change(ast.UnaryOp(ast.Not(), node))


def _has_text(node: ast.BinOp) -> bool:
    return any(
        isinstance(side, ast.JoinedStr) or (isinstance(side, ast.Constant) and isinstance(side.value, str))
        for side in (node.left, node.right)
    )


class Tree:
    """A copy of the repository in which one module at a time is changed."""

    def __init__(self, root: Path) -> None:
        self.root = root
        for name in ("indelible", "tests"):
            shutil.copytree(ROOT / name, root / name, ignore=shutil.ignore_patterns("__pycache__"))
        for path in ROOT.iterdir():
            if path.name not in ("indelible", "tests", ".git", ".hypothesis"):
                (root / path.name).symlink_to(path)

    def run(self, tests: list[str], limit_seconds: float, log: Path) -> tuple[int | None, float]:
        """Exit code of pytest in a fork of this process, None if it took too long; and the seconds."""
        begun = time.monotonic()
        child = os.fork()
        if not child:
            self._test(tests, log)
        while time.monotonic() - begun < limit_seconds:
            done, status = os.waitpid(child, os.WNOHANG)
            if done:
                return os.waitstatus_to_exitcode(status), time.monotonic() - begun
            time.sleep(0.05)
        os.killpg(child, signal.SIGKILL)
        os.waitpid(child, 0)
        return None, time.monotonic() - begun

    def _test(self, tests: list[str], log: Path) -> None:
        os.setsid()
        handle = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        for stream in (1, 2):
            os.dup2(handle, stream)
        os.chdir(self.root)
        os.environ["PYTHONPATH"] = str(self.root)
        sys.path.insert(0, str(self.root))
        import pytest

        options = ["-x", "-q", "-m", "not slow", "-p", "no:cacheprovider", "--hypothesis-seed=0"]
        code = pytest.main([*options, *tests])
        sys.stdout.flush()
        os._exit(int(code))


def try_module(tree: Tree, name: str, args: argparse.Namespace) -> None:
    """Tries a sample of the changes of one module; prints what survives, and a line with the counts."""
    file, tests = tree.root / f"indelible/{name}.py", MODULES[name]
    source, log = file.read_text(encoding="utf-8"), tree.root / "log"
    code, seconds = tree.run(tests, 600, log)
    if code != 0:
        sys.exit(f"{name}: its tests fail without any change:\n{log.read_text()[-3000:]}")
    os.environ["PYTHONDONTWRITEBYTECODE"], sys.dont_write_bytecode = "1", True
    everything = len(list(changes(ast.parse(source))))
    numbers = sorted(random.Random(f"{args.seed} {name}").sample(range(everything), min(args.count, everything)))
    if args.numbers:
        numbers = [int(number) for number in args.numbers.split(",")]
    killed, survivors = 0, []
    for number in numbers:
        parsed = ast.parse(source)
        one = list(changes(parsed))[number]
        one.apply()
        file.write_text(ast.unparse(ast.fix_missing_locations(parsed)), encoding="utf-8")
        shutil.rmtree(file.parent / "__pycache__", ignore_errors=True)
        code, took = tree.run(tests, max(LEAST_SECONDS, SLACK * seconds), log)
        outcome = "SURVIVED" if code == 0 else "too long" if code is None else "killed"
        killed += outcome != "SURVIVED"
        if outcome == "SURVIVED":
            survivors.append(number)
        print(f"{name}:{one.line} #{number} {outcome} ({took:.0f} s)  {one.what}", flush=True)
    file.write_text(source, encoding="utf-8")
    print(f"{name}: {killed} of {len(numbers)} killed, of {everything} changes; survivors {survivors}", flush=True)


def main() -> None:
    """Tries all modules, or some."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", default="", help="part of a module's name")
    parser.add_argument("--count", type=int, default=20, help="changes of each module, at most")
    parser.add_argument("--seed", type=int, default=0, help="of the sample")
    parser.add_argument("--numbers", default="", help="these changes of one module, by number")
    args = parser.parse_args()
    for name in HEAVY:
        importlib.import_module(name)
    with tempfile.TemporaryDirectory(prefix="mutants-") as folder:
        tree = Tree(Path(folder))
        for name in MODULES:
            if args.only in name:
                try_module(tree, name, args)


if __name__ == "__main__":
    main()
