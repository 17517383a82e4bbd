"""What an analysis will look at, settled before anything is computed: once per slide, by whoever is first."""

import json
import math
import time
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import accumulate
from pathlib import Path
from typing import Any, Self, Unpack

import numpy as np

from service.arrays import load_arrays, save_arrays
from service.errors import StainNotHE
from service.mitotic_figures import MitoticFigure
from service.model_card import ModelCard
from service.overview import Overview
from service.parameters import PATCHES_PER_SIDE, AnalysisOptions, Parameters
from service.quality import QUALITY_ARRAYS, RULES, QualityFacts, QualityMap, assess_quality
from service.sections import Sections, estimate_stains
from service.slide import USUAL_LIGHT, Slide
from service.stain import StainEstimate, StainMatch
from service.tiling import PATCH_PX, Tile, cover
from service.tissue import TissueMask

DARK = 50  # of 255: the light of a fluorescence slide's background is below, that of glass far above
THUMBNAIL_PX = 256


@dataclass(frozen=True)
class Plan:
    """Parameters, the slide's sections and their stains, and the tiles that cover what is examined of them.

    `key` names what it was made from, and so the map.
    """

    parameters: Parameters
    quality: QualityMap
    sections: Sections  # with the tissue that can be examined
    kept: Sections  # with tissue on those alone that look like H&E, unless any stain is asked for
    examined: Sections  # of those, without what lies outside of the region
    examined_mm2: float
    stain: StainMatch
    tiles: list[Tile]
    key: str
    light: float  # grey levels; see `Slide.in_light`
    seconds: float = field(default=0.0, compare=False)  # that making or loading it took

    @classmethod
    def of(cls, slide: Slide, card: ModelCard, **options: Unpack[AnalysisOptions]) -> Self:
        """Look at the glass: for tissue, what hinders its examination, and its stains.

        Raises StainNotHE unless `any_stain` is asked for, SlideDamaged, and what `Parameters.of` does.
        """
        started = time.monotonic()
        parameters = Parameters.of(slide.extent, card, **options)
        slide.require_sound()
        slide = slide.in_colours(card.colour)
        overview = Overview.of(slide)
        quality, slide = assess_quality(slide, overview), slide.in_light(overview.light)
        sections = quality.sections
        stain = StainMatch.of(_estimates(slide, sections, parameters), card.stain_matrix())
        if not parameters.any_stain:
            _refuse_other_stains(slide, stain)
        key = _key(slide, card, parameters, stain)
        return cls._covering(parameters, quality, sections, stain, key, overview.light, started)

    @classmethod
    def load(cls, path: Path, slide: Slide, card: ModelCard, **options: Unpack[AnalysisOptions]) -> Self:
        """Read a saved plan. Raises ValueError where it is damaged or another's, and as `Parameters.of`."""
        started = time.monotonic()
        parameters = Parameters.of(slide.extent, card, **options)
        facts_json, labels, *arrays = load_arrays(path, "plan", "facts", "sections", *QUALITY_ARRAYS)
        facts = json.loads(str(facts_json))
        stain = StainMatch.of([each and StainEstimate.from_json(each) for each in facts["stains"]], card.stain_matrix())
        light = float(facts.get("light", USUAL_LIGHT))
        key = _key(slide.in_light(light), card, parameters, stain)
        if facts["key"] != key:
            raise ValueError(f"{path} is of another analysis")
        quality = QualityMap.from_arrays(*arrays)
        return cls._covering(parameters, quality, Sections(quality.examinable, labels), stain, key, light, started)

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
        """Write what cannot be derived; a power cut may take it. Raises StorageFull, OutputUnwritable."""
        facts = {"key": self.key, "light": self.light, "stains": self.stain.as_json()}
        arrays = {"facts": json.dumps(facts), "sections": self.sections.labels, **self.quality.as_arrays()}
        save_arrays(path, compressed=True, durable=False, **arrays)

    @property
    def tissue(self) -> TissueMask:
        """The tissue that is kept, of the whole slide."""
        return self.kept.tissue

    @property
    def counted_on(self) -> QualityMap:
        """The quality map with tissue on the sections that are kept: on it a review counts anew, as the report did."""
        if self.parameters.any_stain or all(self.stain.is_he):
            return self.quality
        tissue = Sections(self.quality.tissue, self.sections.labels).keep(self.stain.is_he).tissue
        return replace(self.quality, tissue=tissue)

    def examines(self, figure: MitoticFigure) -> bool:
        """Tell whether a figure lies in the region, on a section that is examined, and where nothing hinders that."""
        region = self.parameters.region
        if region is not None and not region.contains(figure.x, figure.y):
            return False
        if self.quality.hinders(figure.x, figure.y):
            return False
        return self.parameters.any_stain or self.stain.is_he[self.sections.of_place(figure.x, figure.y)]

    def stain_report(self) -> list[dict[str, Any]]:
        """Give the report's `parameters.stain`: what is known of each section's stains, to four digits."""
        return [
            {"section": number, "area_mm2": round(area_mm2, 4), "examined": self.parameters.any_stain or is_he}
            | (estimate.as_report() if estimate else {})
            for number, (area_mm2, is_he, estimate) in enumerate(
                zip(self.sections.areas_mm2, self.stain.is_he, self.stain.estimates, strict=True), start=1
            )
        ]

    @cached_property
    def quality_facts(self) -> QualityFacts:
        """What cannot be examined, in the region."""
        return self.quality.facts(self.parameters.region)

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
    def _covering(
        cls,
        parameters: Parameters,
        quality: QualityMap,
        sections: Sections,
        stain: StainMatch,
        key: str,
        light: float,
        started: float,
    ) -> Self:
        kept = sections if parameters.any_stain else sections.keep(stain.is_he)
        tissue, examined_mm2 = kept.tissue.examined(parameters.region)
        examined = Sections(tissue, kept.labels)
        lattice, around = parameters.lattice, parameters.region_box
        tiles = list(cover(lattice, around, tissue.touches, PATCHES_PER_SIDE, parameters.halo_px, kept.under))
        seconds = time.monotonic() - started
        return cls(parameters, quality, sections, kept, examined, examined_mm2, stain, tiles, key, light, seconds)


