"""Which images a run reads: a prefix of the bucket, or a folder mirrored to one.

A listing may be longer than memory: it goes to a file on disk as it comes, and is read from there.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
import weakref
from collections.abc import Callable
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field
from itertools import islice
from typing import IO, TYPE_CHECKING, Literal, NamedTuple, NoReturn

import pyarrow as pa

from toolkit.ahead import in_order
from toolkit.errors import JobError, RequestError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from toolkit.storage import Location, ObjectInfo, Storage

__all__ = [
    "IMAGE_SUFFIXES",
    "ImageListing",
    "ImageObject",
    "Mirrored",
    "count_extra",
    "files_below",
    "list_folder",
    "list_images",
    "mirror_folder",
    "mirror_location",
]

IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".gif", ".bmp", ".webp", ".tif", ".tiff"})

_SCHEMA = pa.schema(
    [
        ("origin", pa.string()),
        ("label", pa.string()),
        ("size", pa.int64()),
        ("e_tag", pa.string()),
    ]
)
# Images that memory holds at a time.
_BATCH_IMAGES = 1_024
# Where large temporary files belong: /tmp is memory on some systems (Debian 13 is one).
_SPOOL_FOLDER = "/var/tmp"  # noqa: S108 - the file in it has no name
# Files of a folder that are compared or uploaded at a time, and those that wait for their turn.
_FILES_IN_FLIGHT = 16
_FILES_AHEAD = 4 * _FILES_IN_FLIGHT

OnProgress = Callable[[int], None]


@dataclass(frozen=True, slots=True)
class ImageObject:
    """One image of a run: URI, name of its parent folder, size in bytes, ETag of its content."""

    origin: str
    label: str
    size: int
    e_tag: str = ""


@dataclass(frozen=True, eq=False)
class ImageListing:
    """The images below a location, in the order of their keys; to iterate over, again and again.

    They lie in a nameless temporary file, which goes when the listing does. Memory holds some
    thousand of them at a time, and the names of the labels. Only one thread at a time may read.

    Attributes
    ----------
    location
        Where they are.
    skipped
        Number of objects that are no images; of a mirrored folder: of files, and links to nothing.
    labels
        Number of different labels.
    bytes
        Sum of the sizes of the images.
    fingerprint
        SHA-256 over origin, size and ETag of the images in their order, in hexadecimal.
    """

    location: Location
    skipped: int
    labels: int
    bytes: int
    fingerprint: str
    _spool: _Spool = field(repr=False)

    def __len__(self) -> int:
        return len(self._spool)

    def __iter__(self) -> Iterator[ImageObject]:
        return iter(self._spool)

    def evenly_spaced(self, limit: int, *, shift: float = 0.0) -> ImageListing:
        """Return at most `limit` of the images, spread evenly, so that every class is met.

        Parameters
        ----------
        limit
            Number of images.
        shift
            How far beyond those of no shift they lie, as a part of the distance of two (0 to 1).
        """
        count = min(limit, len(self))
        places = (int((index + shift) * len(self) / count) for index in range(count))
        chosen = map(self._spool.at, places)
        return _listing(self.location, chosen, _Tally(skipped=self.skipped))


@dataclass(frozen=True, slots=True)
class Mirrored:
    """What mirroring a folder did: files uploaded, files already there, images only there."""

    uploaded: int
    unchanged: int
    extra: int


def list_images(storage: Storage, location: Location) -> ImageListing:
    """List the images below a prefix, in order of their keys.

    An image is an object whose name ends in one of ``IMAGE_SUFFIXES``; its label is the name of
    its parent folder.

    Raises
    ------
    RequestError
        No image lies below the prefix.
    JobError
        The store can't be reached or refuses, or the disk is full.
    """
    tally = _Tally()
    images = (
        _image(entry.location, entry.size, entry.e_tag)
        for entry in _images_below(storage, location, tally)
    )
    listing = _listing(location, images, tally)
    if not listing:
        raise RequestError(
            f"There are no images below {location.uri} ({tally.skipped} other objects).",
            remedy=f"Images end in {', '.join(sorted(IMAGE_SUFFIXES))}. "
            "Bring some in with `toolkit images import FOLDER`.",
        )
    return listing


def mirror_location(folder: Path, storage: Storage) -> Location:
    """Return where a folder of images is mirrored to, if nobody names another place."""
    return storage.location("images", folder.name)


def list_folder(folder: Path, location: Location) -> ImageListing:
    """List the images of a folder as `mirror_folder` would, and bring none of them anywhere.

    Parameters
    ----------
    folder
        Folder of images; the name of a file's parent folder is its label.
    location
        Where they would be: the origins lie below it. The ETags are those of files uploaded in
        one piece and, if at all, not encrypted with KMS: the MD5 of the content.
        https://docs.aws.amazon.com/AmazonS3/latest/API/API_Object.html

    Raises
    ------
    RequestError
        The folder does not exist, holds no image, or holds a name that can't be a key.
    JobError
        The disk is full.
    """
    _require_folder(folder)
    tally = _Tally()
    files = _image_files(folder, location, tally)
    images = in_order(_as_uploaded, files, threads=_FILES_IN_FLIGHT, ahead=_FILES_AHEAD)
    with closing(images):
        listing = _listing(location, images, tally)
    _require_images(listing, folder)
    return listing


def mirror_folder(
    folder: Path,
    storage: Storage,
    *,
    location: Location,
    on_progress: OnProgress | None = None,
) -> tuple[ImageListing, Mirrored]:
    """Copy the images of a folder to a prefix, uploading only what changed.

    A file counts as unchanged when its size and MD5 (the ETag of a single upload) are the
    object's. Nothing is deleted: images below the prefix that are not in the folder stay there,
    are counted as `extra`, and are not part of the returned listing.

    Folder and prefix are read side by side in the order of the keys. Memory holds the names in
    the folders on the way to the current file, and of the keys only those being worked on.

    Parameters
    ----------
    folder
        Folder of images; the name of a file's parent folder is its label.
    storage, location
        Where to copy to.
    on_progress
        Called with the number of files uploaded so far.

    Raises
    ------
    RequestError
        The folder does not exist, holds no image, or holds a name that can't be a key.
    JobError
        The store can't be reached or refuses, or the disk is full.
    """
    _require_folder(folder)
    tally = _Tally()
    files = _image_files(folder, location, tally)
    there = _images_below(storage, location, _Tally())

    def mirrored() -> Iterator[ImageObject]:
        pairs = _side_by_side(files, there, tally)
        for image, is_new in in_order(
            lambda pair: _mirror(pair, storage),
            pairs,
            threads=_FILES_IN_FLIGHT,
            ahead=_FILES_AHEAD,
        ):
            tally.uploaded += is_new
            if is_new and on_progress:
                on_progress(tally.uploaded)
            yield image

    listing = _listing(location, mirrored(), tally)
    _require_images(listing, folder)
    return listing, Mirrored(tally.uploaded, len(listing) - tally.uploaded, tally.extra)


def count_extra(folder: Path, storage: Storage, *, location: Location) -> int:
    """Return how many images lie below a prefix that a folder has not: mirroring leaves them there.

    Raises
    ------
    RequestError
        The folder can't be read, or holds a name that can't be a key.
    JobError
        The store can't be reached or refuses.
    """
    tally = _Tally()
    there = _images_below(storage, location, _Tally())
    for _ in _side_by_side(_image_files(folder, location, _Tally()), there, tally):
        pass
    return tally.extra


def files_below(
    folder: Path, *, depth: int | None = None, on_other: Callable[[str], object] = lambda _: None
) -> Iterator[str]:
    """Yield the files below a folder, relative to it; follow links, but enter a folder once only.

    A folder takes its turn with the slash that its name ends in, as its keys do in the listing of
    a bucket: ``a-b/1.jpg`` comes before ``a/1.jpg``.

    Parameters
    ----------
    folder
        Where.
    depth
        How many folders deep, at least 1: the files of the folder itself. Default: all.
    on_other
        Is told of what is neither a file nor a folder, such as a link to nothing.

    Raises
    ------
    RequestError
        A folder can't be read.
    """
    return _files_below(folder, "", set(), depth, on_other)


@dataclass(slots=True)
class _Tally:
    """What is counted while images go by."""

    skipped: int = 0
    extra: int = 0
    uploaded: int = 0


class _Spool:
    """The images of a listing in a file of Arrow batches, of which memory holds one."""

    def __init__(self, file: IO[bytes], images: int) -> None:
        weakref.finalize(self, file.close)
        self._reader = pa.ipc.open_file(file)
        self._images = images
        self._last: tuple[int, list[ImageObject]] = (-1, [])

    def __len__(self) -> int:
        return self._images

    def __iter__(self) -> Iterator[ImageObject]:
        for number in range(self._reader.num_record_batches):
            yield from self._batch(number)

    def at(self, index: int) -> ImageObject:
        number, row = divmod(index, _BATCH_IMAGES)
        if number != self._last[0]:
            self._last = (number, self._batch(number))
        return self._last[1][row]

    def _batch(self, number: int) -> list[ImageObject]:
        columns = self._reader.get_batch(number).columns
        return list(map(ImageObject, *(column.to_pylist() for column in columns)))


def _listing(location: Location, images: Iterator[ImageObject], tally: _Tally) -> ImageListing:
    """Write the images to disk as they come, and count them on the way."""
    labels: set[str] = set()
    digest = hashlib.sha256()
    count = size = 0
    options = pa.ipc.IpcWriteOptions(compression="zstd")
    with ExitStack() as on_failure:
        with _disk_errors():
            file = on_failure.enter_context(tempfile.TemporaryFile(dir=_spool_folder()))
            writer = pa.ipc.new_file(file, _SCHEMA, options=options)
        while batch := list(islice(images, _BATCH_IMAGES)):
            columns = list(zip(*((i.origin, i.label, i.size, i.e_tag) for i in batch), strict=True))
            with _disk_errors():
                writer.write_batch(pa.record_batch(columns, schema=_SCHEMA))
            labels.update(columns[1])
            count += len(batch)
            size += sum(columns[2])
            # No part holds a NUL, so no two listings read the same.
            rows = (f"{image.origin}\0{image.size}\0{image.e_tag}\0" for image in batch)
            digest.update("".join(rows).encode())
        with _disk_errors():
            writer.close()
            file.flush()
        spool = _Spool(file, count)
        on_failure.pop_all()
    return ImageListing(location, tally.skipped, len(labels), size, digest.hexdigest(), spool)


def _spool_folder() -> str:
    """Return the folder that the user names for temporary files, or the system's for large ones."""
    return tempfile.gettempdir() if "TMPDIR" in os.environ else _SPOOL_FOLDER


