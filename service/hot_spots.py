"""Hot spots: the windows of a given size that hold the most mitotic figures.

Frame. Points are (n, 2) float64 arrays of x, y in um: level-0 pixels times the slide's mpp of each axis. So a window
of a given area is a true circle or rectangle on the glass, also where the two mpp differ.

A hot spot is the window of a given size that holds the most points, found exactly and anywhere: not on a grid, and
by detection density alone (the tumour's periphery cannot be known without an outline). Windows are closed, with a
relative tolerance of 1e-9 on their size: a point on the edge counts, whatever rounding did to it.

Source: Chazelle and Lee 1986 for the circle.
"""

from dataclasses import dataclass, replace
from math import inf, pi, sqrt, tau

import numpy as np
import scipy
import shapely
from numpy.typing import ArrayLike, NDArray

from service.mitotic_definitions import RECTANGLE_SIDES, WindowShape

EDGE_TOLERANCE = 1e-9  # of the window's size

Points = NDArray[np.float64]  # (n, 2) x, y in um
Members = NDArray[np.intp]  # (m,) rows of a Points array, ascending


@dataclass(frozen=True, slots=True)
class Hotspot:
    """A window and the points counted in it."""

    shape: WindowShape
    x_um: float  # centre
    y_um: float
    half_um: tuple[float, float]  # how far it reaches from its centre along x and y; both are a circle's radius
    members: tuple[int, ...] = ()  # rows of the caller's points, ascending

    @property
    def area_mm2(self) -> float:
        """Its exact area."""
        across, down = self.half_um
        return (pi if self.shape == "circle" else 4) * across * down / 1e6

    def reach(self, x_um: NDArray[np.float64], y_um: NDArray[np.float64]) -> NDArray[np.float64]:
        """Tell by which factor it must grow to reach places, of shapes that broadcast; up to 1 inside."""
        across, down = self.half_um
        dx, dy = np.abs(x_um - self.x_um) / across, np.abs(y_um - self.y_um) / down
        return np.hypot(dx, dy) if self.shape == "circle" else np.maximum(dx, dy)

    def scaled(self, factor: float, points: Points) -> "Hotspot":
        """Make it so many times as wide and high, round its centre, with the points (n, 2) that it holds then."""
        across, down = self.half_um
        window = replace(self, half_um=(across * factor, down * factor))
        members = np.flatnonzero(window.reach(points[:, 0], points[:, 1]) <= 1 + EDGE_TOLERANCE)
        return replace(window, members=tuple(members.tolist()))


def ranked_hotspots(points_um: ArrayLike, shape: WindowShape, area_mm2: float, count: int = 3) -> list[Hotspot]:
    """Return the most active window, then the most active one among the points not counted so far, and so on.

    Windows may overlap on the slide; no point is a member of two. Fewer than `count` where the points run out. Raises
    ValueError where the points are not finite (n, 2), or the area is not positive.
    """
    points, half_um = _as_points(points_um), half_sides_um(shape, area_mm2)
    rest = np.arange(len(points))
    ranked: list[Hotspot] = []
    while len(ranked) < count and (found := most_active_window(points[rest], shape, half_um)):
        members = rest[list(found.members)]
        ranked.append(replace(found, members=tuple(members.tolist())))
        rest = np.setdiff1d(rest, members)
    return ranked


def half_sides_um(shape: WindowShape, area_mm2: float) -> tuple[float, float]:
    """Compute how far the circle, or the 4:3 rectangle, of exactly this area reaches from its centre along x and y.

    Raises ValueError where the area is not positive.
    """
    if not area_mm2 > 0:
        raise ValueError(f"a window needs a positive area, not {area_mm2} mm2")
    area_um2 = area_mm2 * 1e6
    if shape == "circle":
        return (sqrt(area_um2 / pi),) * 2
    width, height = RECTANGLE_SIDES
    return sqrt(area_um2 * width / height) / 2, sqrt(area_um2 * height / width) / 2


def window_at(points_um: ArrayLike, x_um: float, y_um: float, area_mm2: float) -> Hotspot:
    """Return the circle of an area round a place, and the points that it holds.

    Raises ValueError where the points are not finite (n, 2), or the area is not positive.
    """
    return Hotspot("circle", x_um, y_um, half_sides_um("circle", area_mm2)).scaled(1.0, _as_points(points_um))


