"""Somebody in a hurry on a slow network: what is asked for happens once, and to that slide; what is shown is so."""

from typing import Any

import pytest

from tests.web.conftest import Service, until
from tests.web.test_story import decisions, saved


def signatures(service: Service, analysis: dict[str, Any]) -> int:
    log = service.running.http.get(f"/v1/analyses/{analysis['id']}/review").json()["entries"]
    return sum(each["action"] == "sign" for each in log)


def ask_to_sign(page: Any) -> Any:
    page.get_by_role("button", name="Sign…").dblclick()
    dialog = page.get_by_role("dialog")
    dialog.get_by_label("that nobody has decided on").check()
    assert dialog.count() == 1
    return dialog


def test_a_signature_on_its_way_is_not_cancelled_nor_given_twice(service: Service, shown: Any) -> None:
    page, analysis = shown()
    on_its_way: list[Any] = []
    page.route("**/signature", lambda route: on_its_way.append(route))
    dialog = ask_to_sign(page)
    dialog.get_by_role("button", name="Sign").dblclick()
    until(page, lambda: on_its_way)
    for _ in range(3):
        page.keyboard.press("Escape")
        dialog.wait_for()  # a browser closes it for a moment, whatever the page says
    assert dialog.get_by_role("button", name="Cancel").is_disabled()
    [route] = on_its_way
    route.continue_()
    dialog.wait_for(state="detached")
    page.get_by_role("button", name="Signed").wait_for()
    assert signatures(service, analysis) == 1


def test_a_signature_whose_answer_is_lost_is_known_as_ones_own(service: Service, shown: Any) -> None:
    page, analysis = shown()

    def lost(route: Any) -> None:
        route.fetch()
        route.abort()

    page.route("**/signature", lost, times=1)
    dialog = ask_to_sign(page)
    dialog.get_by_role("button", name="Sign").click()
    dialog.get_by_text("does not answer").wait_for()
    dialog.get_by_role("button", name="Sign").click()
    dialog.wait_for(state="detached")
    page.get_by_role("button", name="Signed").wait_for()
    assert signatures(service, analysis) == 1


def test_the_way_back_closes_what_asks_for_a_signature(service: Service, shown: Any) -> None:
    page, analysis = shown()
    ask_to_sign(page)
    page.evaluate("location.hash = ''")
    page.get_by_role("heading", name="Mitosis").first.wait_for()
    assert page.get_by_role("dialog").count() == 0
    page.go_back()
    page.wait_for_selector(".figure")
    dialog = ask_to_sign(page)
    page.keyboard.press("Escape")
    until(page, lambda: dialog.count() == 0)
    assert signatures(service, analysis) == 0


def test_nobody_gets_by_the_question_who_they_are(service: Service, open_page: Any) -> None:
    page = open_page(secret=None)
    for _ in range(4):
        page.get_by_label("Key").press("Escape")
    page.get_by_role("dialog").wait_for()


@pytest.mark.parametrize("looks_again", [True, False])
def test_what_was_decided_without_a_connection_is_sent_wherever_one_is_by_then(
    service: Service, shown: Any, looks_again: bool
) -> None:
    page, analysis = shown()
    page.context.set_offline(True)
    page.locator(".figure").first.click()
    page.keyboard.press("r")
    page.get_by_text("not sent yet").wait_for()
    page.evaluate("location.hash = '#'")
    page.get_by_text("does not answer yet").wait_for()
    if looks_again:
        page.go_back()
        page.get_by_text("The page tries again by itself").wait_for()
    page.context.set_offline(False)
    if looks_again:
        page.wait_for_selector(".figure")
        saved(page)
    else:
        page.get_by_role("heading", name="Mitosis service").wait_for()
    until(page, lambda: list(decisions(service, analysis).values()) == ["rejected"])