@contextmanager
def _disk_errors() -> Iterator[None]:
    try:
        yield
    except OSError as exc:
        raise JobError(
            f"The listing of the images can't be written to {_spool_folder()}: {exc.strerror}.",
            remedy="Make room there, or name another folder in the variable TMPDIR. "
            "A million images take about 40 MB.",
        ) from exc


def _image(location: Location, size: int, e_tag: str) -> ImageObject:
    uri = location.uri
    return ImageObject(uri, uri.rsplit("/", 2)[-2], size, e_tag)


def _is_image(key: str) -> bool:
    name = key.rpartition("/")[2]
    stem, _, suffix = name.rpartition(".")
    # "._name.jpg" is what macOS leaves beside "name.jpg" on foreign file systems.
    return bool(stem) and f".{suffix.lower()}" in IMAGE_SUFFIXES and not name.startswith("._")


def _images_below(storage: Storage, location: Location, tally: _Tally) -> Iterator[ObjectInfo]:
    for entry in storage.objects(location):
        if _is_image(entry.location.key):
            yield entry
        else:
            tally.skipped += 1


class _LocalImage(NamedTuple):
    path: Path
    target: Location


class _Pair(NamedTuple):
    """A file, and the object that has its name, if there is one."""

    file: _LocalImage
    there: ObjectInfo | None


