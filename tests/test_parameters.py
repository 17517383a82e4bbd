"""What an analysis is asked to do: filled in from the model, or refused with its code."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.errors import MitosisError
from service.model_card import DEFAULT_MODEL, find_model, read_card
from service.parameters import HALO_PX, MPP_TOLERANCE, Parameters, scale_to
from service.slide import Box, Extent

CARD = read_card(find_model(DEFAULT_MODEL))
EXTENT = Extent("a.svs", 4000, 3000, (0.25, 0.25))


def test_what_is_not_asked_for_is_the_models() -> None:
    found = Parameters.of(EXTENT, CARD)
    assert (found.threshold, found.halo_px, found.region, found.region_box) == (CARD.threshold, HALO_PX, None, None)
    assert found.lattice.scale == (1.0, 1.0)
    assert found.lattice.offset_px == CARD.offset_px


@pytest.mark.parametrize(
    ("given", "code"),
    [
        ({"threshold": 0.0}, "parameter-invalid"),
        ({"threshold": 1.0}, "parameter-invalid"),
        ({"threshold": float("nan")}, "parameter-invalid"),
        ({"halo_px": -CARD.architecture.stride_px}, "parameter-invalid"),
        ({"halo_px": CARD.architecture.stride_px + 1}, "parameter-invalid"),
        ({"region": Box(10, 10, 0, 50)}, "region-invalid"),
        ({"region": Box(-1, 10, 50, 50)}, "region-outside"),
        ({"region": Box(3960, 10, 50, 50)}, "region-outside"),
        ({"region": Box(10, 2999, 50, 2)}, "region-outside"),
        ({"exclude": Box(3960, 10, 50, 50)}, "region-outside"),
        ({"exclude": Box(0, 0, 4000, 3000)}, "region-invalid"),
        ({"region": Box(10, 10, 50, 50), "exclude": Box(0, 0, 60, 60)}, "region-invalid"),
    ],
)
def test_what_cannot_be_done_is_refused(given: dict[str, Any], code: str) -> None:
    with pytest.raises(MitosisError) as raised:
        Parameters.of(EXTENT, CARD, **given)
    assert raised.value.code == code


def test_what_is_excluded_is_no_part_of_the_region() -> None:
    found = Parameters.of(EXTENT, CARD, exclude=Box(0, 0, 1000, 3000))
    assert found.region_box == Box(1000, 0, 3000, 3000)
    assert found.geometry != Parameters.of(EXTENT, CARD).geometry
    both = Parameters.of(EXTENT, CARD, region=Box(0, 0, 2000, 10), exclude=Box(500, 0, 500, 10))
    assert both.region
    assert [both.region.contains(x, 5) for x in (250, 750, 1500)] == [True, False, True]


def test_the_map_depends_on_the_region_and_not_on_the_threshold() -> None:
    one, other = (Parameters.of(EXTENT, CARD, threshold=threshold) for threshold in (0.3, 0.7))
    assert one.geometry == other.geometry
    assert one.geometry != Parameters.of(EXTENT, CARD, region=Box(0, 0, 4000, 3000)).geometry
    assert one.geometry != Parameters.of(EXTENT, CARD, halo_px=0).geometry


@given(st.floats(0.2, 0.5), st.floats(0.2, 0.5))
def test_only_slides_that_are_not_near_the_models_scale_are_resampled(x: float, y: float) -> None:
    found = scale_to(0.25, (x, y))
    near = all(0.25 / (1 + MPP_TOLERANCE) < each < 0.25 * (1 + MPP_TOLERANCE) for each in (x, y))
    far = any(each < 0.25 / (1 + 2 * MPP_TOLERANCE) or each > 0.25 * (1 + 2 * MPP_TOLERANCE) for each in (x, y))
    if near and not far:
        assert found == (1.0, 1.0)
    if far:
        assert found == (0.25 / x, 0.25 / y)
