"""The service cannot be reached for a while. The last file: after its restart no test has to wait for a worker."""

from typing import Any

from tests.web.conftest import Service
from tests.web.test_story import count, decisions, saved


def test_a_page_that_is_closed_keeps_unsent_decisions(service: Service, shown: Any) -> None:
    page, analysis = shown()
    page.route("**/detections", lambda route: route.abort())
    page.locator(".figure").first.click()
    page.keyboard.press("a")
    page.get_by_text("1 decision not sent yet").wait_for()
    page.unroute("**/detections")
    page.reload()
    page.wait_for_selector(".figure")
    saved(page)
    assert list(decisions(service, analysis).values()) == ["accepted"]


def test_an_answer_that_was_lost_is_no_conflict(service: Service, shown: Any) -> None:
    page, analysis = shown()

    def swallow(route: Any) -> None:
        route.fetch()  # it arrives, its answer does not
        route.abort()

    page.route("**/detections", swallow, times=1)
    page.locator(".figure").first.click()
    page.keyboard.press("r")
    page.get_by_text("Connected again").wait_for()
    saved(page)
    assert list(decisions(service, analysis).values()) == ["rejected"]
    assert service.detections(analysis["id"])["revision"] == 1


def test_the_gateway_restarts_and_the_decision_made_meanwhile_is_sent(service: Service, shown: Any) -> None:
    page, analysis = shown()
    total = count(page)
    service.running.stop()
    page.locator(".figure").first.click()
    page.keyboard.press("r")
    page.get_by_text("The service does not answer").wait_for()
    page.get_by_text("1 decision not sent yet").wait_for()
    assert count(page) == total - 1
    service.start()
    page.get_by_text("Connected again").wait_for()
    saved(page)
    assert list(decisions(service, analysis).values()) == ["rejected"]