def _image_files(folder: Path, location: Location, tally: _Tally) -> Iterator[_LocalImage]:
    """Yield the images below a folder in the order of their keys."""

    def skip(_: str) -> None:
        tally.skipped += 1

    for key in files_below(folder, on_other=skip):
        if not _is_image(key):
            skip(key)
            continue
        try:
            key.encode("utf-8")
        except UnicodeEncodeError as exc:
            raise RequestError(
                f"{key!r} is not valid UTF-8 and can't be the name of an object.",
                remedy="Rename the file.",
            ) from exc
        yield _LocalImage(folder / key, location / key)


def _files_below(
    folder: Path,
    prefix: str,
    entered: set[str],
    depth: int | None,
    on_other: Callable[[str], object],
) -> Iterator[str]:
    real = os.path.realpath(folder / prefix)
    if real in entered:
        return
    entered.add(real)
    try:
        with os.scandir(folder / prefix) as entries:
            found = sorted(map(_name_and_kind, entries))
    except OSError as exc:
        _refuse(exc)
    for name, kind in found:
        if kind == "file":
            yield prefix + name
        elif kind == "other":
            on_other(prefix + name)
        elif depth != 1:
            yield from _files_below(folder, prefix + name, entered, depth and depth - 1, on_other)


def _name_and_kind(entry: os.DirEntry[str]) -> tuple[str, Literal["file", "folder", "other"]]:
    """Return the name, of a folder with a slash, and what has it."""
    try:
        if entry.is_dir():
            return f"{entry.name}/", "folder"
        return entry.name, "file" if entry.is_file() else "other"
    except OSError:  # a link that leads to itself
        return entry.name, "other"


