"""Changes from one look at a mitosis to the next: place, orientation, sharpness, stain, light.

Frames. Model px: a field's pixels at the model's um per pixel, pixel centres at whole numbers. Patch px: the same of
a patch; a Placement takes one to the other by a rotation or reflection about the patch's centre.

Label. A mitosis belongs to a patch if its centroid lies at least `margin_px` inside it, and not if it lies at least
as far outside. Between the two it is cut by the border: a patch with nothing but cut mitoses has no label, and is
not trained on.

Stain and light change optical densities by one matrix and one shift, which also carries the Macenko normalisation:
the network's input is computed once, in floating point, on the device that trains.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional

from service.box import Box
from service.model_card import Normalisation
from service.slide import Rgb
from service.stain import LIGHT, StainMatrix, density_transform
from service.training.fields import Points
from service.training.recipe import Augmentation

Planes: TypeAlias = npt.NDArray[np.uint8]  # (3, H, W): what the network reads, and twice as fast to make as (H, W, 3)

IMAGENET = Normalisation(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
GLASS = 255  # what lies beyond a field, as `Slide` has it
RIGHT_ANGLE = math.pi / 2
BLOCK_PIXELS = 1 << 16
EDGE_PX = 8  # of a patch, that is always mirrored where anything is
WHOLE_PX = 28  # from the line of a reflection: a mitosis as far inside is whole
TRIES = 8  # lines drawn before a patch is left as it is


@dataclass(frozen=True, slots=True)
class Orientation:
    """A reflection (x turned round, first), a rotation (radians, clockwise on the screen) and field px per patch px."""

    angle: float = 0.0
    mirrored: bool = False
    scale: float = 1.0

    @property
    def matrix(self) -> npt.NDArray[np.float64]:
        """The matrix (2, 2) from patch px about its centre to field px about its centre."""
        cos, sin = self.scale * math.cos(self.angle), self.scale * math.sin(self.angle)
        return np.array([[cos, -sin], [sin, cos]]) @ np.diag([-1.0 if self.mirrored else 1.0, 1.0])

    @property
    def quarter_turns(self) -> int | None:
        """The number of right angles; None for any other angle, and where pixels are not whole."""
        turns = round(self.angle / RIGHT_ANGLE)
        return turns % 4 if turns * RIGHT_ANGLE == self.angle and self.scale == 1 else None

    def reach(self, size_px: int) -> float:
        """Compute half the side (px) of the upright square round the turned patch."""
        if self.quarter_turns is not None:
            return size_px / 2
        turned = abs(math.cos(self.angle)) + abs(math.sin(self.angle))
        return self.scale * size_px / 2 * turned + 1  # bilinear: one px more


@dataclass(frozen=True, slots=True)
class Placement:
    """The place of a square patch in a field: its centre (x, y; model px), orientation and side (px)."""

    centre: tuple[float, float]
    orientation: Orientation
    size_px: int

    @classmethod
    def snapped(cls, centre: npt.NDArray[np.float64], orientation: Orientation, size_px: int) -> "Placement":
        """Place a patch as given, but on whole pixels where the orientation needs no resampling."""
        if orientation.quarter_turns is not None:
            centre = np.rint(centre - (size_px - 1) / 2) + (size_px - 1) / 2
        return cls((float(centre[0]), float(centre[1])), orientation, size_px)

    def to_patch(self, points: Points) -> Points:
        """Take points (n, 2) from model px to patch px."""
        middle = (self.size_px - 1) / 2
        # the inverse of a scaled turn is its transpose over the square of the scale
        return (points - self.centre) @ self.orientation.matrix / self.orientation.scale**2 + middle

    def to_field(self, points: Points) -> Points:
        """Take points (n, 2) from patch px to model px."""
        middle = (self.size_px - 1) / 2
        return (points - middle) @ self.orientation.matrix.T + self.centre

    def inside(self, points: Points) -> Points:
        """Keep the points (n, 2; model px) that lie in the patch, in patch px."""
        points = self.to_patch(points)
        return np.asarray(points[((points >= 0) & (points <= self.size_px - 1)).all(1)])

    def label(self, mitoses: Points, margin_px: float) -> bool | None:
        """Tell whether a mitosis (model px) is inside; None if all that are near are cut by the border."""
        middle = (self.size_px - 1) / 2
        distance = np.abs(self.to_patch(mitoses) - middle).max(1, initial=0.0) - self.size_px / 2  # > 0: outside
        if (distance <= -margin_px).any():
            return True
        return None if (distance < margin_px).any() else False


def draw_orientation(rng: np.random.Generator, augmentation: Augmentation, *, exact: bool = False) -> Orientation:
    """Draw an orientation; `exact`: one that needs no resampling."""
    mirrored = augmentation.flips and bool(rng.integers(2))
    if rng.random() < augmentation.free_rotation and not exact:
        scale = math.exp(math.log(1 + augmentation.zoom) * rng.uniform(-1, 1)) if augmentation.zoom else 1.0
        return Orientation(float(rng.uniform(0, 2 * math.pi)), mirrored, scale)
    return Orientation(int(rng.integers(4)) * RIGHT_ANGLE if augmentation.flips else 0.0, mirrored)


def cut(pixels: Rgb, placement: Placement) -> Planes:
    """Cut the patch at a place of a field (H, W, 3), as planes (3, size, size); white where there is no field."""
    orientation, size = placement.orientation, placement.size_px
    turns = orientation.quarter_turns
    if turns is None:
        return _turned(pixels, placement)
    left, top = (round(centre - (size - 1) / 2) for centre in placement.centre)
    turned = np.rot90(_window(pixels, Box(left, top, size, size)), turns)
    patch = np.empty((3, size, size), np.uint8)
    for channel in range(3):  # one at a time: numpy copies runs of three bytes slowly
        patch[channel] = turned[:, ::-1, channel] if orientation.mirrored else turned[..., channel]
    return patch


def _turned(pixels: Rgb, placement: Placement) -> Planes:
    """Cut a patch that is turned by any angle, bilinear."""
    size, half = placement.size_px, math.ceil(placement.orientation.reach(placement.size_px)) + 1
    left, top = (math.floor(centre) - half for centre in placement.centre)
    side = 2 * half + 2
    window = torch.from_numpy(_window(pixels, Box(left, top, side, side)).astype(np.float32))[None].permute(0, 3, 1, 2)
    steps = (torch.arange(size) - (size - 1) / 2) * (2 / side)  # grid_sample's frame: -1 to 1 over the window
    middle = (np.array(placement.centre) + 0.5 - (left, top)) * (2 / side) - 1
    grid = torch.empty(1, size, size, 2)
    for axis, (by_column, by_row) in enumerate(placement.orientation.matrix.tolist()):
        torch.add(steps * by_column, (steps * by_row + middle[axis])[:, None], out=grid[0, ..., axis])
    patch: Planes = functional.grid_sample(window, grid, align_corners=False)[0].add_(0.5).to(torch.uint8).numpy()
    return patch


def _window(pixels: Rgb, box: Box) -> Rgb:
    """Cut an upright part of a field, white beyond it."""
    part = box.overlap(Box(0, 0, *pixels.shape[1::-1]))
    if part == box:
        return pixels[box.slices]
    window = np.full((box.height, box.width, 3), GLASS, np.uint8)
    window[box.slices_of(part)] = pixels[part.slices]
    return window


def blur(patch: Planes, sigma_px: float) -> Planes:
    """Blur planes (3, H, W) by a Gaussian that ends at two and a half sigma; edges are repeated."""
    radius = max(1, math.ceil(2.5 * sigma_px))
    weights = np.exp(-0.5 * (np.arange(radius + 1) / sigma_px) ** 2)
    weights /= weights[0] + 2 * weights[1:].sum()
    x = torch.from_numpy(patch).float()
    for axis in (1, 2):
        length = x.shape[axis]
        padding = (0, 0, radius, radius) if axis == 1 else (radius, radius, 0, 0)
        padded = functional.pad(x, padding, mode="replicate")
        x = padded.narrow(axis, radius, length) * float(weights[0])
        for shift in range(1, radius + 1):
            x.add_(padded.narrow(axis, radius - shift, length), alpha=float(weights[shift]))
            x.add_(padded.narrow(axis, radius + shift, length), alpha=float(weights[shift]))
    blurred: Planes = x.add_(0.5).clamp_(0, 255).to(torch.uint8).numpy()
    return blurred


def draw_reflection(rng: np.random.Generator, augmentation: Augmentation, patch: Planes, mitoses: Points) -> Planes:
    """Replace one or two sides of a share of all patches, each beyond a random line, by the mirror image of the rest.

    A crop that is padded with its own mirror image has such lines, and a nucleus that they cut looks like a figure in
    division. Of mitoses (n, 2; patch px), where there are any, one at least stays whole.
    """
    if rng.random() >= augmentation.reflection:
        return patch
    size = patch.shape[1]
    for _ in range(TRIES):
        lines, turned = rng.integers(size // 2, size - EDGE_PX, 2), rng.integers(2, size=2).astype(bool)
        lines[rng.permutation(2)[: int(rng.integers(2))]] = size  # half have one line, half two
        along = np.where(turned, size - 1 - mitoses, mitoses)
        if len(mitoses) and not (along <= np.where(lines < size, lines - WHOLE_PX, size)).all(1).any():
            continue
        for axis, line in enumerate(lines):
            index = np.arange(size)
            index[line:] = 2 * line - index[line:]
            patch = patch.take(size - 1 - index[::-1] if turned[axis] else index, 2 - axis)
        return patch
    return patch


def draw_blur(rng: np.random.Generator, augmentation: Augmentation, patch: Planes) -> Planes:
    """Blur a share of all patches, each by its own sigma."""
    if rng.random() >= augmentation.blur:
        return patch
    return blur(patch, float(rng.uniform(*augmentation.blur_sigma_px)))


@dataclass(frozen=True, slots=True)
class Colour:
    """A change of optical densities: density' = matrix (3, 3) @ density + shift (3,)."""

    matrix: npt.NDArray[np.float32]
    shift: npt.NDArray[np.float32]


