"""A study in one file: it says what the folder says, nothing of the sender's machine; a hostile one does no harm."""

import hashlib
import io
import json
import shutil
import struct
import sys
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import polars as pl
import pytest
from typer.testing import CliRunner

import indelible
from indelible.cli.main import build_app
from indelible.errors import UserError
from indelible.workflow import unbundling
from indelible.workflow.private_paths import ShortPaths
from indelible.workflow.reading import open_runs

sys.path.insert(0, str(Path(__file__).parents[1] / "support"))
from fake_files import diverge, edit_json, write_documents
from fake_study import FakeStudy, write_fake_study
from fuzzing import COUNT, feed
from mutations import mutants

SECRET = "/home/zalika smith/labs/given model"
STUDY = f"""name: fake
scale: pico
corpora:
  music: {{local: {{files: /srv/zalika/texts/music.jsonl}}}}
  other: {{local: {{files: /mnt/qbert/music.jsonl}}}}
pretrain: {{init: {{from: '{SECRET}'}}}}
execution: {{slurm: {{partition: secret-queue, account: secret-account}}, threads: 2}}
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study with everything that may say where it was run: failures, given checkpoints, paths of texts."""
    fake = FakeStudy(seeds=(0, 1), post_tokens=(10_000,), finetune_lrs=(1e-4, 1e-3), fractions=(0.0, 1.0))
    out = write_fake_study(tmp_path_factory.mktemp("study") / "out", fake)
    (out / "study.yaml").write_text(STUDY)

    def place_it(plan: dict) -> None:
        plan["given"] = {"given-0123456789ab": SECRET}
        plan["execution"]["slurm"]["account"] = "secret-account"
        plan["description"] = "texts of /srv/zalika/texts/music.jsonl, 3 tokens/s, https://example.org/a/b"

    edit_json(out / "plan.json", place_it)
    runs = [run["id"] for run in json.loads((out / "plan.json").read_text())["stage_runs"]]
    diverge(out, runs[2])
    failed = out / "runs" / runs[-1]
    (failed / "result.json").unlink()
    (failed / "failure.json").write_text(json.dumps({
        "format": 1, "id": runs[-1], "kind": "error", "type": "ValueError", "attempt": 1, "failures": 1,
        "is_final": True, "message": "no /srv/zalika/texts/music.jsonl", "worker": "secret-host-w0",
        "host": "secret-host", "traceback": "File /home/zalika/venv/lib/x.py",
    }))  # fmt: skip
    for weights in ("checkpoint", "resume"):
        (out / "runs" / runs[0] / weights).mkdir()
        (out / "runs" / runs[0] / weights / "model.safetensors").write_bytes(b"weights")
    (out / "tokens").mkdir()
    (out / "tokens" / "text.bin").write_bytes(b"text")
    for run_id in runs[:2]:
        write_documents(out, run_id, "music", [10, 20, 30], [20.0, 50.0, 91.0])
    return out


