"""What an analysis will look at, settled before anything is computed: once per slide, by whoever is first."""

import json
import time
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import accumulate
from pathlib import Path
from typing import Self, Unpack

from service.arrays import load_arrays, save_arrays
from service.model_card import ModelCard
from service.parameters import AnalysisOptions, Parameters
from service.slide import Slide
from service.stain import StainMatch, match_stain
from service.tiling import Tile, cover
from service.tissue import MASK_ARRAYS, TissueMask, find_tissue


@dataclass(frozen=True)
class Plan:
    """Parameters, tissue, stain, and the tiles that cover it. `key` names what it was made from, and so the map."""

    parameters: Parameters
    tissue: TissueMask
    examined: TissueMask  # without what lies outside of outlines
    examined_mm2: float  # in the region
    stain: StainMatch
    tiles: list[Tile]
    key: str
    seconds: float = field(default=0.0, compare=False)  # that making or loading it took

    @classmethod
    def of(cls, slide: Slide, card: ModelCard, **options: Unpack[AnalysisOptions]) -> Self:
        """Look for the slide's tissue and its stains. Raises what `Parameters.of` does, and SlideDamaged."""
        started = time.monotonic()
        parameters = Parameters.of(slide.extent, card, **options)
        slide = slide.in_colours(card.colour)
        tissue = find_tissue(slide)
        stain = match_stain(slide, tissue, card.stain_matrix(), parameters.lattice.scale, parameters.region)
        return cls._covering(parameters, tissue, stain, _key(slide, card, parameters), started)

    @classmethod
    def load(cls, path: Path, slide: Slide, card: ModelCard, **options: Unpack[AnalysisOptions]) -> Self:
        """Read a saved plan. Raises ValueError where it is damaged or another's, and as `Parameters.of`."""
        started = time.monotonic()
        parameters = Parameters.of(slide.extent, card, **options)
        facts_json, *mask = load_arrays(path, "plan", "facts", *MASK_ARRAYS)
        facts, key = json.loads(str(facts_json)), _key(slide, card, parameters)
        if not isinstance(facts, dict) or facts.get("key") != key:
            raise ValueError(f"{path} is of another analysis")
        stain = StainMatch.from_json(facts["stain"], card.stain_matrix())
        return cls._covering(parameters, TissueMask.from_arrays(*mask), stain, key, started)

    @classmethod
    def load_or_make(cls, path: Path, slide: Slide, card: ModelCard, **options: Unpack[AnalysisOptions]) -> Self:
        """Read the plan if there is one of the same analysis; else make it and save it, for all who come after.

        Raises as `of`, and StorageFull, OutputUnwritable where it cannot be saved.
        """
        with suppress(ValueError):
            return cls.load(path, slide, card, **options)
        plan = cls.of(slide, card, **options)
        plan.save(path)
        return plan

    def save(self, path: Path) -> None:
        """Write what cannot be derived, whole or not at all. Raises StorageFull, OutputUnwritable."""
        facts = {"key": self.key, "stain": self.stain.as_json()}
        save_arrays(path, compressed=True, facts=json.dumps(facts), **self.tissue.as_arrays())

    @cached_property
    def patches(self) -> int:
        """All patches of all tiles."""
        return sum(tile.patches for tile in self.tiles)

    def part(self, part: int, parts: int) -> Self:
        """Return the plan of one of several runs of neighbouring tiles, with about as many patches each."""
        ends = accumulate(tile.patches for tile in self.tiles)
        tiles = [
            tile
            for tile, end in zip(self.tiles, ends, strict=True)
            if (2 * end - tile.patches) * parts // (2 * self.patches) == part
        ]
        return replace(self, tiles=tiles)

    @classmethod
    def _covering(cls, parameters: Parameters, tissue: TissueMask, stain: StainMatch, key: str, started: float) -> Self:
        side, halo_px = parameters.patches_per_side, parameters.halo_px
        examined, examined_mm2 = tissue.examined(parameters.region)
        tiles = list(cover(parameters.lattice, parameters.region_box, examined.touches, side, halo_px))
        return cls(parameters, tissue, examined, examined_mm2, stain, tiles, key, time.monotonic() - started)


def _key(slide: Slide, card: ModelCard, parameters: Parameters) -> str:
    return f"{slide.sha256} {card.sha256} {card.colour} mpp {parameters.mpp} {parameters.geometry}"
