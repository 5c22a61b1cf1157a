"""Cuts the images of a run into parts, and the parts into Spark tasks.

A part is one file of features, and the unit of resuming: the same images always make the same
parts. A task is some consecutive parts, as many as the cluster and the rest of the work allow.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from toolkit.images.listing import ImageObject

__all__ = ["PLAN_VERSION", "Part", "grouped", "plan_parts", "plan_tasks"]

T = TypeVar("T")

PLAN_VERSION = 3
"""Raised whenever `plan_parts` cuts otherwise: a run is continued on the same parts only."""

# Some seconds of a core's work, so that a file and its requests do not show.
_PART_MULTIPLY_ADDS = 400e9
_MOST_IMAGES = 384
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
    left = count

    def bounds() -> tuple[int, float]:
        return _images_in_part(largest, left), _PART_BYTES

    groups = grouped(images, size=lambda image: image.size, bounds=bounds)
    for number, part in enumerate(groups):
        yield Part(number, tuple(part), attempted)
        left -= len(part)


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

    def bounds() -> tuple[int, float]:
        return _PARTS_PER_TASK, left // (_TASKS_PER_SLOT * slots())

    for task in grouped(parts, size=_images_of, bounds=bounds):
        yield tuple(task)
        left -= sum(map(_images_of, task))


def _images_of(part: Part) -> int:
    return len(part.images)


def grouped(
    items: Iterable[T], *, size: Callable[[T], int], bounds: Callable[[], tuple[int, float]]
) -> Iterator[list[T]]:
    """Group consecutive items, as many to a group as its bounds allow, and at least one.

    Parameters
    ----------
    items
        Read one ahead of the groups.
    size
        How large an item is.
    bounds
        Tells how many items, and what size of them all, a group may have; asked as it begins.
    """
    group: list[T] = []
    total = 0
    most, largest = 0, 0.0
    for item in items:
        item_size = size(item)
        if group and (len(group) == most or total + item_size > largest):
            yield group
            group, total = [], 0
        if not group:
            most, largest = bounds()
        group.append(item)
        total += item_size
    if group:
        yield group