def most_active_window(points_um: ArrayLike, shape: WindowShape, half_um: tuple[float, float]) -> Hotspot | None:
    """Return a closed window, upright, that holds as many points as any of its shape and size; None without points.

    A circle's centre is that of the smallest circle round its members, so that all lie as far inside as they can; a
    rectangle is centred on their bounding box. Among equals the one with the smallest (y, x) of its centre, to 1e-6 um;
    the order of the points does not matter, and equal points count each. Raises ValueError where they are not finite
    (n, 2), or the size is not positive.
    """
    if not all(0 < half < inf for half in half_um):
        raise ValueError(f"a window needs a positive size, not {half_um} um to each side")
    given = _as_points(points_um)
    if not len(given):
        return None
    row = np.lexsort((given[:, 0], given[:, 1]))  # what follows then runs in one order: same points, same bits
    points, (across, down) = given[row], (half * (1 + EDGE_TOLERANCE) for half in half_um)
    if shape == "circle":
        centred = [(*_enclosing_centre(points[each]), each) for each in _fullest_discs(points, across)]
    else:
        centred = [(*_box_centre(points[each]), each) for each in _fullest_rectangles(points, 2 * across, 2 * down)]
    # Rounded, because the y of two circles on one row differ in their last bits, and those must not decide.
    x_um, y_um, members = min(centred, key=lambda each: (round(each[1], 6), round(each[0], 6)))
    return Hotspot(shape, x_um, y_um, half_um, tuple(np.sort(row[members]).tolist()))


def _as_points(points_um: ArrayLike) -> Points:
    points = np.asarray(points_um, dtype=np.float64)
    if points.size == 0:
        return np.empty((0, 2))
    if points.ndim != 2 or points.shape[1] != 2 or not np.isfinite(points).all():
        raise ValueError(f"points must be finite and of shape (n, 2), not {points.shape}")
    return points


def _fullest_discs(points: Points, radius: float) -> list[Members]:
    """Return the distinct largest sets of points that one closed disc holds.

    A disc with the most points can be moved until one of them lies on its rim; so all discs with a given point on
    the rim are swept, for every point that has neighbours enough.
    """
    tree = scipy.spatial.cKDTree(points)
    neighbours = tree.query_ball_point(points, 2 * radius, return_length=True)  # (n,) itself included
    most, fullest = 0, dict[bytes, Members]()
    for rim in np.argsort(-neighbours, kind="stable"):
        if neighbours[rim] < most:
            break
        near = np.array(tree.query_ball_point(points[rim], 2 * radius), dtype=np.intp)
        found = _fullest_discs_on_rim(points[near] - points[rim], radius, at_least=most)
        for chosen in found:
            members = np.sort(near[chosen])
            if len(members) > most:
                most, fullest = len(members), {}
            fullest[members.tobytes()] = members
    return list(fullest.values())


def _fullest_discs_on_rim(offsets: Points, radius: float, at_least: int) -> list[NDArray[np.bool_]]:
    """Return masks of the largest sets in a disc whose rim passes through the origin; none if below `at_least`.

    The disc's centre goes once round the origin. It holds a point at distance d while its direction is within
    acos(d / 2 radius) of that point's: an arc. The count is highest where some arc begins.
    """
    distance = np.hypot(offsets[:, 0], offsets[:, 1])
    on_rim = distance == 0  # the point itself and its duplicates: held all the way round
    if on_rim.all():
        return [on_rim] if len(offsets) >= at_least else []
    half_arc = np.arccos(np.minimum(distance / (2 * radius), 1))
    begin = np.mod(np.arctan2(offsets[:, 1], offsets[:, 0]) - half_arc, tau)
    end = begin + 2 * half_arc  # up to 3 pi: an arc over direction 0 holds again one turn later
    ends = np.sort(end[~on_rim])
    angle = np.unique(begin[~on_rim])
    begun = np.searchsorted(np.sort(begin[~on_rim]), angle, side="right")
    held = begun - np.searchsorted(ends, angle) + len(ends) - np.searchsorted(ends, angle + tau)
    most = held.max()
    if most + on_rim.sum() < at_least:
        return []
    return [on_rim | ((begin <= first) & (first <= end)) | (first + tau <= end) for first in angle[held == most]]


def _fullest_rectangles(points: Points, width: float, height: float) -> list[Members]:
    """Return the distinct largest sets of points that one closed rectangle holds; points ascend in y.

    A rectangle with the most points can be moved until its left and its lower edge (least x, least y) touch one.
    """
    x, y = points.T
    most, fullest = 0, dict[bytes, Members]()
    for left in np.unique(x):
        strip = np.flatnonzero((x >= left) & (x <= left + width))
        if len(strip) < most:
            continue
        held = np.searchsorted(y[strip], y[strip] + height, side="right") - np.arange(len(strip))
        if held.max() > most:
            most, fullest = held.max(), {}
        for lowest in np.flatnonzero(held == most):
            members = strip[lowest : lowest + most]
            fullest[members.tobytes()] = members
    return list(fullest.values())


def _box_centre(points: Points) -> tuple[float, float]:
    x_um, y_um = (points.min(axis=0) + points.max(axis=0)) / 2
    return float(x_um), float(y_um)


def _enclosing_centre(points: Points) -> tuple[float, float]:
    """Return the centre of the smallest circle round the points."""
    # taken from one of them: keeps the digits of points that lie close together far from the origin; and each once,
    # as GEOS finds no circle round one point that is given twice
    local = np.unique(points, axis=0) - points[0]
    centre = shapely.minimum_bounding_circle(shapely.multipoints(local)).centroid
    return float(points[0, 0] + centre.x), float(points[0, 1] + centre.y)
