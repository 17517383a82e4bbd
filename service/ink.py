"""Ink and pigment: colours that haematoxylin and eosin do not give, or not over an even area.

Haematoxylin absorbs green most and red hardly as much, eosin green only. So blue, green and black pens are told by red,
which they absorb more. Red, brown and violet ones have colours that blood, saffron or dense eosin have here and there;
what tells them is that tissue is nowhere as even as ink. The limits were chosen on 700,000 mask px of tissue of six
collections of fields, of which none is taken for ink.
"""

import numpy as np
import numpy.typing as npt
import scipy

Density = npt.NDArray[np.float32]  # (h, w, 3), of red, green, blue over the glass
Mask = npt.NDArray[np.bool_]  # (h, w)

BLACK = 1.386  # density of every channel: a quarter of the light
COLOURLESS = 0.3  # of the densest channel, to the least dense one: folded tissue is as dark, but purple
EVEN = 0.015  # deviation of the density, of its mean, within 24 um or along 56 um
ALMOST_EVEN = 0.03  # for colours that tissue seldom has: blood deviates more
VISIBLE = 0.3  # density of the three channels together
COLOURED = 0.15  # density between the channels; shadows have less
LEAST_PX = 10  # neighbours that agree
FADING_PX = 10  # how far a pen that dries up is followed
FRINGE_PX = 2  # the half-covered px round ink look like pale tissue
EIGHT = np.ones((3, 3), bool)


def find_ink(density: Density) -> Mask:
    """Find pen, ink and pigment in an overview's optical densities, with their fringes; (h, w)."""
    red, green, blue = np.moveaxis(density, -1, 0)
    total, most, least = red + green + blue, density.max(-1), density.min(-1)
    coloured = (most - least > COLOURED) & (total > VISIBLE)
    unevenness = _unevenness(total)
    cold = red > np.minimum(1.25 * green + 0.05, 0.8 * green + 0.24)
    red_pen = ((blue > 0.85 * green) & (green > 0.5) & (red < 0.35 * green)) | ((green > 1.6) & (red < 0.22 * green))
    brown = blue > 1.1 * green + 0.05
    violet = (blue < 0.27 * green) & (green > 0.5)
    seldom = red_pen | brown | violet | (green > 2.4)
    indigo = (blue < 0.35 * green) & (green > 1.5)
    rather = (red > 0.75 * green + 0.12) | (blue > 0.8 * green) | (red < 0.05 * green) | indigo
    even = coloured & ((seldom & (unevenness < ALMOST_EVEN)) | (rather & (unevenness < EVEN)))
    ink = (cold & (total > VISIBLE)) | ((least > BLACK) & (most - least < COLOURLESS * most))
    areas = areas_of(ink) | areas_of(even)
    fading = (red > 0.7 * green + 0.12) & (total > VISIBLE)
    areas |= scipy.ndimage.binary_dilation(areas, EIGHT, FADING_PX, mask=fading)
    return np.asarray(ink | scipy.ndimage.binary_dilation(areas, EIGHT, FRINGE_PX), bool)


def _unevenness(total: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Tell how much the density changes round each px, as a part of it: in a square or along a line, the lesser."""
    least = np.full(total.shape, np.inf, np.float32)
    squares = total * total
    for window in ((3, 3), (1, 7), (7, 1)):
        mean = scipy.ndimage.uniform_filter(total, window)
        variance = scipy.ndimage.uniform_filter(squares, window) - mean * mean
        np.minimum(least, np.sqrt(variance.clip(0)) / mean.clip(0.05), out=least)
    return least


def areas_of(mask: Mask) -> Mask:
    """Keep the connected parts of a mask (h, w) that have LEAST_PX."""
    labels, count = scipy.ndimage.label(mask, EIGHT)
    large = np.bincount(labels.ravel(), minlength=count + 1) >= LEAST_PX
    large[0] = False
    return np.asarray(large[labels], bool)
