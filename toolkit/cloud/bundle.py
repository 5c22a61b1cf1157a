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
import ipaddress
import json
import os
import re
import shutil
import subprocess
import sys
import zipfile
from dataclasses import asdict, dataclass, replace
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, SecretStr

from toolkit.errors import JobError, RequestError
from toolkit.folders import cache_folder, state_folder
from toolkit.profiles import AWS, Profile
from toolkit.runs import versions
from toolkit.storage import Location, ObjectNotFound, Storage

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from toolkit.cloud.status import PromotionFolder
    from toolkit.models import PreparedModel

__all__ = [
    "BUNDLES",
    "JOB",
    "MANIFEST",
    "NODE_FOLDER",
    "PROMOTIONS",
    "Bundle",
    "BundleFile",
    "JobDescription",
    "Leak",
    "Manifest",
    "find_leaks",
    "make_bundle",
    "open_bundle",
    "refuse_leaks",
    "upload",
    "upload_job",
    "verify",
]

BUNDLES = "toolkit/bundles"
"""Folder of the bundles in a bucket."""

PROMOTIONS = "toolkit/promotions"
"""Folder of the promotions in a bucket, one folder each."""

MANIFEST = "manifest.json"
"""The file that lists the others; its hash is the bundle's identity."""

JOB = "job.json"
"""The job description, beside the bundle's files and not among them."""

NODE_FOLDER = "/opt/fruits-toolkit"
"""Where a node unpacks a bundle."""

_MODELS = "models/prepared"
# With these `bootstrap.sh node` sets up a machine: the versions of Python and of all packages.
_FROM_CHECKOUT = ("requirements.lock", "pyproject.toml", "localstack/bootstrap.sh")
# The earliest time that a zip archive can hold: 1980-01-01 UTC. Any constant makes the bytes equal.
_WHEEL_EPOCH = "315532800"


# --- the job -------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class JobDescription:
    """What a node is to run, and where: no credentials, no endpoint, no path of this machine.

    Parameters
    ----------
    profile
        Name of the profile, for the run's record.
    bucket, region
        Where images, models and runs are.
    driver_memory, executor_memory
        JVM heaps, in Spark's notation.
    images
        URI of the images.
    model
        The converted network, with its precision and input size. Its folder is one of this machine
        here, and one of the bundle in ``job.json``.
    weights
        What was asked for; a path becomes ``sha256:…`` in ``job.json``.
    components
        Share of the variance to explain (0 to 1, float) or number of components (int).
    limit
        At most so many images, evenly spaced over the listing; None for all.
    output
        URI to write ``result/`` to instead of the run's own folder.

    Raises
    ------
    RequestError
        `images` or `output` is no URI of an object store.
    """

    profile: str
    bucket: str
    region: str
    driver_memory: str
    executor_memory: str
    images: str
    model: PreparedModel
    weights: str
    components: float | int = 0.95
    limit: int | None = None
    output: str | None = None

    def __post_init__(self) -> None:
        for uri in (self.images, self.output):
            if uri is not None:
                Location.parse(uri)

    @classmethod
    def of(  # noqa: PLR0913 - all that a run is asked for
        cls,
        model: PreparedModel,
        profile: Profile,
        *,
        images: str,
        weights: str,
        components: float = 0.95,
        limit: int | None = None,
        output: str | None = None,
    ) -> JobDescription:
        """Describe a job with what a node needs of a profile."""
        return cls(
            profile=profile.name,
            bucket=profile.s3.bucket,
            region=profile.s3.region,
            driver_memory=profile.spark.driver_memory,
            executor_memory=profile.spark.executor_memory,
            images=images,
            model=model,
            weights=weights,
            components=components,
            limit=limit,
            output=output,
        )

    def node_profile(self) -> Profile:
        """Return the node's profile: Amazon S3, Spark inside the process, all cores.

        ``TOOLKIT_…`` variables of the node come first, as everywhere: a rehearsal names the local
        stack's endpoint and its credentials in them, several nodes their Spark master.
        """
        table = {
            "s3": {"endpoint": AWS, "bucket": self.bucket, "region": self.region},
            "spark": {
                "master": "local[*]",
                "driver_memory": self.driver_memory,
                "executor_memory": self.executor_memory,
            },
        }
        return Profile.model_validate({"name": self.profile, "table": table})

    def to_json(self) -> str:
        """Write the description for another machine, as one JSON document."""
        named = self.weights == "imagenet" or self.weights.startswith("random:")
        is_uri = self.weights.startswith(("s3://", "s3a://"))
        weights = self.weights if named or is_uri else f"sha256:{self.model.weights_sha256}"
        model = replace(self.model, folder=f"{_MODELS}/{self.model.key}", weights_source=weights)
        return _json(asdict(replace(self, model=model, weights=weights)))

    @classmethod
    def from_json(cls, text: str | bytes, *, root: Path) -> JobDescription:
        """Read a description.

        Parameters
        ----------
        text
            Content of ``job.json``.
        root
            Folder of the unpacked bundle, in which the model's files are.

        Raises
        ------
        JobError
            It is no description of a job.
        """
        from toolkit.models import PreparedModel

        try:
            fields = json.loads(text)
            model = fields["model"]
            model |= {
                "folder": str(root / model["folder"]),
                "files": tuple(model["files"]),
                "input_size": tuple(model["input_size"]),
            }
            return cls(**(fields | {"model": PreparedModel(**model)}))
        except (KeyError, TypeError, ValueError) as exc:
            raise JobError(f"This is no description of a job: {exc!r}") from exc


