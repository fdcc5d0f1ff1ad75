"""What it takes to add something: the counts of docs/extending.md, on what has been added so far."""

import ast
import re
from pathlib import Path

import pytest

import indelible
from indelible.claims.paper_claims import CLAIMS
from indelible.objectives import Guard, Objective
from indelible.study.corpus_spec import CorpusSpec
from indelible.study.graph import Stores, build_graph
from indelible.study.load import resolve_study
from indelible.study.training import Optimization
from indelible.study.validation import models_in

PACKAGE = Path(indelible.__file__).parent
EXTENDING = PACKAGE.parent / "docs" / "extending.md"
BASE = {"name": "t", "scale": "pico", "pipeline": {"pre": "general", "post": "music", "ft": "chemistry"}, "seeds": [0]}
STORES = Stores({name: f"{name}-1" for name in ("general", "music", "chemistry", "instruction")}, "tokenizer-1")


def words_of(file: Path) -> set[str]:
    """Names, attributes and text constants of a module; docstrings and comments are no code."""
    found: set[str] = set()
    tree = ast.parse(file.read_text(encoding="utf-8"))
    documented = [node for node in ast.walk(tree) if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef)]
    docstrings = {id(node.body[0].value) for node in documented if node.body and isinstance(node.body[0], ast.Expr)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Name):
            found.add(node.id)
        elif isinstance(node, ast.Attribute):
            found.add(node.attr)
        elif isinstance(node, ast.keyword | ast.arg) and node.arg:
            found.add(node.arg)
        elif isinstance(node, ast.ClassDef | ast.FunctionDef):
            found.add(node.name)
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= set(node.module.split("."))
        elif isinstance(node, ast.alias):
            found |= set(node.name.split("."))
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docstrings:
            found.add(node.value)
    return found


WORDS = {file.relative_to(PACKAGE).as_posix(): words_of(file) for file in PACKAGE.rglob("*.py")}


def modules_with(*words: str) -> list[str]:
    return sorted(name for name, found in WORDS.items() if found & set(words))


@pytest.mark.parametrize("field", ["eps", "weight_decay", "max_grad_norm", "min_improvement"])
def test_a_training_field_is_its_definition_and_its_reader(field):
    found = modules_with(field)
    assert "study/training.py" in found
    assert 2 <= len(found) <= 3, found


VALUES = {"betas": [[0.9, 0.95], [0.8, 0.9]], "patience": [1, 2], "eval_interval": [1, 2], "warmup_steps": [1, 2]}
VALUES |= {"global_batch_size": [4, 8], "schedule": ["cosine", "linear"]}


@pytest.mark.parametrize("field", list(Optimization.model_fields))
def test_every_training_field_is_an_axis_an_identity_and_a_column(field):
    """All that follows from the one definition: a field that is added tomorrow passes, or fails here."""
    values = VALUES.get(field, [0.25, 0.5])
    settings = {field: values} | ({"eval_interval": 1} if field == "patience" else {})
    graph = build_graph(resolve_study({**BASE, "finetune": settings}), STORES)
    assert len({chain.runs["finetune"] for chain in graph.chains}) == 2
    assert len({chain.columns[f"finetune_{field}"] for chain in graph.chains}) == 2


@pytest.mark.parametrize("model", [*models_in(Guard), *models_in(Objective)], ids=lambda model: model.__name__)
def test_a_guard_or_an_objective_is_a_file_and_a_line(model):
    kind = model.model_fields["kind"].default
    if kind in ("none", "next_token"):  # the old behaviour: labels, costs and the fused loss know it by name
        return
    found = modules_with(kind, model.__name__)
    assert "objectives/__init__.py" in found
    assert len(found) <= 3, found


def test_guards_are_what_the_seam_is_proved_by():
    assert {model.model_fields["kind"].default for model in models_in(Guard)} >= {"none", "kl", "l2sp"}


def test_a_fourth_and_a_fifth_stage_are_yaml():
    stages = {"fourth": {"corpus": "instruction", "lr": [1e-4, 1e-3]}, "relearn": {"corpus": "music", "tokens": "5k"}}
    assert modules_with("fourth", "relearn") == []
    graph = build_graph(resolve_study({**BASE, "stages": stages}), STORES)
    assert graph.stages == ("pretrain", "posttrain", "finetune", "fourth", "relearn")
    assert {chain.columns["fourth_lr"] for chain in graph.chains} == {1e-4, 1e-3}


def test_a_view_is_yaml():
    views = {"L_mine": {"after": "finetune", "corpus": "general"}}
    assert modules_with("L_mine") == []
    (chain,) = build_graph(resolve_study({**BASE, "views": views}), STORES).chains
    assert chain.views["L_mine"] == (chain.runs["finetune"], "general")


@pytest.mark.parametrize("model", models_in(CorpusSpec), ids=lambda model: model.__name__)
def test_kinds_of_corpora_are_declared_in_one_place(model):
    assert [name for name in modules_with(model.__name__) if name.startswith("study/")] == ["study/corpus_spec.py"]


def test_a_kind_of_corpus_is_three_modules():
    found = [name for name in modules_with("SyntheticCorpus", "synthetic_documents") if name != "study/validation.py"]
    assert found == ["corpora/sources.py", "corpora/synthetic.py", "study/corpus_spec.py"]


@pytest.mark.parametrize("claim", CLAIMS, ids=lambda claim: claim.name)
def test_a_claim_is_named_in_at_most_two_modules(claim):
    found = modules_with(claim.name)
    assert "claims/paper_claims.py" in found
    assert len(found) <= 2, found


CHARTS = {
    name: f"report/{file.name}"
    for file in sorted((PACKAGE / "report").glob("charts_*.py"))
    for name in re.findall(r"^def ([a-z]\w*_figure)\(", file.read_text(encoding="utf-8"), flags=re.M)
}


@pytest.mark.parametrize("function", CHARTS)
def test_a_chart_is_a_file_and_a_line(function):
    assert modules_with(function) == sorted([CHARTS[function], "report/contents.py"])


BLOCKS = re.findall(r"^`(indelible/[\w/.]+)`\n```python\n(.*?)```", EXTENDING.read_text("utf-8"), flags=re.S | re.M)


@pytest.mark.parametrize(("file", "block"), BLOCKS, ids=[file for file, _ in BLOCKS])
def test_the_examples_are_parts_of_the_code(file, block):
    shown = block.rstrip("\n")  # a part of a line is shown where the line is too long or ends in a comma
    assert shown in (PACKAGE.parent / file).read_text(encoding="utf-8"), "docs/extending.md shows other code"


def test_every_block_of_code_names_its_file():
    assert len(BLOCKS) == EXTENDING.read_text(encoding="utf-8").count("```python\n") > 8