@pytest.fixture(scope="module")
def bundle(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return open_runs(folder).bundle(tmp_path_factory.mktemp("bundle") / "b.zip")


def test_every_command_says_of_a_bundle_what_it_says_of_the_folder(folder: Path, bundle: Path, tmp_path: Path) -> None:
    ours, theirs = indelible.open(folder), indelible.open(bundle)
    assert theirs.is_folder
    assert theirs.results().equals(ours.results())
    assert theirs.losses().equals(ours.losses())
    assert theirs.curves().equals(ours.curves())
    assert theirs.verdicts() == ours.verdicts()
    assert theirs.inference == ours.inference
    assert theirs.compare("exposure_fraction") == ours.compare("exposure_fraction")
    first, second = (run.id for run in ours.plan.stage_runs[:2])
    assert theirs.compare_documents(first, second, "music") == ours.compare_documents(first, second, "music")
    copy = shutil.copy(bundle, tmp_path / "sent.zip")
    app = build_app()
    for command in (["results", "--summary"], ["verdicts"], ["compare", "--by", "finetune_lr"]):
        said = [
            CliRunner().invoke(app, [command[0], str(place), *command[1:]], catch_exceptions=False).output
            for place in (folder, copy)
        ]
        (ours_said, ours_next), (theirs_said, theirs_next) = (one.partition("\nNext")[::2] for one in said)
        assert ours_said == theirs_said != ""
        assert ("indelible run" in ours_next) == (command[0] == "results")
        assert "indelible " not in theirs_next, "a command that names a folder which is gone"
    done = CliRunner().invoke(app, ["report", str(copy)], catch_exceptions=False)
    assert done.output.startswith(f"{tmp_path / 'sent.html'}: ")
    assert "Next" in done.output
    assert "indelible run" not in done.output
    with zipfile.ZipFile(bundle) as archive:
        assert (tmp_path / "sent.html").read_bytes() == archive.read("report.html")
        assert pl.read_parquet(io.BytesIO(archive.read("results.parquet"))).equals(ours.results())
        assert len(json.loads(archive.read("verdicts.json"))) == len(ours.verdicts())


def test_a_bundle_is_joined_with_other_places(folder: Path, bundle: Path) -> None:
    assert open_runs(folder, bundle).results().height == open_runs(folder).results().height
    assert open_runs(bundle, bundle).results().height == open_runs(folder).results().height


def test_nothing_of_the_machine_is_in_it(folder: Path, bundle: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(bundle) as archive:
        names = archive.namelist()
        texts = {name: archive.read(name) for name in names}
    for name, data in texts.items():
        for word in (b"zalika", b"qbert", b"secret", str(folder).encode(), str(Path.home()).encode() + b"/", b"/tmp/"):
            assert word not in data, name
        assert b"weights" not in data or name in ("report.html", "plan.json") or name.endswith("result.json"), name
    assert not [name for name in names if "checkpoint/" in name or "resume/" in name or name.startswith("tokens/")]
    study = texts["study.yaml"].decode()
    assert "music.jsonl" in study
    assert "music.jsonl~2" in study, "two files of one name stay two"
    assert "threads: 2" in study
    description = json.loads(texts["plan.json"])["description"]
    assert description == "texts of music.jsonl, 3 tokens/s, https://example.org/a/b"


def test_the_same_content_gives_the_same_bytes_wherever_it_lies(bundle: Path, tmp_path: Path) -> None:
    assert open_runs(bundle).bundle(tmp_path / "again.zip").read_bytes() == bundle.read_bytes()


def test_versions_and_machines_are_in_it(bundle: Path) -> None:
    with zipfile.ZipFile(bundle) as archive:
        assert archive.namelist()[0] == "bundle.json"
        record = json.loads(archive.read("bundle.json"))
    assert record["indelible"] == indelible.__version__
    (environment,) = record["environments"]
    assert environment["versions"]["torch"] == "2.13.0"
    assert environment["runs"] == 15


def test_the_command_writes_it_into_the_folder(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    copy = tmp_path / "out"
    shutil.copytree(folder, copy)
    monkeypatch.setattr(indelible.StudyRuns, "report", lambda self, path: path.write_text("<html>"))  # seconds
    done = CliRunner().invoke(build_app(), ["bundle", str(copy), "--no-curves"], catch_exceptions=False)
    assert done.output.startswith(f"{copy / 'bundle.zip'}: ")
    assert "8 chains" in done.output
    small = open_runs(copy / "bundle.zip")
    assert small.curves().height == 0
    assert small.results().equals(open_runs(folder).results())
    with pytest.raises(UserError, match="this is the bundle that is read"):
        small.bundle(copy / "bundle.zip")
    with pytest.raises(UserError, match=r"end its name in \.zip"):
        small.bundle(copy / "bundle.tar")
    small.results().write_parquet(tmp_path / "t.parquet")
    with pytest.raises(UserError, match="this needs the folder of one study run"):
        open_runs(tmp_path / "t.parquet").bundle(tmp_path / "x.zip")
    monkeypatch.setattr(unbundling, "MAX_BYTES", 1000)
    with pytest.raises(UserError, match="GiB unpacked"):
        open_runs(copy).bundle(tmp_path / "large.zip")
    assert not (tmp_path / "large.zip").exists(), "what nobody could read is not written"


def test_what_it_is_unpacked_to_goes_with_the_runs(bundle: Path) -> None:
    runs = open_runs(bundle)
    folder = runs.folder
    assert folder.is_dir()
    assert folder.stat().st_mode & 0o077 == 0, "nobody else looks into it"
    del runs
    assert not folder.exists()


# ---- hostile ones


def rewritten(bundle: Path, target: Path, change: Callable[[zipfile.ZipFile], None], drop: str = "") -> Path:
    """A copy of a bundle with one more file, or with one in another's place."""
    with zipfile.ZipFile(bundle) as old, zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as new:
        for info in old.infolist():
            if info.filename != drop:
                new.writestr(info, old.read(info))
        change(new)
    return target


def refusal(path: Path) -> str:
    before = set(path.parent.rglob("*"))
    with pytest.raises(UserError) as caught:
        open_runs(path)
    assert set(path.parent.rglob("*")) == before
    return str(caught.value)


@pytest.mark.parametrize(
    "name",
    ["../evil.json", "/etc/evil", "runs/../../evil.json", "runs/a/../../../evil/result.json", "evil.py",
     "runs/a/checkpoint/model.safetensors", "evaluations/../x.json", "C:\\evil", "runs\\..\\evil", "plan.json/",
     "runs/..a/result.json"],
)  # fmt: skip
def test_names_that_no_bundle_has(bundle: Path, tmp_path: Path, name: str) -> None:
    path = rewritten(bundle, tmp_path / "b.zip", lambda new: new.writestr(name, b"evil"))
    assert "which is no file of a bundle" in refusal(path)


def test_links_and_devices(bundle: Path, tmp_path: Path) -> None:
    for kind in (0o120777, 0o060666, 0o040755):

        def add(new: zipfile.ZipFile, kind: int = kind) -> None:
            info = zipfile.ZipInfo("packing.json")
            info.create_system, info.external_attr = 3, kind << 16
            new.writestr(info, "/etc/passwd")

        assert "a link or another special file" in refusal(rewritten(bundle, tmp_path / "b.zip", add))


def test_bombs(bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = rewritten(bundle, tmp_path / "b.zip", lambda new: new.writestr("packing.json", b"0" * (8 << 20)))
    assert "would grow from" in refusal(path)
    monkeypatch.setattr(unbundling, "MAX_BYTES", 100_000)
    assert "GiB unpacked, and a bundle has at most" in refusal(bundle)
    monkeypatch.setattr(unbundling, "MAX_FILES", 10)
    assert "files, and a bundle has at most 10" in refusal(bundle)


def test_a_file_that_is_longer_than_it_says(bundle: Path, tmp_path: Path) -> None:
    path = rewritten(bundle, tmp_path / "b.zip", lambda new: new.writestr("packing.json", b"1" * 5000))
    data = bytearray(path.read_bytes())
    for mark, offset in ((b"PK\x03\x04", 22), (b"PK\x01\x02", 24)):  # the size, in the entry and in the contents
        at = data.rindex(b"packing.json") if mark == b"PK\x01\x02" else data.index(b"packing.json")
        struct.pack_into("<I", data, data.rindex(mark, 0, at) + offset, 10)
    path.write_bytes(data)
    assert "damaged" in refusal(path) or "longer than it says" in refusal(path)


def test_names_that_stand_twice(bundle: Path, tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match="Duplicate name"):
        path = rewritten(bundle, tmp_path / "b.zip", lambda new: new.writestr("plan.json", b"{}"))
    assert "a name stands in it twice" in refusal(path)


def test_an_edited_bundle(bundle: Path, tmp_path: Path) -> None:
    path = rewritten(bundle, tmp_path / "a.zip", lambda new: new.writestr("study.yaml", b"name: x"), "study.yaml")
    assert "study.yaml is not the file that bundle.json lists" in refusal(path)
    path = rewritten(bundle, tmp_path / "b.zip", lambda new: None, "verdicts.json")
    assert "its files are not those that bundle.json lists" in refusal(path)
    path = rewritten(bundle, tmp_path / "c.zip", lambda new: None, "bundle.json")
    assert "it has no bundle.json" in refusal(path)


def test_other_zips_and_broken_ones(bundle: Path, tmp_path: Path) -> None:
    path = tmp_path / "b.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("word/document.xml", b"<w/>")
    assert "it has no bundle.json. `indelible bundle DIR` writes one" in refusal(path)
    for data in (b"", b"PK", bundle.read_bytes()[:-100], bundle.read_bytes()[:2000]):
        path.write_bytes(data)
        assert "not a bundle, or a damaged one" in refusal(path)
    path.write_bytes(bundle.read_bytes())
    data = bytearray(bundle.read_bytes())
    data[6] |= 1  # of the first entry: encrypted
    at = data.rindex(b"PK\x01\x02", 0, data.rindex(b"bundle.json"))
    data[at + 8] |= 1
    path.write_bytes(data)
    assert "is encrypted" in refusal(path)


def _small(bundle: Path, target: Path) -> Path:
    """A bundle of a plan and little more, so that a hundred of them are read in a second."""
    with zipfile.ZipFile(bundle) as old:
        files = {name: old.read(name) for name in ("plan.json", "study.yaml", "results.parquet")}
        record = json.loads(old.read("bundle.json"))
    record["files"] = {name: hashlib.sha256(data).hexdigest() for name, data in files.items()}
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as new:
        new.writestr("bundle.json", json.dumps(record))
        for name, data in files.items():
            new.writestr(name, data)
    return target


def _mutants(bundle: Path, folder: Path) -> Iterator[bytes]:
    words = [b"PK\x03\x04", b"PK\x01\x02", b"../", b"plan.json", b"\xff\xff\xff\xff"]
    yield from mutants(_small(bundle, folder / "small.zip").read_bytes(), COUNT, 5, words)


def test_whatever_stands_in_it_is_read_or_refused(bundle: Path, tmp_path: Path) -> None:
    path = tmp_path / "in" / "b.zip"
    path.parent.mkdir()

    def read(data: bytes) -> None:
        path.write_bytes(data)
        try:
            open_runs(path).results()
        finally:
            assert list(path.parent.iterdir()) == [path]

    assert feed(_mutants(bundle, tmp_path), read)["refused"] > COUNT // 2


def test_paths_become_names() -> None:
    paths = ShortPaths()
    assert paths.clean({"a": ["/data/x", "/other/x", "/data/x/"], "b": 3}) == {"a": ["x", "x~2", "x"], "b": 3}
    assert paths.clean_text("read /data/x and file:///data/x: ok") == "read x and x: ok"
    for text in ("3 tokens/s", "1/2/3", "https://a.org/b/c", "a/b", "~/data/x", "/", "and / or", "../x/y"):
        assert paths.clean_text(text) == text