# --- the bundle ----------------------------------------------------------------------------------


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

    def to_json(self) -> str:
        """Write the manifest as one JSON document, one member a line: a boot script reads it."""
        return _json(asdict(self))

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
            _copy(Path(job.model.folder) / name, folder / _MODELS / job.model.key / name)
        files = tuple(_describe(path, folder) for path in _files(folder))
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


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def _describe(path: Path, folder: Path) -> BundleFile:
    with path.open("rb") as content:
        digest = hashlib.file_digest(content, "sha256").hexdigest()
    return BundleFile(path.relative_to(folder).as_posix(), digest, path.stat().st_size)


def _json(fields: dict[str, Any]) -> str:
    return json.dumps(fields, indent=2) + "\n"


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
            storage.upload(whole.folder / file.path, target)
            uploaded.append(file.path)
        done += file.size
        if on_done is not None:
            on_done(min(done, whole.size))
    return uploaded


def upload_job(bundle: Bundle, promotion: PromotionFolder) -> Location:
    """Write the job description beside the bundle into a promotion's folder; return where it is."""
    location = promotion.file(JOB)
    promotion.storage.write(location, (bundle.folder / JOB).read_bytes())
    return location


def verify(identity: str, storage: Storage) -> Manifest:
    """Read a bundle out of the bucket, and compare all of it with the hashes.

    This fetches every file; `upload` and the node's set-up do without: the one looks at names and
    sizes, the other compares what it has fetched anyhow.

    Parameters
    ----------
    identity
        SHA-256 of the bundle's manifest.
    storage
        Where it is.

    Raises
    ------
    JobError
        Something is missing or is not what its hash says, the manifest included.
    """
    here = storage.location(BUNDLES, identity, MANIFEST)
    manifest = Manifest.from_json(_verified(here, identity, storage))
    for file in manifest.files:
        _verified(file.location(storage), file.sha256, storage)
    return manifest


def _is_there(file: BundleFile, storage: Storage) -> bool:
    """Whether the bucket has it. S3 shows whole objects only; the size tells a foreign one."""
    folder = storage.location(BUNDLES, file.sha256)
    there = {entry.location: entry.size for entry in storage.files(folder)}
    return there.get(file.location(storage)) == file.size


def _verified(location: Location, sha256: str, storage: Storage) -> bytes:
    try:
        content = storage.read(location)
    except ObjectNotFound as exc:
        raise JobError(
            f"The bundle is not whole in the bucket: {location.uri} is missing.",
            remedy="Upload it again: only what is missing is sent.",
        ) from exc
    if (found := hashlib.sha256(content).hexdigest()) != sha256:
        raise JobError(
            f"{location.uri} is damaged: its SHA-256 is {found}.",
            remedy="Delete that object and upload the bundle again.",
        )
    return content