def match_colour(source: StainMatrix | None, reference: StainMatrix | None) -> Colour:
    """Compute Macenko's normalisation alone; the identity where there is no reference or no estimate."""
    if source is None or reference is None:
        return Colour(np.eye(3, dtype=np.float32), np.zeros(3, np.float32))
    return Colour(density_transform(source, reference), np.zeros(3, np.float32))


def draw_colour(
    rng: np.random.Generator,
    augmentation: Augmentation,
    source: StainMatrix | None,
    reference: StainMatrix | None,
    others: Sequence[StainMatrix] = (),
) -> Colour:
    """Draw a normalisation to the reference with jitter: each stain's gain and shift, and brightness.

    Without a reference the source's own stains are jittered; without either only the brightness is. `others`: stains
    that the wanted ones may be moved towards.
    """
    gain = 1 + augmentation.stain_gain * rng.uniform(-1, 1, 2)
    offset = augmentation.stain_shift * rng.uniform(-1, 1, 2)
    light = -math.log(1 + augmentation.brightness * rng.uniform(-1, 1))
    stains = reference if reference is not None else source
    if stains is None:
        return Colour(np.eye(3, dtype=np.float32), np.full(3, light, np.float32))
    present = source if source is not None else stains
    if others and rng.random() < augmentation.restain:
        stains = _between(stains, others[int(rng.integers(len(others)))], rng.uniform())
    shift = stains.matrix @ (offset * stains.max_concentrations) + light
    matrix = density_transform(present, StainMatrix(stains.matrix, stains.max_concentrations * gain))
    if source is None or reference is None:  # nothing is normalised: what is neither stain stays as it is
        matrix += (np.eye(3) - present.matrix @ np.linalg.pinv(present.matrix)).astype(np.float32)
    return Colour(matrix, shift.astype(np.float32))


