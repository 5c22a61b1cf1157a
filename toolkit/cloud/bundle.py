"""The bundle: all that a node needs to run a job, kept in the bucket under hashes of its content.

    toolkit/bundles/<sha256 of the file>/<its name>           wheel, lock, script, model: each once
    toolkit/bundles/<sha256 of the manifest>/manifest.json    the bundle: which files, and where
    toolkit/promotions/<id>/job.json                          what to do with it, one a promotion

Each file lies under a hash of its own, so that a change of the code uploads a wheel and not the
model again, and so that whoever fetches a file knows what it must be. The job is no part of the
bundle: two promotions that differ in the images only share all of it.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import shutil
import subprocess
import sys
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from toolkit.cloud.job import JOB
from toolkit.cloud.leaks import refuse_leaks
from toolkit.errors import JobError, RequestError
from toolkit.runs import versions
from toolkit.storage import Location, ObjectNotFound, Storage

if TYPE_CHECKING:
    from collections.abc import Callable

    from toolkit.cloud.job import JobDescription
    from toolkit.profiles import Profile

__all__ = [
    "BUNDLES",
    "MANIFEST",
    "PROMOTIONS",
    "Bundle",
    "BundleFile",
    "Manifest",
    "find_manifest",
    "make_bundle",
    "open_bundle",
    "upload",
]

BUNDLES = "toolkit/bundles"
"""Folder of the bundles in a bucket."""

PROMOTIONS = "toolkit/promotions"
"""Folder of the promotions in a bucket, one folder each."""

MANIFEST = "manifest.json"
"""The file that lists the others; its hash is the bundle's identity."""

# With these `bootstrap.sh node` sets up a machine: the versions of Python and of all packages.
_FROM_CHECKOUT = ("requirements.lock", "pyproject.toml", "localstack/bootstrap.sh")
# The earliest time that a zip archive can hold: 1980-01-01 UTC. Any constant makes the bytes equal.
_WHEEL_EPOCH = "315532800"


@dataclass(frozen=True, slots=True)
class BundleFile:
    """A file: its path in the bundle, the hexadecimal hash of its content, its size in bytes."""

    path: str
    sha256: str
    size: int

    def location(self, storage: Storage) -> Location:
        """Where the bucket keeps it."""
        return storage.location(BUNDLES, self.sha256, PurePosixPath(self.path).name)


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """What ``manifest.json`` holds.

    Parameters
    ----------
    wheel
        Path of the wheel among the files.
    versions
        Of what decides on results, as it was on this machine.
    files
        All files but the manifest and the job, in order of their paths.
    """

    wheel: str
    versions: dict[str, str]
    files: tuple[BundleFile, ...]

    def size_of(self, folder: str) -> int:
        """Return the bytes of all files below a folder of the bundle."""
        return sum(file.size for file in self.files if file.path.startswith(f"{folder}/"))

    def to_json(self) -> str:
        """Write the manifest as one JSON document, one member a line: a boot script reads it."""
        return json.dumps(asdict(self), indent=2) + "\n"

    @classmethod
    def from_json(cls, text: str | bytes) -> Manifest:
        """Read a manifest.

        Raises
        ------
        JobError
            It is none.
        """
        try:
            fields = json.loads(text)
            files = tuple(BundleFile(**file) for file in fields["files"])
            return cls(**(fields | {"files": files}))
        except (KeyError, TypeError, ValueError) as exc:
            raise JobError(f"This is no manifest of a bundle: {exc!r}") from exc


@dataclass(frozen=True)
class Bundle:
    """A bundle in a folder of this machine.

    Parameters
    ----------
    folder
        Its files, the manifest and the job description.
    manifest
        What it consists of.
    identity
        SHA-256 of ``manifest.json``, hexadecimal.
    """

    folder: Path
    manifest: Manifest
    identity: str

    @property
    def size(self) -> int:
        """Bytes of all files, the manifest not counted."""
        return sum(file.size for file in self.manifest.files)


def make_bundle(
    folder: Path, job: JobDescription, *, profile: Profile, checkout: Path | None = None
) -> Bundle:
    """Put a bundle and the description of its job into a folder.

    The same checkout, model and package versions give the same bundle, byte for byte.

    Parameters
    ----------
    folder
        An empty folder, or one that does not exist.
    job
        What the node is to run.
    profile
        Its secrets must not be in the bundle.
    checkout
        Root of the checkout to bundle; default: the one that this module lies in.

    Raises
    ------
    RequestError
        There is no checkout, the folder is not empty, or the bundle would carry credentials, local
        paths or local endpoints.
    JobError
        The wheel can't be built, or a file can't be read or written.
    """
    source = checkout or _find_checkout()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if any(folder.iterdir()):
            raise RequestError(
                f"{folder} is not empty.", remedy="Name a folder that does not exist yet."
            )
        wheel = _build_wheel(source, folder)
        for name in _FROM_CHECKOUT:
            _copy(source / name, folder / name)
        for name in job.model.files:
            _copy(Path(job.model.folder) / name, folder / job.model_folder / name)
        there = sorted(path for path in folder.rglob("*") if path.is_file())
        files = tuple(_describe(path, folder) for path in there)
        manifest = Manifest(wheel=wheel, versions=versions(), files=files)
        (folder / MANIFEST).write_text(manifest.to_json(), encoding="utf-8")
        (folder / JOB).write_text(job.to_json(), encoding="utf-8")
    except OSError as exc:
        raise JobError(
            f"The bundle can't be written to {folder}: {exc}",
            remedy="Check that the file is there and that the disk has room, and try again.",
        ) from exc
    refuse_leaks(folder, profile=profile)
    return open_bundle(folder)