# --- what must not be in it ----------------------------------------------------------------------

# The least that AWS makes: 16 characters of an access key id (IAM's reference, AccessKey), 40 of a
# secret. In code a shorter value can't be told from a word.
_LEAST_IN_CODE = 16
# The shortest secret that MinIO takes; in data, all of which we have written, it is no coincidence.
_LEAST_IN_DATA = 8
# A region, a bucket, a file's name (AWS_WEB_IDENTITY_TOKEN_FILE) are no secrets.
_SECRET_VARIABLE = re.compile(
    r"(AWS|TOOLKIT_S3_)_\w*(KEY|SECRET|TOKEN|PASSWORD)\w*(?<!_FILE)", re.ASCII | re.IGNORECASE
)
_CREDENTIALS = {
    "an AWS access key id": re.compile(r"(?<![A-Z0-9])(AKIA|ASIA)[A-Z0-9]{16}(?![A-Z0-9])"),
    "an AWS secret": re.compile(r"(?i)(secret_?access_?key|session_?token)\W{1,5}[a-z0-9/+=]{40}"),
    "a private key": re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----"),
}
# Folders that a node has as well, and that code may name.
_ON_EVERY_MACHINE = frozenset({"/", "/root", "/tmp", "/var/tmp", NODE_FOLDER})  # noqa: S108
_NAMES_BEFORE = r"(?<![\w.:/~-])"  # not within a longer path or a URI
_NAMES_AFTER = r"(?![\w.-])"
# Somebody's home, on Linux, macOS and Windows.
_HOMES = re.compile(rf"{_NAMES_BEFORE}(/home/|/Users/|[A-Za-z]:\\{{1,2}}Users\\{{1,2}})[\w.-]+")
# The top of the file system (hier(7)), what leads home, Windows' drives.
_TOPS = (
    "bin|boot|dev|etc|home|lib|lib64|media|mnt|opt|private|proc|root|run|sbin|srv|sys|tmp|usr|var"
    "|Users|Volumes"
)
_ABSOLUTE = re.compile(
    rf"{_NAMES_BEFORE}(/({_TOPS}){_NAMES_AFTER}|~[\w.-]*/|[A-Za-z]:(\\\\?|/)\w)|file:/"
)
_HOST = r"(localhost|host\.docker\.internal|\[::1\]|(\d{1,3}\.){3}\d{1,3})"
_ENDPOINT_IN_CODE = re.compile(rf"https?://(?P<host>{_HOST}):\d+")
_ENDPOINT_IN_DATA = re.compile(rf"(?<![\w.-])(?P<host>{_HOST})(?![\w.-])(?P<port>:\d+)?")


@dataclass(frozen=True, slots=True)
class Leak:
    """Something that must not leave this machine: in which file and line, and what. No secret.

    The line is None in a file that is no text.
    """

    file: str
    line: int | None
    what: str

    def __str__(self) -> str:
        return f"{self.file}{f', line {self.line}' if self.line else ''}: {self.what}"


def find_leaks(folder: Path, *, profile: Profile) -> list[Leak]:
    """Look for credentials, local paths and local endpoints, in all files and the wheels' members.

    There are three kinds of text. *Code* (``.py``, ``.sh``, ``.html``) may speak of localhost and
    ``/tmp``: in it a URL of a local host with a port is a leak, and so are somebody's home and the
    toolkit's folders on this machine. The *README* in a wheel's METADATA shows people such URLs: in
    it only these folders are looked for. Anything else is *data*, which has no reason to name a
    local host or an absolute path at all. The values of this machine's credentials are looked for
    in every file, also in one that is no text, and what has the form of some in every text.

    But for this machine's values the rules are of form only: they find the same everywhere, and a
    bundle of an unchanged checkout has nothing for them. No remark in a file exempts it.

    Parameters
    ----------
    folder
        A bundle's folder, or any other.
    profile
        Its secrets are looked for, and those of ``AWS_…`` and ``TOOLKIT_S3__…`` variables.
    """
    secrets, folders = _secrets(profile), _own_folders()
    return [
        leak
        for name, content in _contents(folder)
        for leak in _leaks(name, content, secrets=secrets, folders=folders)
    ]


