"""Images -> parts -> tasks: nothing lost, nothing too large, an end without a straggler."""

from __future__ import annotations

import pytest

from toolkit.images.listing import ImageObject
from toolkit.parts import Part, plan_parts, plan_tasks


def sized(count: int, size: int) -> list[ImageObject]:
    return [ImageObject(str(index), "label", size) for index in range(count)]


@pytest.mark.parametrize("count", [1, 31, 32, 33, 1_000, 20_000])
@pytest.mark.parametrize("multiply_adds", [1e6, 4e8, 4e9, 2e10])
def test_parts_hold_every_image_once_in_order(count: int, multiply_adds: float) -> None:
    parts = list(plan_parts(sized(count, 1), count=count, multiply_adds=multiply_adds))
    assert [int(image.origin) for part in parts for image in part.images] == list(range(count))
    assert [part.number for part in parts] == list(range(len(parts)))
    assert max(len(part.images) for part in parts) <= 384
    assert len(parts) >= min(count // 24, 16)  # enough of them to share out


def test_costly_networks_have_smaller_parts() -> None:
    sizes = [
        len(next(plan_parts(sized(20_000, 1), count=20_000, multiply_adds=cost)).images)
        for cost in (2e8, 2e9, 4e9)
    ]
    assert sizes == [384, 192, 96]


def test_parts_become_smaller_towards_the_end() -> None:
    parts = list(plan_parts(sized(4_000, 1), count=4_000, multiply_adds=4e9))
    sizes = [len(part.images) for part in parts]
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[0] == 96
    assert max(sizes[-5:]) <= 24
    assert all(size % 24 == 0 for size in sizes[:-1])  # whole batches


def test_parts_are_bounded_by_bytes_too() -> None:
    photos = sized(100, 10 << 20)
    parts = list(plan_parts(photos, count=100, multiply_adds=1e9))
    assert {len(part.images) for part in parts} <= {6, 4}
    huge = list(plan_parts(sized(3, 500 << 20), count=3, multiply_adds=1e9))
    assert [len(part.images) for part in huge] == [1, 1, 1]


def planned(count: int, *, slots: int, multiply_adds: float = 4e9) -> list[tuple[Part, ...]]:
    parts = plan_parts(sized(count, 1), count=count, multiply_adds=multiply_adds)
    return list(plan_tasks(parts, count=count, slots=lambda: slots))


@pytest.mark.parametrize("count", [1, 33, 1_000, 20_000])
@pytest.mark.parametrize("slots", [1, 2, 64])
def test_tasks_hold_every_part_once_in_order(count: int, slots: int) -> None:
    parts = list(plan_parts(sized(count, 1), count=count, multiply_adds=4e9))
    tasks = planned(count, slots=slots)
    assert [part for task in tasks for part in task] == parts
    assert {len(task) for task in tasks} <= {1, 2, 3, 4}


def test_tasks_are_large_while_there_is_much_to_do_and_small_at_the_end() -> None:
    tasks = planned(20_000, slots=2)
    assert {len(task) for task in tasks[:20]} == {4}
    assert len(tasks[-1]) == 1


def test_tasks_are_enough_for_every_slot() -> None:
    assert all(len(task) == 1 for task in planned(1_600, slots=64))
    assert len(planned(4_000, slots=8)) >= 32
