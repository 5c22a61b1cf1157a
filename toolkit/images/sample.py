"""A few images, decoded in the driver: to calibrate a network on, and to judge it by."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from threading import Lock
from typing import TYPE_CHECKING

import numpy as np

from toolkit.images.decode import UnreadableImage, decode_image
from toolkit.storage import Location, ObjectNotFound

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from toolkit.images.listing import ImageListing, ImageObject
    from toolkit.storage import Storage

__all__ = ["ImageSample", "read_from"]

_FETCHES_IN_FLIGHT = 16


def read_from(storage: Storage) -> Callable[[ImageObject], bytes]:
    """Return what reads the content of an image out of a store."""
    return lambda image: storage.read(Location.parse(image.origin))


@dataclass(frozen=True)
class ImageSample:
    """Images of a listing, fetched and decoded when they are asked for.

    Parameters
    ----------
    read
        Returns the content of an image; `ObjectNotFound` for one that is gone.
    listing
        Which they are; few enough to hold their pixels.
    """

    read: Callable[[ImageObject], bytes]
    listing: ImageListing

    @property
    def identity(self) -> str:
        """What tells these images from any others: a hash over their origins, sizes and ETags."""
        return self.listing.fingerprint

    def __call__(self, size: tuple[int, int]) -> NDArray[np.uint8]:
        """Return the pixels of those that can be read.

        Parameters
        ----------
        size
            Height and width in pixels.

        Returns
        -------
        ndarray of shape (n, height, width, 3), uint8
            RGB, in the order of the listing.
        """
        decoding = Lock()  # of large images, memory holds the pixels of one

        def pixels(image: ImageObject) -> NDArray[np.uint8] | None:
            try:
                file = self.read(image)
                with decoding:
                    return decode_image(file, size=size)
            except (ObjectNotFound, UnreadableImage):
                return None  # the run itself says why

        with ThreadPoolExecutor(_FETCHES_IN_FLIGHT) as pool:
            readable = [each for each in pool.map(pixels, self.listing) if each is not None]
        return np.stack(readable) if readable else np.empty((0, *size, 3), np.uint8)
