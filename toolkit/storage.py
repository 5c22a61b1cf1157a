"""The object store of a profile: the one place that knows endpoints and credentials.

Python reads and writes objects through obstore, Spark through S3A; both get the same settings from
here, and neither looks at AWS variables of the environment unless the profile is Amazon S3.
"""

from __future__ import annotations

import os
import re
import threading
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from html import unescape
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from toolkit.errors import JobError, RequestError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from datetime import datetime
    from pathlib import Path

    from obstore import ObjectMeta
    from obstore.auth.boto3 import Boto3CredentialProvider
    from obstore.store import ClientConfig, S3Store

    from toolkit.profiles import S3Settings

__all__ = [
    "BUCKET_SETTING",
    "Location",
    "ObjectInfo",
    "ObjectNotFound",
    "Storage",
    "aws_variables_hidden",
]

# One object never takes longer than this, retries included; a stalled run says so instead.
_CONNECT_TIMEOUT = "5s"
_REQUEST_TIMEOUT = "60s"
_RETRIES = 5
# Below this, one PUT: its ETag is the MD5 of the content, which tells whether a file changed.
_SINGLE_PUT_BYTES = 64 * 1024 * 1024
# In parts, of the least size that S3 takes (5 MiB, obstore's default) and few at a time, a line of
# 0.2 MB/s suffices for each within its time. In one PUT, 8 MiB are as much.
_PARTED_BYTES = 8 * 1024 * 1024
_PARTS_IN_FLIGHT = 2
# The environment belongs to the process: only one thread at a time may hide parts of it.
_ENVIRONMENT = threading.RLock()
# Found without the lock, which is held for seconds while Spark starts. A process has a few.
_OPEN_STORES: dict[tuple[Storage, str], S3Store] = {}
# The profile's bucket among Hadoop's settings: ours, for `Storage.from_hadoop_configuration`.
BUCKET_SETTING = "toolkit.bucket"
# What S3A takes for Amazon S3, and where the buckets are that it has no region for.
_AWS_HOST = "s3.amazonaws.com"
_AWS_ENDPOINT = re.compile(r"https?://s3([.-](?P<region>[a-z]+-[a-z-]+-\d))?\.amazonaws\.com/?")
_AWS_REGION = "us-east-1"
# S3's codes for credentials whose time is over ("Error responses" of the Amazon S3 API reference).
_EXPIRED = frozenset({"ExpiredToken", "TokenRefreshRequired"})
_SIGN_IN = (
    "Sign in again (`aws sso login`), or set new keys (`aws configure`); then call the command "
    "again: what is done stays in the bucket."
)
_LOOPBACK = frozenset({"127.0.0.1", "localhost", "::1"})


class ObjectNotFound(JobError):  # noqa: N818 -- named for what happened, as FileNotFoundError is not
    """The object does not exist."""


@dataclass(frozen=True, slots=True)
class Location:
    """A bucket and a key (or a prefix of keys) in it."""

    bucket: str
    key: str = ""

    @classmethod
    def parse(cls, uri: str) -> Location:
        """Read ``s3://bucket/key`` or ``s3a://bucket/key``.

        Raises
        ------
        RequestError
            Another scheme, or no bucket.
        """
        scheme, separator, rest = uri.partition("://")
        bucket, _, key = rest.partition("/")
        if scheme not in {"s3", "s3a"} or not separator or not bucket:
            raise RequestError(
                f"{uri!r} is not the URI of an object store.",
                remedy="Write it as s3://bucket/prefix or s3a://bucket/prefix.",
            )
        return cls(bucket, key.strip("/"))

    @property
    def uri(self) -> str:
        """The location as Spark's S3A writes it."""
        return f"s3a://{self.bucket}/{self.key}"

    def overlaps(self, other: Location) -> bool:
        """Whether one of the two lies in the other, or they are the same."""
        if self.bucket != other.bucket:
            return False
        mine, others = (f"{key}/".lstrip("/") for key in (self.key, other.key))
        return mine.startswith(others) or others.startswith(mine)

    def __truediv__(self, name: str) -> Location:
        return Location(self.bucket, f"{self.key}/{name}".strip("/"))


@dataclass(frozen=True, slots=True)
class ObjectInfo:
    """One listed object: where it is, its size in bytes, its ETag without quotes, its date."""

    location: Location
    size: int
    e_tag: str
    modified: datetime


