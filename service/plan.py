"""What an analysis will look at, settled before anything is computed: all workers that share a slide plan the same."""

from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate

from service.inference import Detector
from service.parameters import Parameters
from service.slide import Box, Slide
from service.stain import StainMatch, match_stain
from service.tiling import Tile, cover
from service.tissue import TissueMask, find_tissue


@dataclass(frozen=True)
class Plan:
    """Parameters, tissue, stain, and the tiles that cover it; `key` names the map that comes of them."""

    parameters: Parameters
    tissue: TissueMask
    stain: StainMatch
    tiles: list[Tile]
    key: str

    @classmethod
    def of(
        cls,
        slide: Slide,
        detector: Detector,
        *,
        region: Box | None = None,
        threshold: float | None = None,
        halo_px: int | None = None,
    ) -> "Plan":
        """As `analyze`; raises what `Parameters.of` does, and SlideDamaged."""
        parameters = Parameters.of(slide.extent, detector.card, region=region, threshold=threshold, halo_px=halo_px)
        tissue = find_tissue(slide)
        stain = match_stain(slide, tissue, detector.stain, parameters.lattice.scale, region)
        covered = cover(parameters.lattice, region, tissue.touches, parameters.patches_per_side, parameters.halo_px)
        key = f"{slide.sha256} {detector.card.sha256} {detector.backend.precision} {parameters.geometry}"
        return cls(parameters, tissue, stain, list(covered), key)

    @cached_property
    def patches(self) -> int:
        """All patches of all tiles."""
        return sum(tile.patches for tile in self.tiles)

    def part(self, part: int, parts: int) -> list[Tile]:
        """One of several runs of neighbouring tiles with about as many patches each."""
        ends = accumulate(tile.patches for tile in self.tiles)
        return [
            tile
            for tile, end in zip(self.tiles, ends, strict=True)
            if (2 * end - tile.patches) * parts // (2 * self.patches) == part
        ]
