"""How the documents are written: spelling, length of sentences, no words of advertising."""

import re
import subprocess
import sys
from pathlib import Path

import prose
import pytest

ROOT = Path(__file__).parents[2]
PAGES = [*(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "reference/README.md"))]
PAGES += sorted((ROOT / "docs").rglob("*.md"))
IDS = [page.relative_to(ROOT).as_posix() for page in PAGES]
MOST_WORDS = 60
LONG = {"docs/analysis.md": 3}  # sentences of a page that are longer still; none may come to them
ADVERTISING = re.compile(
    r"\b(?:seamless(?:ly)?|cutting[- ]edge|state[- ]of[- ]the[- ]art|blazing(?:ly)?|revolutionary|effortless(?:ly)?|"
    r"world[- ]class|game[- ]chang\w+|best[- ]in[- ]class|next[- ]gen\w*|supercharg\w+|unlocks?|empowers?|unleash\w*|"
    r"leverag\w+|easy to use|simply|just works|amazing|incredible)\b",
    re.I,
)
TEMPLATES = ROOT / ".github" / "ISSUE_TEMPLATE"


def test_words_are_spelt_right():
    """Documents, code and messages; the words that are right and unknown stand in pyproject.toml."""
    places = [
        *(name for name in IDS if "/" not in name),
        "reference/README.md",
        "docs",
        "indelible",
        "tools",
        ".github",
    ]
    done = subprocess.run(
        [sys.executable, "-m", "codespell_lib", *places], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_wrong_word_is_found(tmp_path):
    (tmp_path / "page.md").write_text("The losses are seperate.\n")
    done = subprocess.run([sys.executable, "-m", "codespell_lib", str(tmp_path)], capture_output=True, check=False)
    assert done.returncode != 0


@pytest.mark.parametrize("page", PAGES, ids=IDS)
def test_no_sentence_is_too_long(page):
    said = prose.sentences(page.read_text(encoding="utf-8"))
    long = [one for one in said if prose.words(one) > MOST_WORDS]
    assert len(long) <= LONG.get(page.relative_to(ROOT).as_posix(), 0), long


@pytest.mark.parametrize("page", PAGES, ids=IDS)
def test_no_words_of_advertising(page):
    text = " ".join(prose.paragraphs(page.read_text(encoding="utf-8")))
    assert ADVERTISING.findall(text) == []


def test_sentences_are_counted_as_a_reader_would():
    page = "# Title\n\nOne `x. Y` two. Three four; five.\nSix\n\n* item one. **Bold.** Two\n\n| cell. Cell |\n"
    page += "\n```\nA. B.\n```\n"
    assert prose.sentences(page) == ["One Code two.", "Three four", "five.", "Six", "item one.", "**Bold.", "Two"]
    assert prose.words("L_ret falls by 0.31 [-0.4, -0.2], doesn't it?") == 5
    assert ADVERTISING.search("It simply works")


def test_readme_is_short():
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 150


def test_pictures_are_small():
    for picture in (ROOT / "docs" / "images").iterdir():
        assert picture.stat().st_size <= 250_000, picture


def test_issue_templates_ask_for_what_is_needed():
    import yaml

    forms = {file.stem: yaml.safe_load(file.read_text(encoding="utf-8")) for file in TEMPLATES.glob("*.yml")}
    assert set(forms) == {"bug", "question", "method", "config"}
    for name in ("bug", "question", "method"):
        assert {"name", "description", "body"} <= forms[name].keys()
        fields = [one for one in forms[name]["body"] if one["type"] != "markdown"]
        assert all(one["attributes"]["label"] for one in fields)
        assert any(one.get("validations", {}).get("required") for one in fields)
    assert "indelible doctor" in str(forms["bug"])
