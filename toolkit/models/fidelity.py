"""Measures what a setting costs: how near a network's features stay to those of a reference."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from toolkit.models.engines import load_engine

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from toolkit.models.prepared import PreparedModel

__all__ = ["Fidelity", "measure_fidelity"]

_TINY = float(np.finfo(np.float32).tiny)


@dataclass(frozen=True, kw_only=True)
class Fidelity:
    """Cosines between the features of the same images in two settings, 1 for no difference.

    Parameters
    ----------
    mean, least
        Over the images.
    centred
        Mean over the images, after the mean of all features was taken off: PCA sees no more than
        that. Features share a large part, which makes any two of them look alike.
    images
        Number of images.
    """

    mean: float
    least: float
    centred: float
    images: int


def measure_fidelity(
    prepared: PreparedModel,
    reference: PreparedModel,
    images: Callable[[tuple[int, int]], NDArray[np.uint8]],
    *,
    threads: int = 1,
) -> Fidelity:
    """Compare the features of two settings of a network on the same images.

    Parameters
    ----------
    prepared
        The network as it is to run.
    reference
        The network to compare it with: in f32, at its native size.
    images
        Takes height and width in pixels and returns the decoded images, ``[N, height, width, 3]``
        uint8 RGB, always the same ones; at least 2.
    threads
        Processor threads to compute with.

    Raises
    ------
    ValueError
        When the settings' features are of different lengths, or there are fewer than 2 images.
    JobError
        When files of a network are missing here.
    """
    features, exact = (
        load_engine(model, threads=threads).compute(images(model.input_size))
        for model in (prepared, reference)
    )
    if features.shape != exact.shape or len(features) < 2:  # noqa: PLR2004 - one has no deviation
        raise ValueError(f"no comparing features {features.shape} with {exact.shape}")
    cosines = _cosines(features, exact)
    return Fidelity(
        mean=float(cosines.mean()),
        least=float(cosines.min()),
        centred=float(_cosines(_centred(features), _centred(exact)).mean()),
        images=len(cosines),
    )


def _centred(features: NDArray[np.float32]) -> NDArray[np.float32]:
    centred: NDArray[np.float32] = features - features.mean(axis=0)
    return centred


def _cosines(a: NDArray[np.float32], b: NDArray[np.float32]) -> NDArray[np.float64]:
    products = (a * b).sum(axis=1, dtype=np.float64)
    lengths = np.linalg.norm(a, axis=1).astype(np.float64) * np.linalg.norm(b, axis=1)
    same = (a == b).all(axis=1)  # also where both are zero
    cosines: NDArray[np.float64] = np.where(same, 1.0, products / np.maximum(lengths, _TINY))
    return cosines
