"""The slide at low magnification, and the light that it was scanned with.

Frames. A mask px is MASK_UM wide and high; four fine px (2 x 2) make one. Thin walls and the rims of small islands are
measured on the fine ones, everything else on their means.
"""

import math
from dataclasses import dataclass
from typing import Self

import numpy as np
import numpy.typing as npt
import scipy
from PIL import Image

from service.slide import USUAL_LIGHT, Box, Rgb, Slide

MASK_UM = 8.0  # a nucleus is about one pixel
FLAT = 1.5  # grey levels: glass deviates less within 40 um, tissue more (on 99.9 % of the fields at hand)
FLAT_PX = 5
LEAST_SHARE = 0.01  # of all pixels, for a colour to be that of the glass
MOST_COLOURS = 200_000  # that are looked at: glass is millions of pixels
DARKEST_GLASS = 128
TINT = 0.4  # most optical density between a lamp's channels; inks have more
GREENLESS = 0.075  # most optical density of green over the mean of red and blue: a lamp's tint has less, eosin more
FILLED = 254  # from here on white is what scanners write where they did not scan
DENSEST = 3.0  # a twentieth of the light: no tissue has more, and what is less is mostly noise
DAYLIGHT = 245.0  # glass, where none can be seen
# Glass of which no channel reaches DIM is scanned darker than by any scanner: at 0.8 of the usual light 7 of 18 figures
# were missing, at 0.7 13. Where no glass is seen, the brightest thousandth tells: of 60 fields it is 161 and more.
DIM, DIM_BRIGHTEST, BRIGHTEST = 225.0, 150.0, 99.9
DARKEST_LIGHT = 64.0  # below is no light but fluorescence
LOG = np.log(np.arange(1, 257, dtype=np.float32))  # of light, which is one more than what a pixel says


@dataclass(frozen=True, slots=True)
class Overview:
    """A slide's pixels at MASK_UM and at half of it, and the colour of its glass."""

    pixels: Rgb  # (h, w, 3)
    fine: Rgb  # (2h, 2w, 3)
    glass: npt.NDArray[np.float32]  # (3,)
    light: float  # grey levels: of the glass's brightest channel, or USUAL_LIGHT where it is not dim
    scale: tuple[float, float]  # level-0 px per mask px
    mpp: tuple[float, float]  # um per level-0 px

    @classmethod
    def of(cls, slide: Slide) -> Self:
        """Look at a slide whose mpp is known; raises as `Slide.require_mpp` and `Slide.read` do."""
        mpp = slide.require_mpp()
        scale = (MASK_UM / mpp[0], MASK_UM / mpp[1])
        width, height = math.ceil(slide.width / scale[0]), math.ceil(slide.height / scale[1])
        fine = slide.read_large(Box(0, 0, 2 * width, 2 * height), (scale[0] / 2, scale[1] / 2))
        return cls.of_pixels(fine, scale, mpp)

    @classmethod
    def of_pixels(cls, fine: Rgb, scale: tuple[float, float], mpp: tuple[float, float]) -> Self:
        """Take fine px (2h, 2w, 3) as a slide's overview."""
        pixels = np.asarray(Image.fromarray(fine).reduce(2))
        flat = _flat_glass(pixels)
        glass = _brightest_colour(pixels) if flat is None else flat
        return cls(pixels, fine, glass, _light(pixels, flat), scale, mpp)

    def density(self) -> npt.NDArray[np.float32]:
        """Give the optical density (natural) of each channel over that of the glass, (h, w, 3)."""
        tables = (np.log(self.glass + 1)[:, None] - LOG).clip(0, DENSEST).astype(np.float32)
        channels = [tables[channel][self.pixels[..., channel]] for channel in range(3)]
        return np.moveaxis(np.stack(channels), 0, -1)  # each channel in one piece: what follows is twice as fast


def _light(pixels: Rgb, flat: npt.NDArray[np.float32] | None) -> float:
    """Measure the light that a slide was scanned with, if it is dim."""
    inner = pixels[2:-2, 2:-2]  # the outermost px are mixed with the white beyond the slide
    scanned = inner[inner.min(-1) < FILLED]
    seen = flat.max() if flat is not None else np.percentile(scanned.max(-1), BRIGHTEST) if len(scanned) else 0.0
    return float(seen) if DARKEST_LIGHT < seen < (DIM_BRIGHTEST if flat is None else DIM) else USUAL_LIGHT


def _flat_glass(pixels: Rgb) -> npt.NDArray[np.float32] | None:
    """Find what the light is without tissue, (3,), in an image of MASK_UM per pixel; None where no place is flat.

    Glass is flat: it is the brightest colour that flat places share, if a lamp can have it.
    """
    flat, part = _flat_colours(pixels)
    scanned = flat[flat.min(-1) < FILLED]
    for candidates in (scanned, flat):
        found = _brightest_mode(candidates, LEAST_SHARE * part * pixels.size / 3)
        if found is not None:
            return found
    return None


def _brightest_colour(pixels: Rgb) -> npt.NDArray[np.float32]:
    """Give the median of bright colourless pixels, (3,), for the light; where these are few, white."""
    brightest, darkest = pixels.max(-1).astype(np.int16), pixels.min(-1).astype(np.int16)
    bright = pixels[(darkest > 205) & (brightest - darkest < 20)]
    if len(bright) < LEAST_SHARE * brightest.size:
        return np.full(3, DAYLIGHT, np.float32)
    return np.asarray(np.median(bright, axis=0), np.float32)


def _flat_colours(pixels: Rgb) -> tuple[Rgb, float]:
    """Find bright pixels (n, 3) round which nothing changes, of a colour that light may have; and which part of all."""
    deviation = np.zeros(pixels.shape[:2], np.float32)
    for channel in range(3):
        values = pixels[..., channel].astype(np.float32)
        mean = scipy.ndimage.uniform_filter(values, FLAT_PX)
        np.maximum(deviation, scipy.ndimage.uniform_filter(values * values, FLAT_PX) - mean * mean, out=deviation)
    places = np.flatnonzero((deviation < FLAT**2) & (pixels.min(-1) >= DARKEST_GLASS))
    step = 1 + len(places) // MOST_COLOURS
    colours = pixels.reshape(-1, 3)[places[::step]]
    light = LOG[colours]
    tinted = (np.ptp(light, -1) <= TINT) & (light[:, (0, 2)].mean(-1) - light[:, 1] <= GREENLESS)
    return np.asarray(colours[tinted], np.uint8), 1 / step


def _brightest_mode(colours: Rgb, least: float) -> npt.NDArray[np.float32] | None:
    """Give the median of the brightest group of colours (n, 3) that has enough members."""
    if len(colours) < max(1.0, least):
        return None
    brightness = colours.mean(-1).astype(np.intp)
    counts = scipy.ndimage.uniform_filter1d(np.bincount(brightness, minlength=257).astype(np.float64), 5) * 5
    common = np.flatnonzero(counts >= max(1.0, least))
    if not len(common):
        return None
    top = common[-1]
    best = top - 8 + int(counts[max(0, top - 8) : top + 1].argmax()) if top >= 8 else int(top)
    return np.asarray(np.median(colours[np.abs(brightness - best) <= 3], axis=0), np.float32)