@dataclass(frozen=True)
class Storage:
    """The objects of a profile's store. Small, immutable and picklable: Spark tasks carry it."""

    settings: S3Settings

    @classmethod
    def from_hadoop_configuration(cls, get: Callable[[str], str | None]) -> Storage:
        """Return the store that a session's Spark reads: the inverse of `hadoop_configuration`.

        Amazon S3 is reached with the standard AWS credential chain; but if the settings hold a key
        pair, with that, as any other server. Of a session that the toolkit has not configured the
        bucket is not known: `name` is the default one, and only whole URIs lead to objects.

        Parameters
        ----------
        get
            Returns the setting of a name, or None: ``get`` of a Hadoop ``Configuration``.

        Raises
        ------
        RequestError
            The settings hold a session token, which can't be passed on.
        """
        from toolkit.profiles import S3Settings

        if get("fs.s3a.session.token"):
            raise RequestError(
                "The session reads S3 with temporary credentials: fs.s3a.session.token is set.",
                remedy="Leave them to the standard AWS credential chain: set AWS_ACCESS_KEY_ID, "
                "AWS_SECRET_ACCESS_KEY and AWS_SESSION_TOKEN instead of fs.s3a settings.",
            )
        endpoint = get("fs.s3a.endpoint") or _AWS_HOST
        if "://" not in endpoint:
            is_plain = get("fs.s3a.connection.ssl.enabled") == "false"
            endpoint = f"{'http' if is_plain else 'https'}://{endpoint}"
        region, key, secret = map(
            get, ("fs.s3a.endpoint.region", "fs.s3a.access.key", "fs.s3a.secret.key")
        )
        if aws := _AWS_ENDPOINT.fullmatch(endpoint):
            region = region or aws["region"] or _AWS_REGION
            endpoint = f"https://s3.{region}.amazonaws.com" if key and secret else "aws"
        found = {
            "endpoint": endpoint,
            "region": region,
            "bucket": get(BUCKET_SETTING),
            "access_key_id": None if endpoint == "aws" else key,
            "secret_access_key": None if endpoint == "aws" else secret,
        }
        return cls(S3Settings.model_validate({name: text for name, text in found.items() if text}))

    def location(self, *parts: str) -> Location:
        """Return a location in the profile's own bucket."""
        return Location(self.settings.bucket, "/".join(parts))

    def read(self, location: Location) -> bytes:
        """Return the whole object.

        Raises
        ------
        ObjectNotFound
            It does not exist.
        JobError
            The store can't be reached or refuses.
        """
        import obstore

        with _translated(location):
            return bytes(obstore.get(self._store(location.bucket), location.key).bytes())

    def write(self, location: Location, content: bytes) -> None:
        """Write the whole object; readers see all of it or the one before."""
        import obstore

        with _translated(location):
            obstore.put(
                self._store(location.bucket),
                location.key,
                content,
                use_multipart=len(content) > _SINGLE_PUT_BYTES,
            )

    def find(self, location: Location) -> ObjectInfo | None:
        """Return what is known of an object; None if there is none, and for a bucket."""
        import obstore

        if not location.key:
            return None
        try:
            with _translated(location):
                meta = obstore.head(self._store(location.bucket), location.key)
        except ObjectNotFound:
            return None
        return _object(location.bucket, meta)

    def exists(self, location: Location) -> bool:
        """Whether the object exists; a bucket is none."""
        return self.find(location) is not None

    def objects(self, location: Location) -> Iterator[ObjectInfo]:
        """Yield the objects whose keys lie below the location, in order of their keys."""
        import obstore

        with _translated(location):
            pages = obstore.list(self._store(location.bucket), prefix=location.key or None)
            for page in pages:
                for meta in page:
                    yield _object(location.bucket, meta)

    def files(self, location: Location) -> list[ObjectInfo]:
        """Return the objects directly below the location, in order of their keys."""
        import obstore

        with _translated(location):
            listing = obstore.list_with_delimiter(
                self._store(location.bucket), prefix=location.key or None
            )
        found = (_object(location.bucket, meta) for meta in listing["objects"])
        return sorted(found, key=lambda entry: entry.location.key)

    def folders(self, location: Location) -> list[str]:
        """Return the names directly below the location that other keys lie below."""
        import obstore

        with _translated(location):
            listing = obstore.list_with_delimiter(
                self._store(location.bucket), prefix=location.key or None
            )
        return sorted(
            prefix.rstrip("/").rpartition("/")[2] for prefix in listing["common_prefixes"]
        )

    def upload(self, file: Path, location: Location, *, in_parts: bool = False) -> str:
        """Copy a file into the store and return its ETag; ``OSError`` if it can't be read.

        Parameters
        ----------
        file
            The file.
        location
            Where it goes.
        in_parts
            Send more than 8 MiB in parts, for which a slow line suffices. The ETag is not the MD5
            of the content then, as it is otherwise up to 64 MiB.
        """
        import obstore

        single = _PARTED_BYTES if in_parts else _SINGLE_PUT_BYTES
        with file.open("rb") as content, _translated(location):
            result = obstore.put(
                self._store(location.bucket),
                location.key,
                content,
                use_multipart=file.stat().st_size > single,
                max_concurrency=_PARTS_IN_FLIGHT,
            )
        return _bare(result["e_tag"])

    def download(self, location: Location, file: Path) -> None:
        """Copy an object to a file; the file appears when it is complete."""
        file.parent.mkdir(parents=True, exist_ok=True)
        partial = file.with_name(f".{file.name}.{os.getpid()}.part")
        try:
            partial.write_bytes(self.read(location))
            partial.replace(file)
        finally:
            partial.unlink(missing_ok=True)

    @property
    def name(self) -> str:
        """Name of the profile's own bucket."""
        return self.settings.bucket

    def version(self, uri: str) -> str | None:
        """Return the ETag of the object at a URI; None if there is none."""
        found = self.find(Location.parse(uri))
        return None if found is None else found.e_tag

    def fetch(self, uri: str, to: Path) -> bool:
        """Copy the object at a URI to a file; False if there is none."""
        try:
            self.download(Location.parse(uri), to)
        except ObjectNotFound:
            return False
        return True

    def delete_below(self, location: Location) -> None:
        """Delete every object below the location; the object at it, if there is one, stays."""
        self._delete(location, [entry.location.key for entry in self.objects(location)])

    def delete_all(self, location: Location) -> None:
        """Delete the object at the location, if there is one, and every object below it."""
        keys = [entry.location.key for entry in self.objects(location)]
        self._delete(location, [*keys, location.key] if location.key else keys)

    def _delete(self, location: Location, keys: list[str]) -> None:
        import obstore

        if not keys:
            return
        with _translated(location):
            obstore.delete(self._store(location.bucket), keys)

    def hadoop_configuration(self) -> dict[str, str]:
        """Return the ``fs.s3a.*`` settings that give Spark the same view of the store.

        Set them on the running context's Hadoop configuration: as Spark configuration they would
        stand on the command line of ``spark-submit``.
        """
        common = {
            BUCKET_SETTING: self.settings.bucket,
            "fs.s3.impl": "org.apache.hadoop.fs.s3a.S3AFileSystem",  # s3:// means the same here
            "fs.s3a.endpoint.region": self.settings.region,
            "fs.s3a.committer.name": "magic",
            "fs.s3a.committer.magic.enabled": "true",
            "fs.s3a.connection.establish.timeout": "15s",  # the least that S3A takes
            "fs.s3a.attempts.maximum": str(_RETRIES),
        }
        if self.settings.is_aws:
            return common | {
                "fs.s3a.aws.credentials.provider": (
                    "software.amazon.awssdk.auth.credentials.DefaultCredentialsProvider"
                ),
            }
        key, secret = self.settings.credentials()
        return common | {
            "fs.s3a.endpoint": self.settings.endpoint,
            "fs.s3a.path.style.access": "true",
            "fs.s3a.connection.ssl.enabled": str(
                self.settings.endpoint.startswith("https://")
            ).lower(),
            "fs.s3a.aws.credentials.provider": (
                "org.apache.hadoop.fs.s3a.SimpleAWSCredentialsProvider"
            ),
            "fs.s3a.access.key": key,
            "fs.s3a.secret.key": secret,
        }

    def _store(self, bucket: str) -> S3Store:
        store = _OPEN_STORES.get((self, bucket))
        if store is None:
            with _ENVIRONMENT:  # threads that come first together open it once
                store = _OPEN_STORES.get((self, bucket)) or _open_store(self, bucket)
                _OPEN_STORES[self, bucket] = store
        return store


