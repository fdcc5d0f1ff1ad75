"""Builds the documentation site: lays the pages out as they lie in the repository, then Zensical makes HTML of them.

    python tools/build_site.py

The pages keep their places (README.md is the front page), so that every relative link of the repository holds in the
site as well. The notebook becomes a page. Needs the extra `docs`; nothing is fetched.
"""

import argparse
import json
import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import ClassVar
from urllib.parse import unquote, urlsplit

ROOT = Path(__file__).resolve().parents[1]
PAGES = ROOT / "build" / "pages"  # `docs_dir` of zensical.toml
SITE = ROOT / "build" / "site"  # `site_dir`
BESIDE = ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "LICENSE", "CITATION.cff")
FOLDERS = ("docs", "reference")
ELSEWHERE = re.compile(r"(?:url\(|@import )[\"']?(https?:[^)\"']+)")  # in a style sheet


def notebook_page(text: str) -> str:
    """A notebook as Markdown: its text, its code, and below each the output that it shows."""
    parts = []
    for cell in json.loads(text)["cells"]:
        source = "".join(cell["source"])
        if cell["cell_type"] == "markdown":
            parts.append(source)
            continue
        parts.append(f"```python\n{source}\n```")
        shown = "".join(output_text(output) for output in cell["outputs"]).strip("\n")
        if shown:
            parts.append(f"```text\n{shown}\n```")
    return "\n\n".join(parts) + "\n"


def output_text(output: dict[str, object]) -> str:
    """What an output of a cell shows as text."""
    if output["output_type"] == "stream":
        return "".join(output["text"])  # type: ignore[arg-type]
    return "".join(output["data"]["text/plain"]) + "\n"  # type: ignore[index]


def lay_out(root: Path = ROOT, pages: Path = PAGES) -> list[Path]:
    """Copies what the site is made of into ``pages``; returns the pages, relative to it."""
    shutil.rmtree(pages, ignore_errors=True)
    pages.mkdir(parents=True)
    for name in BESIDE:
        shutil.copy(root / name, pages / name)
    for folder in FOLDERS:
        shutil.copytree(root / folder, pages / folder, ignore=shutil.ignore_patterns("*.py", "__pycache__"))
    for page in pages.rglob("*.md"):
        text = page.read_text(encoding="utf-8")
        page.write_text(text.replace(".ipynb)", ".md)"), encoding="utf-8")
    for notebook in pages.rglob("*.ipynb"):
        notebook.with_suffix(".md").write_text(notebook_page(notebook.read_text(encoding="utf-8")), encoding="utf-8")
    return sorted(page.relative_to(pages) for page in pages.rglob("*.md"))


def build(root: Path = ROOT) -> Path:
    """Makes the site; a warning of the builder, such as a link to a page that is not there, is an error."""
    lay_out(root, root / "build" / "pages")
    command = [sys.executable, "-m", "zensical", "build", "--strict", "--clean", "--config-file", "zensical.toml"]
    subprocess.run(command, cwd=root, check=True)
    site = root / "build" / "site"
    if not (site / "index.html").is_file():
        raise FileNotFoundError(f"{site}: the builder made no index.html")
    return site


class Page(HTMLParser):
    """The places of a page that can be linked to, what it links to and what it loads."""

    LOADS: ClassVar = {"script": "src", "img": "src", "source": "src", "iframe": "src", "link": "href"}

    def __init__(self, text: str) -> None:
        super().__init__()
        self.places = {"", "__top"}
        self.links: list[str] = []
        self.loaded: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Takes note of one element."""
        found = {key: value for key, value in attrs if value is not None}
        self.places |= {found[key] for key in ("id", "name") if key in found}
        if tag == "a" and "href" in found:
            self.links.append(found["href"])
        if tag in self.LOADS and self.LOADS[tag] in found and found.get("rel") != "canonical":
            self.loaded.append(found[self.LOADS[tag]])


def faults(site: Path) -> list[str]:
    """Links of a built site that lead nowhere, and what it would fetch from the network; one line each."""
    site = site.resolve()
    pages = {path: Page(path.read_text(encoding="utf-8")) for path in sorted(site.rglob("*.html"))}
    found = []
    for path, page in pages.items():
        name = path.relative_to(site)
        for target in page.links + page.loaded:
            parts = urlsplit(target)
            if parts.scheme or parts.netloc:
                if target in page.loaded and not target.startswith("data:"):
                    found.append(f"{name}: loads {target}")
                continue
            aim = path.parent / unquote(parts.path) if parts.path else path
            aim = (site / parts.path.lstrip("/")) if parts.path.startswith("/") else aim
            aim = (aim / "index.html" if aim.is_dir() else aim).resolve()
            if not aim.is_file():
                found.append(f"{name}: {target}: no such file")
            elif aim in pages and unquote(parts.fragment) not in pages[aim].places:
                found.append(f"{name}: {target}: no such place")
    for sheet in sorted(site.rglob("*.css")):
        for target in ELSEWHERE.findall(sheet.read_text(encoding="utf-8")):
            found.append(f"{sheet.relative_to(site)}: loads {target}")
    return found


def main() -> int:
    """The command: exit code 1 if a link leads nowhere or the network would be needed."""
    argparse.ArgumentParser(description=__doc__.splitlines()[0]).parse_args()
    site = build()
    found = faults(site)
    print("\n".join([*found, str(site / "index.html")]))
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
