"""Cuts the images of a run into parts, and the parts into Spark tasks.

A part is one file of features, and the unit of resuming: the same images always make the same
parts. A task is some consecutive parts, as many as the cluster and the rest of the work allow.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from toolkit.images.listing import ImageObject

__all__ = ["PLAN_VERSION", "Part", "plan_parts", "plan_tasks"]

PLAN_VERSION = 2
"""Raised whenever `plan_parts` cuts otherwise: a run is continued on the same parts only."""

# Some seconds of a core's work, so that a file and its requests do not show.
_PART_MULTIPLY_ADDS = 400e9
_MOST_IMAGES = 768
_LEAST_IMAGES = 24
_LEAST_PARTS = 16
# Towards the end parts become smaller, so that the last one keeps few cores waiting.
_SHARE_OF_REST = 8
# A part is so many whole batches of any engine, or nearly: a batch that is not full costs as much
# as a full one (51 images of ResNet50 in batches of 6 as much as 54).
_STEP = 24
_PART_BYTES = 64 << 20

# Between two tasks a core waits 25 ms for Spark, and for the first image from the store and the
# last file to it: the more parts a task has, the less that shows. The fewer, the smoother are
# progress and balance.
_PARTS_PER_TASK = 4
# What is left over, on every core, when the largest tasks end: so many smaller ones.
_TASKS_PER_SLOT = 4


@dataclass(frozen=True, slots=True)
class Part:
    """Consecutive images of a listing that make one file of features.

    Parameters
    ----------
    number
        Its place among the parts, from 0.
    images
        Its images, at least one.
    attempted
        Whether an earlier attempt of the run may have finished it.
    """

    number: int
    images: tuple[ImageObject, ...]
    attempted: bool = False


def plan_parts(
    images: Iterable[ImageObject], *, count: int, multiply_adds: float, attempted: bool = False
) -> Iterator[Part]:
    """Cut the images into parts, in their order; the same images always into the same parts.

    Parameters
    ----------
    images
        What to featurize; read as the parts are taken.
    count
        Number of images, at least as many as there are.
    multiply_adds
        Arithmetic of the network for one image.
    attempted
        Whether an earlier attempt may have finished some.

    Yields
    ------
    Part
        Some seconds of work, less towards the end, and at most 64 MiB of files; only an image that
        is larger alone has more.
    """
    largest = min(int(_PART_MULTIPLY_ADDS / multiply_adds), count // _LEAST_PARTS, _MOST_IMAGES)
    number, left = 0, count
    size, most = 0, _images_in_part(largest, left)
    part: list[ImageObject] = []
    for image in images:
        if part and (len(part) == most or size + image.size > _PART_BYTES):
            yield Part(number, tuple(part), attempted)
            number, left = number + 1, left - len(part)
            size, most = 0, _images_in_part(largest, left)
            part = []
        part.append(image)
        size += image.size
    if part:
        yield Part(number, tuple(part), attempted)


def _images_in_part(largest: int, left: int) -> int:
    return max(min(largest, left // _SHARE_OF_REST) // _STEP * _STEP, _LEAST_IMAGES)


def plan_tasks(
    parts: Iterable[Part], *, count: int, slots: Callable[[], int]
) -> Iterator[tuple[Part, ...]]:
    """Group consecutive parts to tasks, fewer a task when there is little left for every core.

    Parameters
    ----------
    parts
        Read as the tasks are taken.
    count
        Number of images in all parts.
    slots
        Tells how many tasks run at a time; asked before each.

    Yields
    ------
    tuple of Part
        One to four.
    """
    left = count
    task: list[Part] = []
    images = most = 0
    for part in parts:
        if task and (len(task) == _PARTS_PER_TASK or images + len(part.images) > most):
            yield tuple(task)
            left -= images
            task, images = [], 0
        if not task:
            most = left // (_TASKS_PER_SLOT * slots())
        task.append(part)
        images += len(part.images)
    if task:
        yield tuple(task)
