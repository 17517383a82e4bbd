"""No figure on the screen says more than the report: what it is of, when it was made, and whether it is saved."""

import re
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

from tests.interop.site import service_request
from tests.web.conftest import WORKED_S, Service, until
from tests.web.test_story import count, saved


def change(service: Service, analysis: dict[str, Any], reviewer: str, action: str, ids: list[int]) -> None:
    """Change the review from elsewhere."""
    path = f"/v1/analyses/{analysis['id']}/detections"
    revision = service.detections(analysis["id"])["revision"]
    changes = [{"action": action, "id": each} for each in ids]
    asked = {"reviewer": reviewer, "changes": changes}
    answer = service.running.http.patch(path, json=asked, headers={"If-Match": f'"{revision}"'})
    assert answer.status_code == 200, answer.text


def test_what_is_signed_is_what_the_dialog_showed(service: Service, shown: Callable[..., Any]) -> None:
    page, analysis = shown()
    total = count(page)
    page.get_by_role("button", name="Sign…").click()
    dialog = page.get_by_role("dialog")
    assert dialog.inner_text().count(f"{total} mitoses") == 1
    change(service, analysis, "Bakker, Jan", "reject", [1, 2])
    until(page, lambda: count(page) == total - 2)  # the page behind it has them
    dialog.get_by_label("nobody has decided on").check()
    dialog.get_by_role("button", name="Sign", exact=True).click()
    dialog.get_by_text("Somebody has changed this review since").wait_for()
    assert service.detections(analysis["id"])["status"] == "preliminary"
    dialog.get_by_role("button", name="Cancel").click()
    page.get_by_role("button", name="Sign…").click()
    assert dialog.inner_text().count(f"{total - 2} mitoses") == 1
    dialog.get_by_label("nobody has decided on").check()
    dialog.get_by_role("button", name="Sign", exact=True).click()
    page.get_by_role("button", name="Signed").wait_for()


def test_no_mitosis_is_not_claimed_of_more_than_was_examined(service: Service, shown: Callable[..., Any]) -> None:
    page, analysis = shown()
    ids = [each["id"] for each in service.detections(analysis["id"])["detections"]]
    change(service, analysis, "Meyer, Anna", "reject", ids)
    page.reload()
    page.wait_for_selector(".figure")
    mai = service.detections(analysis["id"])["mai"]
    assert (mai["count"], mai["hotspot"], mai["area_sufficient"]) == (0, None, False)
    assert "MAI in less than 1.59 mm² of examined tissue" in page.locator(".summary").inner_text()
    limits = page.get_by_role("region", name="What limits this result").inner_text()
    assert "The MAI is of less than 1.59 mm² of examined tissue: no class." in limits
    page.get_by_role("tab", name="Result").click()
    said = page.locator("#panel-1").inner_text()
    assert "in less than 1.59 mm² of examined tissue: too little tissue for a class" in said
    assert "stands for about" not in said


def test_each_density_and_time_says_of_what(
    service: Service, shown: Callable[..., Any], analysis: dict[str, Any]
) -> None:
    report = service.running.http.get(f"/v1/analyses/{analysis['id']}/result").json()
    page, _ = shown(analysis, locale="en-US", timezone_id="America/New_York")
    examined = f"per mm² of all {report['tissue']['examined_mm2']:.2f} mm² of tissue examined"
    assert examined in page.locator(".summary").inner_text()
    page.get_by_role("tab", name="Result").click()
    panel = page.locator("#panel-1")
    assert examined.replace("of all", "are of all") in panel.inner_text()
    made = datetime.fromisoformat(report["analysis"]["created_at"]).astimezone(ZoneInfo("America/New_York"))
    assert re.search(rf"{made:%Y-%m-%d %H:%M} (GMT|EST|EDT)", panel.inner_text())
    page.emulate_media(media="print")
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    assert all(each.get_attribute("open") is not None for each in panel.locator("details:not(.log)").all())
    for each in ("Hot-spot", "Export", "Our definition"):  # what can only be pressed is not printed
        assert not panel.get_by_text(each, exact=each != "Hot-spot").first.is_visible()
    assert not panel.get_by_text("Who decided what").is_visible()  # nor is a log that was not opened


def test_a_decision_that_is_not_sent_is_said_to_be_in_no_index(shown: Callable[..., Any]) -> None:
    page, _ = shown()
    total, index = count(page), count(page, "mai")
    page.route("**/detections", lambda route: route.abort())
    page.locator(".figure").first.click()
    page.keyboard.press("r")
    page.get_by_text("1 decision not sent yet, not in MAI and per mm²").wait_for()
    assert (count(page), count(page, "mai")) == (total - 1, index)
    page.unroute("**/detections")
    saved(page)
    assert count(page, "mai") == index - 1


def test_an_order_that_comes_while_the_page_is_open_is_signed_for(
    service: Service, slide: Path, shown: Callable[..., Any]
) -> None:
    running = service.running
    page, analysis = shown(running.wait(running.submit(slide, order={"container_id": "S90-1"}), WORKED_S))
    assert page.locator(".about").inner_text() == ""
    placed = service_request("http://a", "FN-90", "S90-1", requisition={"value": "B26-90"})
    answer = running.http.post("/fhir/ServiceRequest", json=placed)
    assert answer.status_code == 201, answer.text
    assert running.get(analysis["id"])["order_id"]
    page.get_by_role("button", name="Sign…").click()
    page.get_by_label("Patient's number").wait_for()
    assert page.get_by_text("(optional)").count() == 1  # of the organisation alone
    assert page.locator(".about").inner_text() == running.get(analysis["id"])["accession_number"] == "B26-90"