def _as_uploaded(file: _LocalImage) -> ImageObject:
    try:
        return _image(file.target, file.path.stat().st_size, _md5(file.path))
    except OSError as exc:
        _refuse(exc)


def _side_by_side(
    files: Iterable[_LocalImage], there: Iterator[ObjectInfo], tally: _Tally
) -> Iterator[_Pair]:
    """Pair files with the objects of their names; both come in the order of their keys."""
    entry = next(there, None)
    for file in files:
        while entry is not None and entry.location.key < file.target.key:
            tally.extra += 1
            entry = next(there, None)
        if entry is not None and entry.location == file.target:
            yield _Pair(file, entry)
            entry = next(there, None)
        else:
            yield _Pair(file, None)
    tally.extra += (entry is not None) + sum(1 for _ in there)


def _mirror(pair: _Pair, storage: Storage) -> tuple[ImageObject, bool]:
    """Upload a file if that is needed; return the object, and whether it was needed."""
    (path, target), there = pair
    try:
        if there is not None and _is_same(path, there):
            return _image(target, there.size, there.e_tag), False
        size = path.stat().st_size
        return _image(target, size, storage.upload(path, target)), True
    except OSError as exc:
        _refuse(exc)


def _is_same(path: Path, there: ObjectInfo) -> bool:
    stat = path.stat()
    if stat.st_size != there.size:
        return False
    if "-" in there.e_tag:  # a multipart upload: its ETag is not the MD5 of the content
        return there.modified.timestamp() >= stat.st_mtime
    return _md5(path) == there.e_tag


def _md5(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "md5").hexdigest()


def _require_folder(folder: Path) -> None:
    if not folder.is_dir():
        raise RequestError(
            f"{folder} is not a folder.",
            remedy="Give a folder of images, or the s3:// URI of images in a bucket.",
        )


def _require_images(listing: ImageListing, folder: Path) -> None:
    if not listing:
        raise RequestError(
            f"There are no images in {folder} ({listing.skipped} other files).",
            remedy=f"Images end in {', '.join(sorted(IMAGE_SUFFIXES))}, in one folder a label.",
        )


def _refuse(error: OSError) -> NoReturn:
    raise RequestError(f"{error.filename} can't be read: {error.strerror}.") from error
