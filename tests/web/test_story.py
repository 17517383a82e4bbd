"""The whole story in a browser: send, follow, look, decide, sign, export; the page's numbers are the service's."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.web.conftest import WORKED_S, Service, until


def count(page: Any, what: str = "total") -> int:
    return int(page.locator(f".summary [data-count={what}]").inner_text().replace(",", ""))


def saved(page: Any) -> None:
    page.locator(".summary").get_by_text("all saved").wait_for()


def decisions(service: Service, analysis: dict[str, Any]) -> dict[int, str]:
    found = service.detections(analysis["id"])["detections"]
    return {each["id"]: each["decision"] for each in found if each["decision"]}


def test_from_the_upload_to_the_export(
    service: Service, slide: Path, open_page: Callable[..., Any], tmp_path: Path
) -> None:
    page = open_page()

    page.set_input_files("#files", slide)
    line = page.locator(".new-slide", has_text="field.tif")
    line.get_by_label("Accession number").fill("H26-1042")
    line.get_by_role("button", name="Analyse").click()  # while it is uploaded, or after that
    row = page.locator("tbody tr", has_text="H26-1042")
    row.get_by_text("not signed").wait_for(timeout=WORKED_S * 1000)
    analysis_id = row.get_attribute("data-id")
    assert line.count() == 0
    page.screenshot(path=tmp_path / "start.png")

    search = page.get_by_role("searchbox")
    search.fill("H26-9999")
    page.get_by_text("No analysis fits.").wait_for()
    search.fill("h26-104")
    row.get_by_role("link", name="field.tif").click()

    page.wait_for_selector(".figure")
    found = service.detections(analysis_id, candidates_from=0.3)
    total = found["counts"]["total"]
    assert total >= 3
    assert (count(page), count(page, "mai")) == (total, found["mai"]["count"])
    assert page.locator(".figure").first.get_attribute("aria-setsize") == str(total)
    scores = [float(text) for text in page.locator(".figure .score").all_inner_texts()]
    assert scores == sorted(scores, reverse=True)
    assert int(page.locator(".threshold").get_attribute("data-mai")) == found["mai"]["count"]  # its own exact count

    before = page.locator(".magnification").inner_text()
    page.keyboard.press("+")
    until(page, lambda: page.locator(".magnification").inner_text() != before)
    page.keyboard.press("n")
    until(page, lambda: "d=" in page.url and "um=" in page.url)
    page.screenshot(path=tmp_path / "slide.png")

    page.keyboard.press("r")
    page.get_by_label("Name").fill("Meyer, Anna")
    page.keyboard.press("Enter")
    saved(page)
    assert count(page) == total - 1
    decided = [each for each in service.detections(analysis_id)["detections"] if each["decision"]]
    assert [(each["decision"], each["reviewer"]) for each in decided] == [("rejected", "Meyer, Anna")]

    page.keyboard.press("u")
    until(page, lambda: count(page) == total)
    page.keyboard.press("n")
    page.get_by_role("button", name="Reject").click()
    saved(page)

    page.keyboard.press("0")
    page.wait_for_timeout(700)
    stage = page.locator(".stage").bounding_box()
    page.keyboard.press("m")
    page.mouse.click(stage["x"] + 300, stage["y"] + 420)
    until(page, lambda: count(page) == total)
    saved(page)
    added = service.detections(analysis_id)["detections"][-1]
    assert added["origin"] == "person"

    slider = page.get_by_role("slider", name="Threshold")
    slider.fill("0.5")
    more = [each for each in found["candidates"] if each["score"] >= 0.5]
    expected = total + len(more)
    assert int(page.locator(".threshold").get_attribute("data-counted")) in (expected, expected - 1)  # one may be there
    page.screenshot(path=tmp_path / "threshold.png")
    page.get_by_role("button", name="Reset").click()

    page.get_by_role("button", name=re.compile("^Sign")).click()
    page.get_by_label("nobody has decided on").check()
    page.get_by_role("button", name="Sign", exact=True).click()
    page.get_by_role("button", name="Signed").wait_for()
    assert service.detections(analysis_id)["status"] == "final"

    page.get_by_role("tab", name="Result").click()
    panel = page.locator("#panel-1")
    assert "final Signed by Meyer, Anna" in panel.inner_text()
    report = service.running.http.get(f"/v1/analyses/{analysis_id}/result").json()
    assert report["model"]["sha256"] in panel.inner_text()
    assert "research use only" in panel.inner_text()
    page.screenshot(path=tmp_path / "result.png")
    saves = {}
    for name in ("JSON", "GeoJSON", "CSV"):
        with page.expect_download() as download:
            page.get_by_role("button", name=name, exact=True).click()
        saves[name] = download.value.path().read_text()
    exported = json.loads(saves["JSON"])
    assert exported["review"]["counts"]["total"] == int(panel.locator("[data-count=total]").inner_text()) == total
    assert json.loads(saves["GeoJSON"])["type"] == "FeatureCollection"
    assert len(saves["CSV"].splitlines()) > total - 1
    assert all((tmp_path / f"{name}.png").stat().st_size > 20_000 for name in ("start", "slide", "threshold", "result"))


def test_an_address_brings_a_colleague_to_the_same_view(shown: Any, open_page: Any, analysis: Any) -> None:
    page, _ = shown(analysis)
    page.locator(".figure").nth(1).click()
    page.wait_for_timeout(700)
    page.keyboard.press("+")
    until(page, lambda: "um=0.1" in page.url)
    address = page.evaluate("location.hash")
    other = open_page(address, viewport={"width": 1440, "height": 900})
    other.wait_for_selector(".figure[aria-selected=true]")
    one, another = (each.locator(".figure[aria-selected=true]").get_attribute("data-key") for each in (page, other))
    assert one == another
    assert other.locator(".magnification").inner_text() == page.locator(".magnification").inner_text()


def test_a_slide_that_does_not_say_its_pixel_size_is_asked_about(shared: Path, open_page: Any) -> None:
    page = open_page()
    page.set_input_files("#files", shared / "data/slides/TCGA-CR-7395-01A-01-TS1.svs")
    page.get_by_text("µm per pixel unknown").wait_for()
    page.get_by_role("link", name="View TCGA").click()
    page.get_by_role("button", name="Use the visible part").click()
    page.get_by_label("What to do with Visible part 1").wait_for()
    assert page.get_by_label("µm per pixel").get_attribute("required") is not None


def test_what_is_no_slide_is_refused_in_plain_words(open_page: Any, tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("not a slide")
    page = open_page()
    page.set_input_files("#files", path)
    page.get_by_text("This file is not a slide that can be read").wait_for()


@pytest.mark.parametrize("scopes", [("read",), ("read", "submit")])
def test_a_key_that_may_not_decide_can_look(
    service: Service, analysis: dict[str, Any], open_page: Any, scopes: tuple[str, ...]
) -> None:
    page = open_page(f"#analysis={analysis['id']}", secret=service.key(*scopes)[1])
    page.wait_for_selector(".figure")
    assert page.get_by_role("button", name="Reject").is_disabled()
