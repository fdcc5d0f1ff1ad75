"""The documentation site: it builds strictly and without a network, and its navigation has every page once."""

import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import build_site
import pytest

ROOT = Path(__file__).parents[2]
WRITTEN = [*(ROOT / "docs").rglob("*.md"), *(ROOT / "docs").rglob("*.ipynb")]


def places(nav: list[dict[str, object]] | str) -> list[str]:
    """The pages that a navigation names, in order."""
    if isinstance(nav, str):
        return [nav]
    return [place for one in nav for inner in one.values() for place in places(inner)]


@pytest.fixture(scope="module")
def config() -> dict[str, object]:
    """What zensical.toml says."""
    return tomllib.loads((ROOT / "zensical.toml").read_text(encoding="utf-8"))["project"]


def test_every_page_is_in_the_navigation_once(config):
    named = places(config["nav"])
    assert len(named) == len(set(named))
    pages = {page.relative_to(ROOT).with_suffix(".md").as_posix() for page in WRITTEN}
    missing = pages - set(named)
    assert not missing, f"in no section of the navigation: add {sorted(missing)} to nav in zensical.toml"
    assert {name for name in named if name.startswith("docs/")} == pages


@pytest.fixture(scope="module")
def copied(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the site is made of, in a folder of its own: a build writes."""
    root = tmp_path_factory.mktemp("site")
    for name in (*build_site.BESIDE, *build_site.FOLDERS):
        (root / name).symlink_to(ROOT / name)
    shutil.copy(ROOT / "zensical.toml", root)  # the builder works where the file truly lies
    return root


def test_the_site_builds_without_a_network_and_every_link_leads_somewhere(copied):
    """With `unshare` the builder has no network at all; where it may not be used, nothing loaded is from elsewhere."""
    program = (
        "import sys; from pathlib import Path; import build_site\n"
        f"site = build_site.build(Path({str(copied)!r})); print('faults:', build_site.faults(site))\n"
    )
    alone = ["unshare", "--net"] if subprocess.run(["unshare", "--net", "true"], check=False).returncode == 0 else []
    done = subprocess.run(
        [*alone, sys.executable, "-c", program], cwd=ROOT / "tools", capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.endswith("faults: []\n"), done.stdout
    front = (copied / "build" / "site" / "index.html").read_text(encoding="utf-8")
    assert "card.png" in front
    assert "fonts.googleapis" not in front


@pytest.mark.parametrize(
    ("page", "fault"),
    [
        ('<a href="there.html">x</a>', "no such file"),
        ('<a href="other.html#nowhere">x</a>', "no such place"),
        ('<img src="https://example.com/x.png">', "loads https"),
        ('<script src="//cdn.example.com/x.js"></script>', "loads //cdn"),
        ('<a href="https://example.com">x</a><a href="other.html#here">x</a><a href="#here">x</a><p id="here">', ""),
    ],
)
def test_faults_of_a_site_are_found(tmp_path, page, fault):
    (tmp_path / "index.html").write_text(page)
    (tmp_path / "other.html").write_text('<p id="here">')
    found = build_site.faults(tmp_path)
    assert [fault in one for one in found] == [True] * bool(fault)


def test_style_sheets_load_nothing_from_elsewhere(tmp_path):
    (tmp_path / "a.css").write_text("@import 'https://example.com/a.css'; b { src: url(https://example.com/f.woff) }")
    assert len(build_site.faults(tmp_path)) == 2


def test_a_notebook_becomes_a_page():
    notebook = (ROOT / "docs" / "tutorials" / "from-python.ipynb").read_text(encoding="utf-8")
    page = build_site.notebook_page(notebook)
    assert page.startswith("# From Python\n")
    assert re.search(r"```python\nimport indelible\n.*?```\n\n```text\n6 arms and 2 seeds", page, flags=re.S)
