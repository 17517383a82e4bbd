"""What limits a result stands beside it, and whoever signs has seen it; a result that is held is decided about here."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.web.conftest import WORKED_S, Service, until


def of_order(service: Service, slide: Path, patient_id: str) -> dict[str, Any]:
    """An analysis, done, whose result is of an order for a patient."""
    order = {"accession_number": f"H26-{patient_id}", "patient_id": patient_id}
    with slide.open("rb") as file:
        sent = {"file": (slide.name, file)}
        request = {"request": json.dumps({"order": order})}
        answer = service.running.http.post("/v1/analyses", files=sent, data=request)
    return service.running.wait(answer.json()["id"], WORKED_S)


def test_who_signs_ticks_how_many_figures_nobody_decided_on(service: Service, shown: Callable[..., Any]) -> None:
    page, analysis = shown()
    review = service.detections(analysis["id"])
    total, mai = len(review["detections"]), review["mai"]
    limits = page.get_by_role("region", name="What limits this result")
    for tab in ("Review", "Result"):
        page.get_by_role("tab", name=tab).click()
        assert f"0 of {total} decided" in limits.inner_text()
        assert f"{mai['tissue_mm2']:.2f} mm² of it examined tissue holds too little tissue" in limits.inner_text()
        assert "area-insufficient" not in limits.inner_text()  # once is enough, and leaves room for what is pressed
    page.get_by_role("tab", name="Review").click()
    page.keyboard.press("n")
    page.keyboard.press("a")
    until(page, lambda: f"1 of {total} decided" in limits.inner_text())
    page.get_by_role("button", name="Sign…").click()
    dialog = page.get_by_role("dialog")
    assert f"{mai['tissue_mm2']:.2f} mm² of it examined tissue: no class" in dialog.inner_text()
    assert f"{total - 1} of {total} figures" in dialog.inner_text()
    dialog.get_by_role("button", name="Sign", exact=True).click()
    assert service.detections(analysis["id"])["status"] == "preliminary"  # not ticked
    dialog.get_by_label("nobody has decided on").check()
    dialog.get_by_role("button", name="Sign", exact=True).click()
    page.get_by_role("button", name="Signed").wait_for()


def test_a_result_signed_for_another_patient_is_held_and_released_with_a_reason(
    service: Service, slide: Path, shown: Callable[..., Any], open_page: Callable[..., Any]
) -> None:
    page, analysis = shown(of_order(service, slide, "4711"))
    exported = page.locator("#panel-1").get_by_role("button", name="FHIR")
    page.get_by_role("button", name="Sign…").click()
    page.get_by_label("nobody has decided on").check()
    page.get_by_role("button", name="Sign", exact=True).click()
    assert (
        service.detections(analysis["id"])["status"] == "preliminary"
    )  # the patient is asked for, as there is an order
    page.get_by_label("Patient's number").fill("4712")
    page.get_by_role("button", name="Sign", exact=True).click()
    hold = page.locator(".hold")
    hold.get_by_text("the person who signed").wait_for()
    page.get_by_role("tab", name="Result").click()
    assert exported.is_disabled()
    assert re.search(r"FHIR, [^.]*: this result is held\.", page.locator("#panel-1").inner_text())

    start = open_page()
    row = start.locator(f"tr[data-id='{analysis['id']}']")
    row.get_by_text("held").wait_for()
    assert "the person who signed" in row.inner_text()
    looking = open_page(f"#analysis={analysis['id']}", secret=service.key("read")[1])
    looking.locator(".hold").wait_for()
    assert looking.get_by_role("button", name=re.compile("Release")).count() == 0

    hold.get_by_role("button", name="Release…").click()
    page.get_by_role("dialog").get_by_label("Reason").fill("typed a wrong digit")
    page.get_by_role("button", name="Release", exact=True).click()
    hold.wait_for(state="hidden")
    assert exported.is_enabled()
    assert service.running.http.get(f"/v1/analyses/{analysis['id']}").json()["held"] is None


def test_a_held_result_goes_to_the_other_order_that_the_hold_names(open_page: Callable[..., Any]) -> None:
    page = open_page()
    page.wait_for_selector(".queue")  # it knows then what its key may do
    drawn = page.evaluate(
        """async () => {
            const { createHoldPanel } = await import("/viewer/hold_panel.js");
            const panel = createHoldPanel(() => {});
            document.body.append(panel.element);
            const reason = { code: "second-order", detail: "another order came", order_id: "order-2" };
            const held = { id: "h", since: "2026-01-01T00:00:00Z", reasons: [reason] };
            panel.draw({ id: "a", order_id: "order-1", held });
            return panel.element.textContent;
        }"""
    )
    assert "There is another order: another order came" in drawn
    assert "Give to order order-2" in drawn


@pytest.mark.parametrize(("width", "height"), [(390, 844), (640, 400), (1280, 800)])  # the second: 200 % of the third
def test_nothing_leaves_the_page_also_where_a_filter_is_empty(
    shown: Callable[..., Any], analysis: dict[str, Any], width: int, height: int
) -> None:
    page, _ = shown(analysis, viewport={"width": width, "height": height})
    page.locator("#shown").select_option("rejected")
    page.get_by_text("None.").wait_for()
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    panel = page.locator("#panel-0").bounding_box()
    for name in ("Accept", "Sign…"):
        box = page.get_by_role("button", name=name).bounding_box()
        assert panel["x"] <= box["x"]
        assert box["x"] + box["width"] <= panel["x"] + panel["width"]
    layers, scale = page.locator(".layers").bounding_box(), page.locator(".scale").bounding_box()
    assert layers["y"] + layers["height"] <= scale["y"]
    navigator = page.locator(".pixels .navigator").bounding_box()
    assert layers["x"] + layers["width"] <= navigator["x"]


def test_the_list_says_what_limits_a_result_before_it_is_opened(
    service: Service, open_page: Callable[..., Any], analysis: dict[str, Any]
) -> None:
    row = open_page().locator(f"tr[data-id='{analysis['id']}']")
    total = len(service.detections(analysis["id"])["detections"])
    row.get_by_text("not signed").wait_for()
    row.get_by_text(f"0 of {total} decided · too little tissue for a class of the MAI").wait_for()


@pytest.mark.parametrize(("width", "height"), [(960, 540), (853, 600)])  # 200 and 225 % of 1920 x 1080
def test_the_slide_has_room_also_at_twice_the_size(
    shown: Callable[..., Any], analysis: dict[str, Any], width: int, height: int
) -> None:
    page, _ = shown(analysis, viewport={"width": width, "height": height})
    stage = page.locator(".stage").bounding_box()
    assert stage["width"] >= width / 2
    assert stage["height"] >= height * 2 / 3
    panel, box = (each.bounding_box() for each in (page.locator("#panel-0"), page.get_by_role("button", name="Sign…")))
    assert box["y"] + box["height"] <= panel["y"] + panel["height"]


def test_on_paper_stand_the_limits_and_the_whole_result(shown: Callable[..., Any], analysis: dict[str, Any]) -> None:
    page, _ = shown(analysis)
    page.emulate_media(media="print")
    limits = page.get_by_role("region", name="What limits this result")
    assert re.search(r"0 of \d+ decided", limits.inner_text())
    assert page.locator("#panel-1").is_visible()
    assert not page.locator(".stage").is_visible()


def test_the_order_of_work_and_the_own_definition_are_kept(shown: Callable[..., Any], analysis: dict[str, Any]) -> None:
    page, _ = shown(analysis)
    page.locator("#shown").select_option("work")
    seen = page.locator(".figure").all()
    placed = sorted(
        (int(each.get_attribute("aria-posinset")), float(each.locator(".score").inner_text())) for each in seen
    )
    scores = [score for _, score in placed]
    assert scores == sorted(scores)  # all lie in the hot-spot and above the threshold: the lowest are the least sure
    page.get_by_role("tab", name="Result").click()
    page.get_by_label("Our definition").select_option("nottingham_fd CAP Breast.Invasive 4.10 Table 1, 0.55 mm")
    page.reload()
    page.wait_for_selector(".figure")
    assert page.locator("#shown").input_value() == "work"
    page.get_by_role("tab", name="Result").click()
    first = page.locator("#panel-1 table").first
    first.get_by_text("Nottingham score (CAP)").wait_for()
    assert first.locator("tbody").count() == 1
    assert not page.locator("#panel-1").get_by_text("MAI, WHO 2003 classes").last.is_visible()


def test_figures_in_the_hot_spot_come_first(open_page: Callable[..., Any]) -> None:
    page = open_page()
    inside = page.evaluate(
        """async () => {
            const { isInWindow } = await import("/viewer/figures.js");
            const circle = { shape: "circle", x: 1000, y: 1000, radius_um: 50 };
            const rectangle = { shape: "rectangle", x: 1000, y: 1000, width_um: 100, height_um: 20 };
            const figures = [{ x: 1000, y: 1000 }, { x: 1190, y: 1000 }, { x: 1000, y: 1090 }, { x: 1150, y: 1070 }];
            return [circle, rectangle].map((window) => figures.map((each) => isInWindow(each, window, [0.25, 0.5])));
        }"""
    )
    assert inside == [[True, True, True, False], [True, True, False, False]]
