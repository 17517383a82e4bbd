"""Decisions that cannot be sent yet: each page keeps its own, by who made them, and says where it cannot."""

from typing import Any

from tests.web.conftest import Service, until
from tests.web.test_story import count, decisions, saved

FULL = """() => {
    for (const size of [1 << 20, 1 << 10, 1]) {
        try {
            for (let number = 0; ; number += 1) localStorage.setItem(`${size} ${number}`, "x".repeat(size));
        } catch {}
    }
}"""


def cut_off(page: Any) -> None:
    page.route("**/detections", lambda route: route.abort())


def decide(page: Any, place: int, key: str) -> None:
    page.locator(".figure").nth(place).click()
    page.keyboard.press(key)
    page.get_by_text("not sent yet").wait_for()


def again(page: Any, url: str) -> Any:
    """Another page of the same browser."""
    other = page.context.new_page()
    other.goto(url)
    other.wait_for_selector(".figure")
    return other


def test_two_pages_of_one_browser_keep_what_was_decided_in_both(service: Service, shown: Any) -> None:
    page, analysis = shown()
    other = again(page, page.url)
    for place, each in enumerate((page, other)):
        cut_off(each)
        decide(each, place, "ar"[place])
    page.close()
    other.close()
    saved(again(page, f"{service.url}#analysis={analysis['id']}"))
    assert sorted(decisions(service, analysis).values()) == ["accepted", "rejected"]


def test_what_waits_is_sent_in_the_name_of_who_decided_it(service: Service, shown: Any) -> None:
    page, analysis = shown(name="Meyer, Anna")
    cut_off(page)
    decide(page, 0, "r")
    page.evaluate("localStorage.setItem('mitosis-reviewer', 'Bakker, Jan')")
    page.close()
    other = again(page, f"{service.url}#analysis={analysis['id']}")
    saved(other)
    other.locator(".figure").nth(1).click()
    other.keyboard.press("a")
    saved(other)
    log = service.running.http.get(f"/v1/analyses/{analysis['id']}/review").json()["entries"]
    assert [(each["reviewer"], each["action"]) for each in log] == [
        ("Meyer, Anna", "reject"),
        ("Bakker, Jan", "accept"),
    ]


def test_a_browser_without_space_sends_and_says_what_would_be_lost(service: Service, shown: Any) -> None:
    page, analysis = shown()
    page.evaluate("localStorage.setItem('mitosis-undo:another', 'x'.repeat(5000))")
    page.evaluate(FULL)
    cut_off(page)
    decide(page, 0, "a")  # there is space where another analysis' steps were
    assert "lost" not in page.locator(".summary").inner_text()
    page.evaluate(FULL)
    for place in (1, 2, 3):  # the first may have the space of what could be undone here
        decide(page, place, "a")
    page.get_by_text("lost if this page is closed").wait_for()
    page.unroute("**/detections")
    saved(page)
    assert list(decisions(service, analysis).values()) == ["accepted"] * 4


def test_a_refused_addition_takes_what_was_decided_on_it_with_it(service: Service, shown: Any) -> None:
    page, analysis = shown()
    total = count(page)
    page.locator(".figure").first.click()
    page.wait_for_timeout(700)
    cut_off(page)
    for key in ("m", "Enter"):  # where the first figure is: they are one mitosis
        page.keyboard.press(key)
    until(page, lambda: count(page) == total + 1)
    page.keyboard.press("r")
    until(page, lambda: count(page) == total)
    page.unroute("**/detections")
    page.get_by_text("A decision was refused").wait_for()
    saved(page)
    assert decisions(service, analysis) == {}
    assert page.get_by_role("button", name="Sign…").is_enabled()