@contextmanager
def aws_variables_hidden(*, proxies: bool = False) -> Iterator[None]:
    """Hide AWS variables (and proxies) of the environment from what is created inside.

    obstore and the AWS SDK in the JVM take settings from ``AWS_…`` variables even when they are
    given explicitly: a session token, an endpoint, a certificate bundle. A local run must not see
    them.
    """
    with _ENVIRONMENT:
        hidden = {
            name: value
            for name, value in os.environ.items()
            if name.startswith("AWS_") or (proxies and name.lower().endswith("_proxy"))
        }
        for name in hidden:
            del os.environ[name]
        try:
            yield
        finally:
            os.environ.update(hidden)


def _open_store(storage: Storage, bucket: str) -> S3Store:
    from obstore.store import S3Store

    settings = storage.settings
    options: dict[str, Any] = {
        "region": settings.region,
        "retry_config": {"max_retries": _RETRIES},
    }
    client: ClientConfig = {
        "connect_timeout": _CONNECT_TIMEOUT,
        "timeout": _REQUEST_TIMEOUT,
        "allow_http": True,  # the endpoint's own scheme decides; AWS is https by default
    }
    if settings.is_aws:
        return S3Store(
            bucket,
            credential_provider=_aws_credentials(),
            client_options=client,
            **options,
        )
    key, secret = settings.credentials()
    is_loopback = (urlsplit(settings.endpoint).hostname or "") in _LOOPBACK
    with aws_variables_hidden(proxies=is_loopback):
        return S3Store(
            bucket,
            endpoint=settings.endpoint,
            access_key_id=key,
            secret_access_key=secret,
            virtual_hosted_style_request=False,
            client_options=client,
            **options,
        )


