"""A rectangle of pixels, in whichever frame its owner says."""

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction


@dataclass(frozen=True, slots=True)
class Box:
    """A rectangle of pixels, half-open: x <= px < x + width."""

    x: int
    y: int
    width: int
    height: int

    @classmethod
    def between(cls, x: int, y: int, right: int, bottom: int) -> "Box":
        """Make the box that begins at x, y and ends before `right` and `bottom`; empty where it would end earlier."""
        return cls(x, y, max(0, right - x), max(0, bottom - y))

    @classmethod
    def square(cls, x: float, y: float, side: int) -> "Box":
        """Make the square whose centre is nearest to a place."""
        left, top = (round(Fraction(float(each)) - Fraction(side, 2)) for each in (x, y))  # not rounded twice
        return cls(left, top, side, side)

    @property
    def right(self) -> int:
        """First x past the box."""
        return self.x + self.width

    @property
    def bottom(self) -> int:
        """First y past the box."""
        return self.y + self.height

    def contains(self, x: float, y: float) -> bool:
        """Tell whether a point lies inside (half-open)."""
        return self.x <= x < self.right and self.y <= y < self.bottom

    def grown(self, margin: int) -> "Box":
        """Give a box that is larger on all four sides."""
        return Box(self.x - margin, self.y - margin, self.width + 2 * margin, self.height + 2 * margin)

    def overlap(self, other: "Box") -> "Box":
        """Find what two boxes share; without width or height if that is nothing."""
        right, bottom = min(self.right, other.right), min(self.bottom, other.bottom)
        return Box.between(max(self.x, other.x), max(self.y, other.y), right, bottom)

    @property
    def slices(self) -> tuple[slice, slice]:
        """Its rows and columns, in an array of its frame."""
        return slice(self.y, self.bottom), slice(self.x, self.right)

    def slices_of(self, part: "Box") -> tuple[slice, slice]:
        """Give rows and columns of a part of this box, in an array of the whole box."""
        left, top = part.x - self.x, part.y - self.y
        return slice(top, top + part.height), slice(left, left + part.width)

    def cells(self, width: int, height: int) -> Iterator["Box"]:
        """Go through the cells of a grid, from x, y 0 on, that the box touches."""
        for y in range(self.y // height * height, self.bottom, height):
            for x in range(self.x // width * width, self.right, width):
                yield Box(x, y, width, height)
