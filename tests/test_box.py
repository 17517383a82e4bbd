"""Boxes hold their points half-open; what two share, a part's place, and the grid's cells follow from that."""

import numpy as np
from hypothesis import example, given
from hypothesis import strategies as st

from service.box import Box

places, sizes = st.integers(-40, 40), st.integers(0, 30)
boxes = st.builds(Box, places, places, sizes, sizes)


def points(box: Box) -> set[tuple[int, int]]:
    return {(x, y) for x in range(box.x, box.right) for y in range(box.y, box.bottom)}


@given(boxes, places, places)
def test_a_box_contains_its_points_and_no_others(box: Box, x: int, y: int) -> None:
    assert box.contains(x, y) == ((x, y) in points(box))
    assert box.contains(x + 0.5, y + 0.5) == box.contains(x, y)


@given(boxes, boxes)
def test_boxes_overlap_in_the_points_of_both(one: Box, other: Box) -> None:
    assert points(one.overlap(other)) == points(one) & points(other)
    assert points(other.overlap(one)) == points(one.overlap(other))


@given(places, places, places, places)
def test_a_box_between_corners_ends_before_the_second(x: int, y: int, right: int, bottom: int) -> None:
    wanted = {(column, row) for column in range(x, right) for row in range(y, bottom)}
    assert points(Box.between(x, y, right, bottom)) == wanted


@given(st.floats(-40, 40), st.floats(-40, 40), st.integers(1, 30))
@example(0.0, -2.220446049250313e-16, 9)
def test_a_square_lies_round_its_place(x: float, y: float, side: int) -> None:
    square = Box.square(x, y, side)
    assert (square.width, square.height) == (side, side)
    assert max(abs(square.x + side / 2 - x), abs(square.y + side / 2 - y)) <= 0.5


@given(boxes, boxes)
def test_slices_cut_a_part_out_of_the_whole(whole: Box, other: Box) -> None:
    part = whole.overlap(other)
    if not points(part):
        return
    y, x = np.mgrid[whole.y : whole.bottom, whole.x : whole.right]
    cut = whole.slices_of(part)
    assert set(zip(x[cut].ravel().tolist(), y[cut].ravel().tolist(), strict=True)) == points(part)


@given(boxes, st.integers(1, 12), st.integers(1, 12))
def test_cells_are_those_of_the_grid_that_hold_a_point_of_the_box(box: Box, width: int, height: int) -> None:
    found = list(box.cells(width, height))
    assert all((cell.x % width, cell.y % height, cell.width, cell.height) == (0, 0, width, height) for cell in found)
    corners = [(cell.x, cell.y) for cell in found]
    assert len(set(corners)) == len(corners)
    if box.width and box.height:
        assert set(corners) == {(x // width * width, y // height * height) for x, y in points(box)}