def _aws_credentials() -> Boto3CredentialProvider:
    """Return the credentials of the standard AWS chain, which are renewed where they can be.

    Raises
    ------
    RequestError
        There are none.
    """
    from botocore.exceptions import BotoCoreError
    from obstore.auth.boto3 import Boto3CredentialProvider

    try:
        # obstore would keep them for half an hour, and those of a role may end before.
        return Boto3CredentialProvider(ttl=timedelta(minutes=5))
    except (BotoCoreError, ValueError) as exc:
        why = f" {exc}" if isinstance(exc, BotoCoreError) else ""
        raise RequestError(
            f"There are no AWS credentials.{why}",
            remedy="Run `aws configure` or `aws sso login`, or set AWS_PROFILE, or "
            "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY.",
        ) from exc


@contextmanager
def _translated(location: Location) -> Iterator[None]:
    """Turn obstore's errors into the project's."""
    from obstore import exceptions

    try:
        yield
    except (FileNotFoundError, exceptions.NotFoundError) as exc:
        raise ObjectNotFound(
            f"{location.uri} does not exist.",
            remedy="See what there is with `toolkit images list`.",
        ) from exc
    except exceptions.BaseError as exc:
        raise _refusal(location, exc) from exc


def _refusal(location: Location, exc: BaseException) -> JobError:
    """Say what the store has answered, or that it has not.

    obstore has a type for denied requests, but denied lists and batches of deletions, and expired
    credentials, come as its general error: there, what S3 has answered stands in the text.
    """
    from obstore import exceptions

    answer = str(exc).partition("\nDebug source:")[0].strip()
    code, said = _error_code(answer), _first_line(answer)
    is_without_credentials = isinstance(exc, exceptions.UnauthenticatedError)
    if code in _EXPIRED or (is_without_credentials and "has expired" in said):
        return JobError(f"The credentials for {location.uri} have expired.", remedy=_SIGN_IN)
    if code and (message := re.search("<Message>(.*?)</Message>", answer, re.DOTALL)):
        said = f"{unescape(message[1])} ({code})"
    if is_without_credentials:
        return JobError(f"There are no credentials for {location.uri}: {said}", remedy=_SIGN_IN)
    is_denied = isinstance(exc, exceptions.PermissionDeniedError) or code == "AccessDenied"
    if is_denied or "status code: 403" in answer:
        return JobError(
            f"Access to {location.uri} is denied: {said}",
            remedy="Check the credentials and their policy: `toolkit profile show`.",
        )
    if "status code: 400" in answer and not code:  # HEAD is answered without a word
        return JobError(
            f"The store does not tell of {location.uri}: {said}",
            remedy=f"If the credentials are temporary, they may have expired. {_SIGN_IN}",
        )
    if code == "NoSuchBucket":
        return JobError(
            f"There is no bucket {location.bucket}.",
            remedy="Name one that there is, or make it; the profile's own is in `toolkit profile "
            "show`.",
        )
    return JobError(
        f"{location.uri} can't be reached: {said}",
        remedy="Check that the store runs: `toolkit status`.",
    )


def _error_code(answer: str) -> str | None:
    """Return S3's code of an error; a batch of deletions is answered with one for each key."""
    found = re.search(r"<Code>(\w+)</Code>|\(code: (\w+)\)", answer)
    return (found[1] or found[2]) if found else None


def _object(bucket: str, meta: ObjectMeta) -> ObjectInfo:
    return ObjectInfo(
        location=Location(bucket, meta["path"]),
        size=meta["size"],
        e_tag=_bare(meta["e_tag"]),
        modified=meta["last_modified"],
    )


def _bare(e_tag: str | None) -> str:
    return (e_tag or "").strip('"')


def _first_line(text: str) -> str:
    return text.partition("\n")[0].removesuffix('<?xml version="1.0" encoding="UTF-8"?>').strip()
