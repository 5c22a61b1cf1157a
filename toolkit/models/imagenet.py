"""The classes of ImageNet: what the probabilities of a network of the zoo stand for."""

from __future__ import annotations

import json
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["ImageNetClass", "Prediction", "imagenet_classes", "top_classes"]

# Byte for byte what Keras downloads for `decode_predictions` (MD5
# c2c37ea517e94d9795004a39431a14cb), made from the tables of timm (Apache-2.0): synsets in the order
# of ILSVRC 2012, the first lemma of each.
_INDEX = "imagenet_class_index.json"


class ImageNetClass(NamedTuple):
    """A class: its WordNet id (``n07753592``) and its name (``banana``)."""

    wordnet_id: str
    name: str


class Prediction(NamedTuple):
    """A class with the probability that a network gives it, 0 to 1."""

    wordnet_id: str
    name: str
    probability: float


@cache
def imagenet_classes() -> tuple[ImageNetClass, ...]:
    """Return the 1,000 classes of ILSVRC 2012, in the order of a network's probabilities."""
    index = json.loads((files("toolkit.models") / _INDEX).read_text(encoding="utf-8"))
    return tuple(ImageNetClass(*index[str(number)]) for number in range(len(index)))


def top_classes(probabilities: NDArray[np.float32], *, count: int) -> list[Prediction]:
    """Name the most probable classes, as Keras' ``decode_predictions`` does.

    Parameters
    ----------
    probabilities : ndarray of shape (1000,)
        What a network gives for one image.
    count
        How many classes, 1 to 1,000.

    Returns
    -------
    list of Prediction
        The most probable first.
    """
    classes = imagenet_classes()
    # As Keras orders equal ones, too.
    best = np.argsort(probabilities)[-count:][::-1]
    return [
        Prediction(classes[index].wordnet_id, classes[index].name, float(probabilities[index]))
        for index in best
    ]
