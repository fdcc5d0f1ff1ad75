"""The script of the charts is kept in the cache, and never trusted beyond its checksum."""

import pytest

from indelible.report import vega_bundle as module


@pytest.fixture
def made(monkeypatch, tmp_path):
    """Counts how often the script is put together."""
    calls = []
    monkeypatch.setenv("INDELIBLE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(module, "_made", lambda: calls.append(1) or "var vega = 'ü';\n")
    return calls


def bundle():
    module.vega_bundle.cache_clear()
    return module.vega_bundle()


@pytest.fixture(autouse=True)
def _fresh():
    yield
    module.vega_bundle.cache_clear()


def test_it_is_made_once_and_then_read(made, tmp_path):
    assert [bundle(), bundle()] == ["var vega = 'ü';\n"] * 2
    assert len(made) == 1
    (kept,) = (tmp_path / "cache" / "charts").iterdir()
    assert kept.name.startswith(f"vega-lite-{module.VEGA_LITE}-")


@pytest.mark.parametrize(
    "damage", [lambda data: data[:-5], lambda data: data + b"alert(1)", lambda _: b"\xff\xfe", lambda _: b""]
)
def test_a_file_that_does_not_fit_its_checksum_is_made_anew(made, tmp_path, damage):
    whole = bundle()
    (kept,) = (tmp_path / "cache" / "charts").iterdir()
    kept.write_bytes(damage(kept.read_bytes()))
    assert bundle() == whole
    assert len(made) == 2
    assert bundle() == whole
    assert len(made) == 2


def test_without_a_place_to_keep_it_nothing_is_kept(made, tmp_path, monkeypatch):
    (tmp_path / "cache").write_text("a file where a folder is needed")
    assert bundle() == "var vega = 'ü';\n"
    monkeypatch.delenv("INDELIBLE_CACHE")
    monkeypatch.setattr("pathlib.Path.expanduser", _no_home)
    assert bundle() == "var vega = 'ü';\n"
    assert len(made) == 2


def _no_home(path):
    raise RuntimeError(f"no home for {path}")
