"""What axe-core finds: nothing, on every page, in light and dark; and all of a review goes by keyboard."""

from typing import Any

import pytest

from tests.web.conftest import Service
from tests.web.test_story import count, saved

axe_playwright = pytest.importorskip("axe_playwright_python.sync_playwright")


def violations(page: Any) -> list[str]:
    found = axe_playwright.Axe().run(page).response["violations"]
    return [f"{each['id']}: {each['nodes'][0]['html'][:200]} {each['nodes'][0]['failureSummary']}" for each in found]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing(service: Service, shown: Any, open_page: Any, scheme: str, slide: Any) -> None:
    page, _ = shown(color_scheme=scheme)
    page.locator(".figure").first.click()
    page.keyboard.press("r")
    saved(page)
    page.get_by_role("slider", name="Threshold").fill("0.5")
    assert violations(page) == []
    page.get_by_role("tab", name="Result").click()
    page.get_by_text("Who decided what").click()
    assert violations(page) == []
    page.get_by_role("tab", name="Review").click()
    page.get_by_role("button", name="Sign…").click()
    assert violations(page) == []

    start = open_page(color_scheme=scheme)
    start.set_input_files("#files", slide)
    start.get_by_text("uploaded").wait_for()
    start.wait_for_selector("tbody tr")
    assert violations(start) == []
    out = open_page(color_scheme=scheme, secret=None)
    out.get_by_label("Key").wait_for()
    assert violations(out) == []


def test_a_review_goes_by_keyboard_alone(service: Service, shown: Any) -> None:
    page, analysis = shown()
    total = count(page)
    for key in ("n", "r", "p", "a", "m", "ArrowRight"):
        page.keyboard.press(key)
    page.wait_for_timeout(600)
    page.keyboard.press("Enter")  # under the cross
    saved(page)
    assert count(page) in (total, total + 1)  # where the cross stands there may be one already
    for _ in range(40):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.getAttribute('role')") == "listbox":
            break
    page.keyboard.press("End")
    last = page.locator(".figure[aria-selected=true]")
    assert last.get_attribute("aria-posinset") == last.get_attribute("aria-setsize")
    assert page.get_by_role("listbox").get_attribute("aria-activedescendant") == last.get_attribute("id")
    log = service.running.http.get(f"/v1/analyses/{analysis['id']}/review").json()["entries"]
    assert [each["action"] for each in log][:2] == ["reject", "accept"]


@pytest.mark.parametrize(("width", "height"), [(1280, 720), (820, 1180), (1024, 768)])
def test_nothing_is_cut_off_on_a_small_screen(shown: Any, analysis: Any, width: int, height: int) -> None:
    page, _ = shown(analysis, viewport={"width": width, "height": height})
    size = page.evaluate("[document.documentElement.scrollWidth, document.documentElement.scrollHeight]")
    assert size == [width, height]
    panel = page.locator("#panel-0").bounding_box()
    for name in ("Accept", "Reject", "Undo", "Sign…"):
        box = page.get_by_role("button", name=name).bounding_box()
        assert box["y"] + box["height"] <= panel["y"] + panel["height"]
        assert box["height"] >= 30