def _between(one: StainMatrix, other: StainMatrix, part: float) -> StainMatrix:
    """Mix stains: a part of the way from one to the other."""
    matrix = (1 - part) * one.matrix + part * other.matrix
    greatest = (1 - part) * one.max_concentrations + part * other.max_concentrations
    return StainMatrix(matrix / np.linalg.norm(matrix, axis=0), greatest)


def network_input(patches: Tensor, matrices: Tensor, shifts: Tensor) -> Tensor:
    """Compute normalised RGB (B, 3, H, W) float32 from planes (B, 3, H, W) uint8 and changes of their densities.

    Matrices (B, 3, 3) and shifts (B, 3) are those of `Colour`.

    With a zero shift, what `PatchNetwork` computes of the same patch and transform. The light's logarithm is taken
    out of the densities, and pixels go through in blocks that stay in a core's cache.
    """
    batch, _, height, width = patches.shape
    mean, std = (torch.tensor(values, device=patches.device)[:, None] * 255 for values in (IMAGENET.mean, IMAGENET.std))
    offsets = math.log(LIGHT) * (1 - matrices.sum(2)) - shifts  # (B, 3)
    x = torch.empty((batch, 3, height * width), device=patches.device)
    for index, planes in enumerate(patches.reshape(batch, 3, -1)):
        for start in range(0, height * width, BLOCK_PIXELS):
            block = slice(start, start + BLOCK_PIXELS)
            logarithms = planes[:, block].float().add_(1).log_()
            light = torch.addmm(offsets[index][:, None], matrices[index], logarithms).exp_().clamp_(1, 256)
            torch.div(light.sub_(mean + 1), std, out=x[index, :, block])
    return x.view(batch, 3, height, width)
