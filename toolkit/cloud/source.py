"""Which images a promotion works on: a folder here, or what the bucket holds already."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from toolkit.errors import RequestError
from toolkit.images.listing import (
    ImageListing,
    Mirrored,
    count_extra,
    list_folder,
    list_images,
    mirror_folder,
    mirror_location,
)
from toolkit.storage import Location

if TYPE_CHECKING:
    from toolkit.images.listing import ImageObject, OnProgress
    from toolkit.storage import Storage

__all__ = ["ImageSource", "find_images"]


@dataclass(frozen=True, eq=False)
class ImageSource:
    """The images of a promotion, wherever they are now.

    Parameters
    ----------
    storage
        The store that has them, or will have them.
    folder
        The folder on this machine; None: they are in the bucket already.
    listing
        The images, as many as the promotion is limited to. Their origins are those in the bucket,
        where they may not be yet.
    """

    storage: Storage
    folder: Path | None
    listing: ImageListing

    @property
    def uri(self) -> str:
        """Where in the bucket they are, or will be once `bring` has mirrored the folder."""
        return self.listing.location.uri

    def key(self, image: ImageObject) -> str:
        """Return the key of an image below `uri`; for a folder, its path in there."""
        return image.origin.removeprefix(f"{self.uri.rstrip('/')}/")

    def read(self, image: ImageObject) -> bytes:
        """Return the content of an image, from where it is now.

        Raises
        ------
        RequestError
            The file can't be read.
        JobError
            The object is gone, or the store can't be reached or refuses.
        """
        if self.folder is None:
            return self.storage.read(Location.parse(image.origin))
        path = self.folder / self.key(image)
        try:
            return path.read_bytes()
        except OSError as exc:
            raise RequestError(f"{path} can't be read: {exc.strerror}.") from exc

    def sample(self, count: int) -> ImageListing:
        """Return at most so many of the images, evenly spaced over the listing."""
        return self.listing.evenly_spaced(count)

    def extra(self) -> int:
        """Return how many images the bucket has below `uri` that are not in the folder.

        Raises
        ------
        JobError
            The store can't be reached or refuses.
        """
        if self.folder is None:
            return 0
        return count_extra(self.folder, self.storage, location=self.listing.location)

    def bring(self, *, on_progress: OnProgress | None = None) -> Mirrored | None:
        """Mirror the folder to the bucket, all of it; None where nothing has to be brought.

        A limit holds for the run, not for the folder: the node takes the limit itself, and evenly
        spaced images are the same ones only of the same listing. For that, look at `extra` before.

        Parameters
        ----------
        on_progress
            Called with the number of files uploaded so far.

        Raises
        ------
        RequestError
            A file can't be read, or the folder is gone.
        JobError
            The store can't be reached or refuses.
        """
        if self.folder is None:
            return None
        _, mirrored = mirror_folder(
            self.folder, self.storage, location=self.listing.location, on_progress=on_progress
        )
        return mirrored


def find_images(images: str, storage: Storage, *, limit: int | None) -> ImageSource:
    """Find the images that are asked for, and bring nothing anywhere.

    For a folder the store is not asked anything: this works without an AWS account.

    Parameters
    ----------
    images
        A folder, or the ``s3://`` / ``s3a://`` URI of images in a bucket.
    storage
        The store.
    limit
        At most so many images, evenly spaced over the listing; None for all.

    Raises
    ------
    RequestError
        There are none.
    JobError
        The store can't be reached or refuses.
    """
    folder: Path | None = None
    if "://" in images:
        listing = list_images(storage, Location.parse(images))
    else:
        folder = Path(images).expanduser().resolve()
        listing = list_folder(folder, mirror_location(folder, storage))
    return ImageSource(storage, folder, listing if limit is None else listing.evenly_spaced(limit))
