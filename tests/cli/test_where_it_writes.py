"""Writing stays below --out, the cache and the temporary folder, and at what the user names (docs/security.md)."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from tiny_engine import TINY

# in every process of a command: notes whatever is opened for writing, made, moved or removed
HOOK = """
import os, sys
_log = os.open(os.environ["WRITES_LOG"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT
_PLACES = {"os.mkdir": (0,), "os.rename": (0, 1), "os.remove": (0,), "os.rmdir": (0,), "os.link": (1,),
           "os.symlink": (1,)}

def _note(event, given):
    if event == "open":
        path, mode, flags = given
        places = [path] if (mode and set(mode) & set("wax+")) or (flags or 0) & _WRITES else []
    else:
        is_of_a_folder = event in _PLACES and given[-1] != -1  # a name in a folder that is open: of a tree that goes
        places = [] if is_of_a_folder else [given[number] for number in _PLACES.get(event, ())]
    for path in places:
        if isinstance(path, (str, bytes, os.PathLike)):
            os.write(_log, os.fsencode(os.path.abspath(os.fspath(path))) + b"\\n")

sys.addaudithook(_note)
"""


@pytest.mark.slow
def test_writing_stays_where_it_was_asked_for(tmp_path: Path) -> None:
    for name in ("hook", "home", "work", "cache", "temporary"):
        (tmp_path / name).mkdir()
    (tmp_path / "hook" / "sitecustomize.py").write_text(HOOK)
    (tmp_path / "work" / "s.yaml").write_text(
        yaml.safe_dump({**TINY, "execution": {**TINY["execution"], "workers": 1}})
    )
    package = str(Path(__file__).parents[2])
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("TORCHINDUCTOR_")}
    environment = {  # without the folder that a test before in this process may have compiled in
        **inherited, "PYTHONPATH": f"{tmp_path / 'hook'}{os.pathsep}{package}", "HOME": str(tmp_path / "home"),
        "TMPDIR": str(tmp_path / "temporary"), "INDELIBLE_CACHE": str(tmp_path / "cache"),
        "PYTHONDONTWRITEBYTECODE": "1", "WRITES_LOG": str(tmp_path / "writes.log"),
    }  # fmt: skip
    for arguments in (
        ("run", "s.yaml", "--out", "out"),
        ("results", "out", "--output", "table.csv"),
        ("export", "out/finetune", "--to", "exported"),
    ):
        command = [sys.executable, "-m", "indelible.cli.main", *arguments]
        done = subprocess.run(command, cwd=tmp_path / "work", env=environment, capture_output=True, timeout=300)
        assert done.returncode == 0, done.stderr
    written = {Path(os.fsdecode(line)) for line in (tmp_path / "writes.log").read_bytes().splitlines()}
    assert any(path.name == "result.json" or "result.json" in path.name for path in written), (
        "the hook sees the workers"
    )
    work = tmp_path / "work"
    allowed = (work / "out", work / "exported", tmp_path / "cache", tmp_path / "temporary", tmp_path / "writes.log",
               Path("/dev"), Path("/proc"))  # fmt: skip
    named = {work / "table.csv"}
    beside = (".table.csv.", ".export-")  # what is renamed at the end lies beside its place until then
    outside = [
        path
        for path in written
        if path not in named
        and not any(path.is_relative_to(folder) for folder in allowed)
        and not any(part.startswith(beside) for part in path.parts)
    ]
    outside = [path for path in outside if path != work]  # exist_ok: made only if it is not there
    assert not outside, sorted(outside)
    assert not list((tmp_path / "home").rglob("*")), "nothing in the home folder"
