"""Runs a network on a stream of images, in full batches."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from numpy.typing import NDArray

__all__ = ["infer"]

K = TypeVar("K")


def infer(
    compute: Callable[[NDArray[Any]], NDArray[Any]],
    images: Iterable[tuple[K, NDArray[Any] | str]],
    *,
    batch_size: int,
) -> Iterator[tuple[K, NDArray[Any] | str]]:
    """Compute what a network gives for each image.

    Parameters
    ----------
    compute
        Takes an array of shape (n, …) of n images, 1 to `batch_size`, and returns n results.
    images
        Key and pixels of each image, or why there are none. Those of one shape and dtype share a
        batch; where the shape changes, another begins.
    batch_size
        Number of images to compute at once, 1 or more.

    Yields
    ------
    key, result
        The key with the network's result, or with the reason: in the order of the images, but
        reasons at once.
    """
    batch = np.empty(0)
    keys: list[K] = []
    for key, image in images:
        if isinstance(image, str):
            yield key, image
            continue
        if batch.shape[1:] != image.shape or batch.dtype != image.dtype:
            if keys:
                yield from zip(keys, compute(batch[: len(keys)]), strict=True)
                keys.clear()
            batch = np.empty((batch_size, *image.shape), image.dtype)
        batch[len(keys)] = image
        keys.append(key)
        if len(keys) == batch_size:
            yield from zip(keys, compute(batch), strict=True)
            keys.clear()
    if keys:
        yield from zip(keys, compute(batch[: len(keys)]), strict=True)
