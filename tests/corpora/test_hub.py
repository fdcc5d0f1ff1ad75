"""Data sets of the hub, through the loader that streams them, on folders laid out like one."""

import shutil
from pathlib import Path

import polars as pl
import pytest

from indelible.corpora import documents, hub, provenance, recipe
from indelible.corpora.catalog import HUB
from indelible.errors import UserError
from indelible.study.corpus_spec import CatalogueCorpus, HubCorpus

ROWS = {"id": list(range(40)), "text": [f"Tune number {i}" for i in range(40)], "src": ["x", "y"] * 20}


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    """The library sleeps five seconds at the end of every shuffled stream, for the sake of its threads."""
    import datasets

    monkeypatch.setattr(datasets.config, "SLEEP_TIME_ON_THREADS_SHUTDOWN", 0)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    data = tmp_path / "set" / "data"
    data.mkdir(parents=True)
    frame = pl.DataFrame(ROWS)
    frame[:25].write_parquet(data / "train-00000-of-00002.parquet")
    frame[25:].write_parquet(data / "train-00001-of-00002.parquet")
    frame[:3].write_parquet(data / "validation-00000-of-00001.parquet")
    return tmp_path / "set"


def test_streams_the_split_shuffled_by_seed(folder: Path, tmp_path: Path) -> None:
    def read(**changes: object) -> list[str]:
        spec = HubCorpus.model_validate({"id": str(folder), "revision": "v1", **changes})
        return [document.text for document in documents(spec, tmp_path / "cache")]

    assert read(shuffle=False) == ROWS["text"]
    assert sorted(read()) == sorted(ROWS["text"])
    assert read() == read() != ROWS["text"]
    assert read(seed=1) != read()
    assert read(split="validation", shuffle=False) == ROWS["text"][:3]


def test_columns_filter_and_sources(folder: Path, tmp_path: Path) -> None:
    spec = HubCorpus(id=str(folder), revision="v1", filter={"src": "y"}, source_column="src", licence="MIT")
    found = list(documents(spec, tmp_path / "cache"))
    assert len(found) == 20
    assert {(d.source, d.licence) for d in found} == {("y", "MIT")}
    wrong = HubCorpus(id=str(folder), revision="v1", text_column="body")
    with pytest.raises(UserError, match="no column 'body'; it has 'id', 'text', 'src'"):
        list(documents(wrong, tmp_path / "cache"))


def test_a_set_that_cannot_be_opened(folder: Path, tmp_path: Path) -> None:
    spec = HubCorpus(id=str(folder), revision="v1", split="test")
    with pytest.raises(UserError, match=r"split test, revision v1 could not be opened"):
        list(documents(spec, tmp_path / "cache"))


def test_a_stream_that_breaks_off_is_one_clear_message(folder: Path, tmp_path: Path) -> None:
    path = folder / "data" / "train-00001-of-00002.parquet"
    data = bytearray(path.read_bytes())
    data[4:200] = bytes(196)
    path.write_bytes(data)
    with pytest.raises(UserError, match=r"data set .*set: reading stopped after record 25: .*run the command again"):
        list(documents(HubCorpus(id=str(folder), revision="v1", shuffle=False), tmp_path / "cache"))


def test_a_revision_that_changed_under_its_name_is_refused(folder: Path, tmp_path: Path) -> None:
    spec = HubCorpus(id=str(folder), revision="v1")
    before = recipe(spec, tmp_path / "cache")
    commit = provenance(spec, tmp_path / "cache")["commit"]
    assert len(commit) == 40
    (folder / "data" / "validation-00000-of-00001.parquet").unlink()
    assert recipe(spec, tmp_path / "cache") != before
    with pytest.raises(UserError, match=f"revision 'v1' was commit {commit} and is"):
        list(documents(spec, tmp_path / "cache"))
    assert list(documents(HubCorpus(id=str(folder), revision="v2"), tmp_path / "cache"))


def test_folders_of_one_relative_name_are_two_sets(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(folder, tmp_path / "elsewhere" / "set")
    (tmp_path / "elsewhere" / "set" / "data" / "validation-00000-of-00001.parquet").unlink()
    for place in (tmp_path, tmp_path / "elsewhere"):
        monkeypatch.chdir(place)
        assert len(list(documents(HubCorpus(id="./set", revision="v1"), tmp_path / "cache"))) == len(ROWS["text"])


def test_a_commit_is_its_own_pin(tmp_path: Path) -> None:
    spec = HubCorpus(id="owner/set", revision="0123456789" * 4)
    assert hub.pinned_commit(spec, tmp_path) == spec.revision
    moved = HubCorpus(id="owner/set", revision="main")
    assert hub.pinned_commit(moved, tmp_path, lambda *_: "a" * 40) == "a" * 40
    with pytest.raises(UserError, match="remove the line 'owner/set@main'"):
        hub.pinned_commit(moved, tmp_path, lambda *_: "b" * 40)


def test_an_unreachable_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub

    def fail(*_: object, **__: object) -> None:
        raise ConnectionError("no route")

    monkeypatch.setattr(huggingface_hub.HfApi, "dataset_info", fail)
    with pytest.raises(UserError, match=r"owner/set \(en\).*no route.*reaches the hub"):
        hub.pinned_commit(HubCorpus(id="owner/set", config="en", revision="main"), tmp_path)


@pytest.mark.parametrize("name", HUB)
def test_catalogue_entries_are_whole(name: str) -> None:
    spec = hub.from_catalogue(CatalogueCorpus(name=name, filter={"src": "a"}, max_tokens=10))
    assert spec.id.count("/") == 1
    assert spec.has_prompts == (name == "flan")
    assert (spec.filter, spec.max_tokens, spec.revision) == ({"src": "a"}, 10, "main")
    assert spec.config == ("en" if name == "c4" else None)
    assert hub.from_catalogue(CatalogueCorpus(name=name, config="other")).config == "other"


def test_unknown_catalogue_entry() -> None:
    with pytest.raises(UserError, match=r"no catalogue entry 'c5'; there are c4,"):
        hub.from_catalogue(CatalogueCorpus(name="c5"))
