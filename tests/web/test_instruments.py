"""Instruments on the slide, in a browser: what they show is what geometry and the service say."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from service.slide import Box, open_slide
from tests.conftest import FIELD_MPP
from tests.slides import pyramid_of, write_pyramid
from tests.web.conftest import WORKED_S, Service, until
from tests.web.test_accessibility import violations
from tests.web.test_markers import screen

WIDE_PX = 8000  # wider than a window of the MAI


@pytest.fixture(scope="module")
def analysis(service: Service, slide: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """An analysis of a slide with the same field at its left and at its right end."""
    with open_slide(slide) as opened:
        field = opened.read(Box(0, 0, opened.width, opened.height))
    pixels = np.full((len(field), WIDE_PX, 3), 243, np.uint8)
    pixels[:, : field.shape[1]] = pixels[:, -field.shape[1] :] = field
    path = tmp_path_factory.mktemp("wide") / "wide.tif"
    return service.analysed(
        write_pyramid(path, pyramid_of(pixels, 3), compression="deflate", mpp=FIELD_MPP, tile_px=256)
    )


@pytest.fixture
def page(shown: Callable[..., Any], analysis: dict[str, Any]) -> Any:
    page, _ = shown(analysis)
    page.wait_for_timeout(300)
    return page


def middle(page: Any) -> tuple[float, float]:
    box = page.locator(".stage").bounding_box()
    return box["x"] + box["width"] / 2, box["y"] + box["height"] / 2


def drag(page: Any, start: tuple[float, float], *way: tuple[float, float]) -> None:
    page.mouse.move(*start)
    page.mouse.down()
    for place in way:
        page.mouse.move(*place, steps=4)
    page.mouse.up()


def power(page: Any, expected: str) -> None:
    until(page, lambda: page.locator(".magnification").inner_text() == expected)


def said(page: Any) -> str:
    return str(page.locator(".tool-panel").inner_text())


def number_in(pattern: str, text: str) -> int:
    found = re.search(pattern, text)
    assert found, text
    return int(found[1])


def test_magnifications_turns_and_the_ruler(page: Any) -> None:
    for key, expected in (("1", "\u00d75.0"), ("3", "\u00d720"), ("2", "\u00d710")):
        page.keyboard.press(key)
        power(page, expected)
    page.keyboard.press("l")
    page.get_by_text("Draw a line").wait_for()
    for turn in range(2):
        x, y = middle(page)
        drag(page, (x - 60, y), (x + 60, y + 90))
        assert number_in(r"Length (\d+) µm", said(page)) == pytest.approx(150, abs=2)  # 1 um per screen px
        page.keyboard.press("]")
        until(page, lambda turn=turn: page.get_by_text(f"{15 * (turn + 1)}°").is_visible())
    assert page.locator(".magnification").inner_text() == "\u00d710"  # also where the tool takes some of the height
    page.get_by_role("button", name="30°").click()
    page.get_by_role("button", name="0°", exact=True).wait_for()
    page.keyboard.press("Enter")
    page.keyboard.press("ArrowRight")
    page.wait_for_timeout(700)
    page.keyboard.press("Enter")
    assert number_in(r"Length (\d+) µm", said(page)) > 50
    assert violations(page) == []


def test_the_place_under_a_pointer_that_rests_follows_the_slide(page: Any) -> None:
    def place() -> str:
        return str(page.locator(".scale .place").inner_text())

    x, y = middle(page)
    page.mouse.move(x, y)
    before = place()
    page.keyboard.press("3")
    page.keyboard.press("ArrowRight")
    page.wait_for_timeout(1500)  # until it has come to rest
    after = place()
    assert number_in(r"x (-?\d+)", after) > number_in(r"x (-?\d+)", before)
    page.mouse.move(x + 1, y)
    page.mouse.move(x, y)
    assert place() == after


def test_fields_are_counted_one_after_the_other_with_ones_own_diameter(
    service: Service, page: Any, analysis: dict[str, Any]
) -> None:
    page.keyboard.press("f")
    diameter = page.get_by_label("Field diameter")
    assert float(diameter.input_value()) == 450
    diameter.fill("2000")  # more than the slide
    total = len(service.detections(analysis["id"])["detections"])
    page.get_by_role("button", name="Count this field").click()
    assert number_in(r"(\d+) mitoses in 1 field", said(page)) == total
    until(page, lambda: "of it examined tissue" in said(page))
    tissue = re.search(r"3\.14 mm², (\d\.\d\d) mm² of it examined tissue", said(page))
    assert tissue, said(page)
    report = service.running.http.get(f"/v1/analyses/{analysis['id']}/result").json()
    assert float(tissue[1]) == pytest.approx(report["tissue"]["examined_mm2"], abs=0.011)
    page.get_by_role("button", name="Field back").click()
    assert "0 mitoses in 0 fields" in said(page)
    page.reload()
    page.wait_for_selector(".figure")
    page.keyboard.press("f")
    assert page.get_by_label("Field diameter").input_value() == "2000"
    assert violations(page) == []


def test_what_a_threshold_costs_on_either_side_stands_beside_its_slider(service: Service, page: Any) -> None:
    known = service.running.http.get("/v1/models").json()
    (card,) = (each for each in known["models"] if each["id"] == known["default"])
    points = {each["threshold"]: each for each in card["operating_points"]}
    slider, beside = page.get_by_role("slider", name="Threshold"), page.locator("#threshold-words")
    assert "Measured on" not in beside.inner_text()  # it comes when it is used
    slider.focus()
    for threshold, sides in ((None, (card["threshold"],)), ("0.85", (0.8, 0.9)), ("0.4", (0.5,))):
        if threshold:
            slider.fill(threshold)
        expected = [
            f"at {each:g} it finds {100 * points[each]['recall']:.0f} of 100 mitoses ("
            + " to ".join(f"{100 * end:.0f}" for end in points[each]["recall_interval"])
            + f") and calls {points[each]['calls_per_mm2']:.1f} per mm² where there are almost none"
            for each in sides
        ]
        until(page, lambda lines=expected: beside.inner_text().splitlines()[2:] == lines)
    assert beside.get_by_role("status").last.inner_text().strip().startswith("Measured on laboratories")
    assert violations(page) == []
    page.set_viewport_size({"width": 390, "height": 800})
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    assert violations(page) == []


def test_a_hot_spot_is_dragged_and_snaps_back(service: Service, page: Any, analysis: dict[str, Any]) -> None:
    mai = service.detections(analysis["id"])["mai"]
    page.keyboard.press("0")
    page.keyboard.press("h")
    panel = page.locator(".tool-panel .line")
    until(page, lambda: panel.get_attribute("data-count") == str(mai["count"]))
    assert said(page).count(f"{mai['count']} in 1.59 mm²") == 2  # placed, and automatic
    page.wait_for_timeout(700)
    x, y = middle(page)
    drag(page, (x, y), (x - 40, y))
    until(page, lambda: panel.get_attribute("data-count") != str(mai["count"]))  # between the two fields
    assert "too little tissue for a class" in said(page)
    page.get_by_role("button", name="Snap back").click()
    until(page, lambda: panel.get_attribute("data-count") == str(mai["count"]))
    assert violations(page) == []


def test_once_more_a_part_without_a_part_of_it_and_at_another_threshold(
    service: Service, page: Any, analysis: dict[str, Any]
) -> None:
    page.get_by_role("tab", name="Again").click()
    page.get_by_role("button", name="Polygon").click()
    for key in ("Enter", "ArrowRight", "Enter", "ArrowDown", "Enter", " "):
        page.keyboard.press(key)
        page.wait_for_timeout(100)
    page.get_by_role("button", name="Take Polygon 1 away").click()
    page.keyboard.press("0")
    page.wait_for_timeout(700)
    left, middle_y = page.locator(".stage").bounding_box()["x"], middle(page)[1]
    for name, reach in (("Rectangle", 60), ("Freehand", 20)):
        page.get_by_role("button", name=name).click()
        x, y = left + 80, middle_y
        way = [(x + reach, y - reach), (x + reach, y + reach), (x - reach, y + reach)]
        drag(page, (x - reach, y - reach), *(way if name == "Freehand" else way[1:2]))
    page.get_by_label("What to do with Freehand 2").select_option("without")
    page.get_by_label("Threshold", exact=True).last.fill("0.6")
    assert violations(page) == []
    page.get_by_role("button", name="Analyse again").click()
    until(page, lambda: analysis["id"] not in page.url)
    again = service.running.wait(page.url.split("analysis=")[1].split("&")[0], WORKED_S)
    assert (again["slide_id"], again["request"]["threshold"]) == (analysis["slide_id"], 0.6)
    region = service.running.http.get(f"/v1/analyses/{again['id']}/result").json()["region"]
    outer, hole = (np.ptp(np.array(ring), axis=0) for ring in region["coordinates"])
    assert outer / hole == pytest.approx(np.array([3.0, 3.0]), rel=0.1)
    page.get_by_role("tab", name="Again").click()
    page.locator(".others a").first.wait_for()
    assert "threshold 0.6 (this one)" in page.locator(".others").inner_text()


def test_the_heat_map_is_a_density_from_afar_and_a_probability_near(page: Any) -> None:
    page.get_by_label("Heat map", exact=True).check()
    scale = page.locator(".heat-scale:visible")
    scale.get_by_text("Mitoses per mm²").wait_for()
    assert scale.locator("li").all_inner_texts() == ["0.5", "3", "8", "16+"]
    far = screen(page)
    page.uncheck("[data-layer=heatmap]")
    page.wait_for_timeout(200)
    assert (np.abs(far.astype(int) - screen(page)).max(-1) > 20).mean() > 0.01
    page.check("[data-layer=heatmap]")
    page.keyboard.press("4")
    scale.get_by_text("Probability of a mitosis").wait_for()
    assert scale.count() == 1
    assert violations(page) == []