def _key(slide: Slide, card: ModelCard, parameters: Parameters, stain: StainMatch) -> str:
    model = f"{card.sha256} {card.colour} stains {stain.checksum}"
    light = "" if slide.light is None else f" light {slide.light}"
    return f"{slide.sha256} {model}{light} glass {RULES} mpp {parameters.mpp} {parameters.geometry}"


def _estimates(slide: Slide, sections: Sections, parameters: Parameters) -> list[StainEstimate | None]:
    """Estimate the stains of all sections that a patch may lie on; of the whole section, also for a small region."""
    scale, region = parameters.lattice.scale, parameters.region_box
    around = region and region.grown(math.ceil(PATCH_PX * max(scale)))
    return [
        estimate_stains(slide, tissue, scale) if around is None or tissue.touches(around) else None
        for tissue in sections.tissues()
    ]


def _refuse_other_stains(slide: Slide, stain: StainMatch) -> None:
    """Raise StainNotHE where no section is of H&E, or where there is nothing but the dark of fluorescence."""
    looked_at = [each for each in stain.estimates if each is not None]
    if any(each.windows and each.is_he for each in looked_at):
        return
    if judged := [each for each in looked_at if each.windows]:
        share = min(each.left_out for each in judged)
        reason = f"{share:.0%} of the tissue does not look stained with haematoxylin and eosin"
    elif np.median(slide.thumbnail(THUMBNAIL_PX).max(-1)) < DARK:
        reason = "the slide is dark where there is no tissue, as in fluorescence"
    else:
        return
    raise StainNotHE(f"{slide.name}: {reason}; ask for any stain (--any-stain) to analyse it all the same")