def refuse_leaks(folder: Path, *, profile: Profile) -> None:
    """Raise a RequestError that names everything that `find_leaks` finds, if it finds something."""
    if leaks := find_leaks(folder, profile=profile):
        raise RequestError(
            "The bundle would carry what must stay on this machine:\n"
            + "\n".join(f"  {leak}" for leak in leaks),
            remedy="Take it out of the files named; those of a wheel lie in the checkout. "
            "Replace a key that has stood in one.",
        )


def _secrets(profile: Profile) -> dict[str, str]:
    """Return the values that nobody may see, by their names."""
    found = {name: value for name, value in os.environ.items() if _SECRET_VARIABLE.fullmatch(name)}
    for section, settings in profile:
        for name, value in settings if isinstance(settings, BaseModel) else ():
            if isinstance(value, SecretStr):
                found[f"{section}.{name} of the profile"] = value.get_secret_value()
    return found


def _own_folders() -> list[str]:
    """Return the folders of this machine that a bundle has no reason to name."""
    folders = [Path.home(), Path(__file__).parents[2], cache_folder(), state_folder()]
    names = {str(each) for folder in folders for each in (folder, folder.resolve())}
    return sorted(names - _ON_EVERY_MACHINE)


def _contents(folder: Path) -> Iterator[tuple[str, bytes]]:
    for path in _files(folder):
        name = path.relative_to(folder).as_posix()
        if path.suffix != ".whl":
            yield name, path.read_bytes()
            continue
        with zipfile.ZipFile(path) as wheel:
            for member in wheel.namelist():
                yield f"{name}: {member}", wheel.read(member)


def _leaks(
    name: str, content: bytes, *, secrets: dict[str, str], folders: list[str]
) -> Iterator[Leak]:
    is_readme = name.endswith(".dist-info/METADATA")
    is_code = name.endswith((".py", ".sh", ".html"))
    least = _LEAST_IN_CODE if is_code or is_readme else _LEAST_IN_DATA
    try:
        text = content.decode()
    except UnicodeDecodeError:
        for secret, value in secrets.items():
            if len(value) >= _LEAST_IN_CODE and value.encode() in content:
                yield Leak(name, None, f"the value of {secret}")
        return

    def leak(what: str, position: int) -> Leak:
        return Leak(name, text.count("\n", 0, position) + 1, what)

    for secret, value in secrets.items():
        if len(value) >= least and (at := text.find(value)) >= 0:
            yield leak(f"the value of {secret}", at)
    for what, form in _CREDENTIALS.items():
        if match := form.search(text):
            yield leak(what, match.start())
    for folder in folders:
        if match := re.search(_NAMES_BEFORE + re.escape(folder) + _NAMES_AFTER, text):
            yield leak(f"the folder {folder} of this machine", match.start())
    if is_readme:
        return
    if match := (_HOMES if is_code else _ABSOLUTE).search(text):
        yield leak(f"a local path that begins with {match[0]}", match.start())
    endpoints = (_ENDPOINT_IN_CODE if is_code else _ENDPOINT_IN_DATA).finditer(text)
    if match := next(filter(_is_local, endpoints), None):
        yield leak(f"the local endpoint {match[0]}", match.start())


def _is_local(endpoint: re.Match[str]) -> bool:
    host = endpoint["host"].strip("[]")
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return not host[0].isdigit()  # a name; 999.9.9.9 is a version
    if address.is_loopback or address.is_unspecified:
        return True
    # 10.3.9.90 alone is some package's version.
    is_in_url = endpoint.string.endswith(("://", "@"), 0, endpoint.start("host"))
    return address.is_private and (is_in_url or endpoint.groupdict().get("port") is not None)