def open_bundle(folder: Path) -> Bundle:
    """Read a bundle out of its folder, and compare each file with the manifest.

    Raises
    ------
    JobError
        The manifest or a file is missing, or a file is not what the manifest says.
    """
    try:
        content = (folder / MANIFEST).read_bytes()
        manifest = Manifest.from_json(content)
        changed = [
            file.path for file in manifest.files if _describe(folder / file.path, folder) != file
        ]
    except OSError as exc:
        raise JobError(
            f"The bundle in {folder} is not whole: {exc}", remedy="Make it anew."
        ) from exc
    if changed:
        raise JobError(
            f"The bundle in {folder} has changed since it was made: {', '.join(changed)}.",
            remedy="Make it anew.",
        )
    return Bundle(folder, manifest, hashlib.sha256(content).hexdigest())


def _find_checkout() -> Path:
    checkout = Path(__file__).resolve().parents[2]
    if not all((checkout / name).is_file() for name in _FROM_CHECKOUT):
        raise RequestError(
            "A bundle is made from a checkout of fruits-toolkit, and this is a wheel.",
            remedy="Call the command in a checkout: bash localstack/bootstrap.sh setup, then "
            ".venv/bin/toolkit promote.",
        )
    return checkout


def _build_wheel(checkout: Path, folder: Path) -> str:
    """Build the wheel with the project's own backend, and return its name.

    Raises
    ------
    RequestError
        The backend is not installed.
    JobError
        It fails.
    """
    if importlib.util.find_spec("hatchling") is None:
        raise RequestError(
            "hatchling, which builds the wheel, is not installed.",
            remedy="Set the checkout up with: bash localstack/bootstrap.sh setup",
        )
    hatchling = [sys.executable, "-P", "-m", "hatchling", "build", "--target", "wheel"]
    built = subprocess.run(
        [*hatchling, "--directory", str(folder.resolve())],
        cwd=checkout,
        env=os.environ | {"SOURCE_DATE_EPOCH": _WHEEL_EPOCH},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    wheels = [path.name for path in folder.glob("*.whl")]
    if built.returncode or len(wheels) != 1:
        said = built.stderr.strip().splitlines() or ["no reason was given"]
        raise JobError(
            f"The wheel can't be built from {checkout}: {said[-1]}",
            remedy=f"See all of it with: cd {checkout} && {' '.join(hatchling)}",
        )
    return wheels[0]


def _copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, target)


def _describe(path: Path, folder: Path) -> BundleFile:
    with path.open("rb") as content:
        digest = hashlib.file_digest(content, "sha256").hexdigest()
    return BundleFile(path.relative_to(folder).as_posix(), digest, path.stat().st_size)


# --- the bucket ----------------------------------------------------------------------------------


def upload(
    bundle: Bundle, storage: Storage, *, on_done: Callable[[int], None] | None = None
) -> list[str]:
    """Upload what the bucket does not hold yet, and return the paths of that.

    The manifest goes last: where it is, all files are, so that a cut upload is never taken for a
    whole one. What was uploaded before the cut is not uploaded again.

    Parameters
    ----------
    bundle
        The bundle.
    storage
        Where to.
    on_done
        Told how many bytes of ``bundle.size`` are in the bucket, after each file.

    Raises
    ------
    JobError
        A file has changed since the bundle was made, or the store refuses.
    """
    whole = open_bundle(bundle.folder)
    if whole.identity != bundle.identity:
        raise JobError(
            f"The bundle in {bundle.folder} is not the one that was made there.",
            remedy="Make it anew.",
        )
    manifest = BundleFile(MANIFEST, whole.identity, (whole.folder / MANIFEST).stat().st_size)
    uploaded: list[str] = []
    done = 0
    for file in (*whole.manifest.files, manifest):
        target = file.location(storage)
        if not _is_there(file, storage):
            storage.upload(whole.folder / file.path, target, in_parts=True)
            uploaded.append(file.path)
        done += file.size
        if on_done is not None:
            on_done(min(done, whole.size))
    return uploaded


def find_manifest(identity: str, storage: Storage) -> Manifest:
    """Read the manifest of a bundle out of the bucket, and look whether all of its files are there.

    Their content the node compares with the hashes, when it has fetched it.

    Parameters
    ----------
    identity
        SHA-256 of the bundle's manifest.
    storage
        Where it is.

    Raises
    ------
    JobError
        Something is missing, or the manifest is not what its hash says.
    """
    location = storage.location(BUNDLES, identity, MANIFEST)
    try:
        content = storage.read(location)
    except ObjectNotFound as exc:
        raise _not_whole(location) from exc
    if (found := hashlib.sha256(content).hexdigest()) != identity:
        raise JobError(
            f"{location.uri} is damaged: its SHA-256 is {found}.",
            remedy="Delete that object and promote again: the bundle is uploaded again.",
        )
    manifest = Manifest.from_json(content)
    for file in manifest.files:
        if not _is_there(file, storage):
            raise _not_whole(file.location(storage))
    return manifest


def _not_whole(location: Location) -> JobError:
    return JobError(
        f"The bundle is not whole in the bucket: {location.uri} is missing.",
        remedy="Promote again: only what is missing is sent.",
    )


def _is_there(file: BundleFile, storage: Storage) -> bool:
    """Whether the bucket has it. S3 shows whole objects only; the size tells a foreign one."""
    folder = storage.location(BUNDLES, file.sha256)
    there = {entry.location: entry.size for entry in storage.files(folder)}
    return there.get(file.location(storage)) == file.size
