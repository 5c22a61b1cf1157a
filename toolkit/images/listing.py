"""Which images a run reads: a prefix of the bucket, or a folder mirrored to one."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, NoReturn

from toolkit.errors import RequestError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from toolkit.storage import Location, ObjectInfo, Storage

__all__ = [
    "IMAGE_SUFFIXES",
    "ImageListing",
    "ImageObject",
    "Mirrored",
    "evenly_spaced",
    "list_images",
    "mirror_folder",
]

IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".gif", ".bmp", ".webp", ".tif", ".tiff"})

OnProgress = Callable[[int], None]


@dataclass(frozen=True, slots=True)
class ImageObject:
    """One image of a run: URI, name of its parent folder, size in bytes, ETag of its content."""

    origin: str
    label: str
    size: int
    e_tag: str = ""


@dataclass(frozen=True)
class ImageListing:
    """The images below a location, and how many other objects or files lie beside them."""

    location: Location
    images: tuple[ImageObject, ...]
    skipped: int


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
    """
    images: list[ImageObject] = []
    skipped = 0
    for entry in storage.objects(location):
        if _is_image(entry.location.key):
            images.append(_image(entry))
        else:
            skipped += 1
    if not images:
        raise RequestError(
            f"There are no images below {location.uri} ({skipped} other objects).",
            remedy=f"Images end in {', '.join(sorted(IMAGE_SUFFIXES))}. "
            "Bring some in with `toolkit images import FOLDER`.",
        )
    return ImageListing(location, tuple(images), skipped)


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
    """
    files, skipped = _image_files(folder)
    there = {entry.location.key: entry for entry in storage.objects(location)}
    targets = [(path, location / _key_below(folder, path)) for path in files]
    try:
        changed = [
            (path, target) for path, target in targets if not _is_same(path, there.get(target.key))
        ]
        for done, _ in enumerate(storage.upload_all(changed), start=1):
            if on_progress:
                on_progress(done)
    except OSError as exc:
        _refuse(exc)
    ours = {target.key for _, target in targets}
    now_there = [entry for entry in storage.objects(location) if _is_image(entry.location.key)]
    images = tuple(_image(entry) for entry in now_there if entry.location.key in ours)
    mirrored = Mirrored(len(changed), len(files) - len(changed), len(now_there) - len(images))
    return ImageListing(location, images, skipped), mirrored


def evenly_spaced(images: Sequence[ImageObject], limit: int) -> tuple[ImageObject, ...]:
    """Return at most `limit` images spread evenly over the listing, so that every class is met."""
    count = min(limit, len(images))
    return tuple(images[index * len(images) // count] for index in range(count))


def _image(entry: ObjectInfo) -> ImageObject:
    uri = entry.location.uri
    return ImageObject(uri, PurePosixPath(uri).parent.name, entry.size, entry.e_tag)


def _is_image(name: str) -> bool:
    path = PurePosixPath(name)
    # "._name.jpg" is what macOS leaves beside "name.jpg" on foreign file systems.
    return path.suffix.lower() in IMAGE_SUFFIXES and not path.name.startswith("._")


def _image_files(folder: Path) -> tuple[list[Path], int]:
    if not folder.is_dir():
        raise RequestError(
            f"{folder} is not a folder.",
            remedy="Give a folder of images, or the s3:// URI of images in a bucket.",
        )
    files, skipped = [], 0
    for path in _walk(folder):
        if _is_image(path.name):
            files.append(path)
        else:
            skipped += 1
    if not files:
        raise RequestError(
            f"There are no images in {folder} ({skipped} other files).",
            remedy=f"Images end in {', '.join(sorted(IMAGE_SUFFIXES))}, in one folder a label.",
        )
    return sorted(files), skipped


def _walk(folder: Path) -> Iterator[Path]:
    """Yield the files below a folder; follow links, but enter each folder once only."""
    seen: set[str] = set()
    for parent, folders, names in os.walk(folder, followlinks=True, onerror=_refuse):
        real = os.path.realpath(parent)
        if real in seen:
            folders.clear()
            continue
        seen.add(real)
        folders.sort()
        for name in names:
            path = Path(parent, name)
            if path.is_file():
                yield path


def _refuse(error: OSError) -> NoReturn:
    raise RequestError(f"{error.filename} can't be read: {error.strerror}.") from error


def _key_below(folder: Path, path: Path) -> str:
    key = path.relative_to(folder).as_posix()
    try:
        key.encode("utf-8")
    except UnicodeEncodeError as exc:
        raise RequestError(
            f"{key!r} is not valid UTF-8 and can't be the name of an object.",
            remedy="Rename the file.",
        ) from exc
    return key


def _is_same(path: Path, there: ObjectInfo | None) -> bool:
    if there is None:
        return False
    stat = path.stat()
    if stat.st_size != there.size:
        return False
    if "-" in there.e_tag:  # a multipart upload: its ETag is not the MD5 of the content
        return there.modified.timestamp() >= stat.st_mtime
    with path.open("rb") as file:
        return hashlib.file_digest(file, "md5").hexdigest() == there.e_tag
