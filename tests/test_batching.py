"""Batches for a device that works by itself: what goes together, in which order it comes back, and what goes wrong."""

from collections.abc import Iterator, Sequence

import numpy as np
import pytest

from service.batching import PATIENCE, UNDER_WAY, Job, Maps, Wait, in_batches
from service.errors import DeviceFailed, SlideDamaged

INSIDE, EDGE = (1, 6, 6, 3), (1, 6, 4, 3)


class Device:
    """A device that holds so many jobs at once, and tells what it was given; a map holds its patch's first value."""

    def __init__(self, batch: int, room: int = 1000, broken_at: int | None = None) -> None:
        self.batch, self.room, self.broken_at = batch, room, broken_at
        self.shapes: list[tuple[int, ...]] = []  # of each batch
        self.waiting = self.most_waiting = 0

    def start(self, jobs: Sequence[Job]) -> Wait:
        if len(jobs) > self.room:
            raise MemoryError
        batch = np.concatenate([patch for patch, _ in jobs])
        number = len(self.shapes)
        self.shapes.append(batch.shape)
        self.waiting += 1
        self.most_waiting = max(self.waiting, self.most_waiting)

        def wait() -> Maps:
            self.waiting -= 1
            if number == self.broken_at:
                raise DeviceFailed("it fell off the bus")
            return batch[:, ::2, ::2, 0].astype(np.float32)

        return wait


def jobs_of(shapes: Sequence[tuple[int, ...]], taken: list[int] | None = None) -> Iterator[Job]:
    """A job of each shape, whose patch is full of its number."""
    for number, shape in enumerate(shapes):
        if taken is not None:
            taken.append(number)
        yield np.full(shape, number, np.uint8), np.eye(3, dtype=np.float32)


def numbers(maps: Iterator[Maps]) -> list[int]:
    return [int(each[0, 0, 0]) for each in maps]


def test_jobs_of_one_shape_go_in_full_batches_and_what_is_left_in_smaller_ones() -> None:
    device = Device(batch=4)
    shapes = [EDGE, *[INSIDE] * 5, EDGE, *[INSIDE] * 5]
    found = list(in_batches(device, jobs_of(shapes)))
    assert [int(each[0, 0, 0]) for each in found] == list(range(12))
    assert [each.shape for each in found] == [(1, 3, shape[2] // 2) for shape in shapes]
    assert device.shapes == [(4, 6, 6, 3), (4, 6, 6, 3), (2, 6, 4, 3), (2, 6, 6, 3)]


def test_a_job_of_several_patches_gets_all_their_maps() -> None:
    device, several = Device(batch=2), (8, 6, 6, 3)
    found = list(in_batches(device, jobs_of([several, INSIDE, several, several])))
    assert [np.unique(each).tolist() for each in found] == [[0], [1], [2], [3]]
    assert [len(each) for each in found] == [8, 1, 8, 8]
    assert [shape[0] for shape in device.shapes] == [16, 1, 8]


@pytest.mark.parametrize("batch", [1, 3, 16])
def test_maps_come_in_the_order_of_the_jobs(batch: int) -> None:
    shapes = [INSIDE if each else EDGE for each in np.random.default_rng(1).integers(0, 4, 200)]
    device = Device(batch)
    assert numbers(in_batches(device, jobs_of(shapes))) == list(range(200))
    assert device.most_waiting == UNDER_WAY
    assert device.waiting == 0


def test_a_tile_of_a_rare_shape_holds_up_the_others_for_some_batches_only() -> None:
    taken: list[int] = []
    maps = in_batches(Device(batch=4), jobs_of([EDGE, *[INSIDE] * 96], taken))
    assert numbers(iter([next(maps)])) == [0]
    assert len(taken) <= (PATIENCE + UNDER_WAY) * 4 + 1
    assert numbers(maps) == list(range(1, 97))


def test_what_does_not_fit_into_memory_goes_in_halves_from_then_on() -> None:
    device = Device(batch=16, room=5)
    assert numbers(in_batches(device, jobs_of([INSIDE] * 40))) == list(range(40))
    assert device.batch == 4
    assert {shape[0] for shape in device.shapes} == {4}


def test_a_device_without_room_for_one_tile_has_failed() -> None:
    with pytest.raises(DeviceFailed, match="too little memory"):
        list(in_batches(Device(batch=4, room=0), jobs_of([INSIDE] * 4)))


def test_a_device_that_breaks_off_ends_it_and_nothing_is_left_under_way() -> None:
    device = Device(batch=2, broken_at=3)
    found = []
    with pytest.raises(DeviceFailed, match="fell off"):
        found += [int(each[0, 0, 0]) for each in in_batches(device, jobs_of([INSIDE] * 40))]
    assert device.waiting == 0


def test_a_tile_that_cannot_be_read_ends_it_and_nothing_is_left_under_way() -> None:
    def damaged() -> Iterator[Job]:
        yield from jobs_of([INSIDE] * 9)
        raise SlideDamaged("tile 9")

    device = Device(batch=4)
    with pytest.raises(SlideDamaged, match="tile 9"):
        list(in_batches(device, damaged()))
    assert len(device.shapes) == 2
    assert device.waiting == 0


def test_who_stops_on_the_way_leaves_nothing_under_way() -> None:
    device = Device(batch=2)
    maps = in_batches(device, jobs_of([INSIDE] * 40))
    assert numbers(iter([next(maps), next(maps)])) == [0, 1]
    assert device.waiting > 0
    maps.close()  # type: ignore[attr-defined]  # a generator
    assert device.waiting == 0
