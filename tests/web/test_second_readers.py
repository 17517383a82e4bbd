"""Two readers at their screens: each sees their own reading, and after both signatures what they differ on."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from httpx import Client

from service.api.app import create_app
from service.store.database import analyses as table
from service.store.database import writing
from service.store.settings import load_settings
from tests.api.small_app import client_of
from tests.store.test_results import Stored
from tests.web.conftest import People, until
from tests.web.test_accessibility import violations

ANNA, BORIS = "Meyer, Anna", "Ivanov, Boris"
MOST_STEPS = 60  # by Tab, from one control to another
FOCUSED = """() => {
  const [focused, style] = [document.activeElement, getComputedStyle(document.activeElement)];
  const words = focused.matches("a, button, input, select") ? focused.innerText || focused.labels?.[0]?.innerText : "";
  return [words ?? "", style.outlineStyle !== "none"];
}"""


@pytest.fixture
def reading(tmp_path: Path) -> Iterator[tuple[Client, str]]:
    """A service without workers whose laboratory reads twice, and an analysis that is done."""
    stored = Stored(tmp_path)
    analysis_id = stored.succeeded().analysis_id
    with writing(stored.engine) as connection:
        connection.execute(table.update().values(tenant="default"))
    stored.engine.dispose()
    with client_of(create_app(load_settings(data_dir=tmp_path, second_reading="blinded"))) as client:
        yield client, analysis_id


@pytest.fixture
def screen(people: People, reading: tuple[Client, str]) -> Iterator[Callable[[str], Any]]:
    """`screen(name)`: the page of the analysis in a browser of that person's own."""
    client, analysis_id = reading

    def open_(name: str) -> Any:
        page = people.page(str(client.base_url))
        page.add_init_script(f"localStorage.setItem('mitosis-reviewer', '{name}')")
        page.goto(f"{client.base_url}#analysis={analysis_id}")
        page.get_by_role("region", name="Readers").wait_for()
        return page

    yield open_
    people.leave()


def reach(page: Any, words: str) -> None:
    """Go to the control that says so by Tab alone, as somebody without a mouse does, who has to see where they are."""
    seen = []
    for _ in range(MOST_STEPS):
        page.keyboard.press("Tab")
        said, is_outlined = page.evaluate(FOCUSED)
        if words in said:
            assert is_outlined, f"nobody sees that {words!r} has the focus"
            return
        seen.append(said)
    raise AssertionError(f"Tab never comes to {words!r}, but to {seen}")


def read_by_keyboard(page: Any, name: str, key: str, before: str, after: str, said: str) -> None:
    """Find the analysis in the list, decide, sign and go back to the list, to see what its line says then."""
    rows = page.locator("tbody tr")
    rows.first.wait_for()
    reach(page, "To sign")  # the choice of what is listed
    page.keyboard.type(before)
    until(page, lambda: rows.count() == 1)
    reach(page, "slide.svs")
    page.keyboard.press("Enter")
    page.wait_for_selector(".figure")
    assert page.locator(".figure[data-kind=open]").count() == 3, "a reader sees the other's decisions"
    page.keyboard.press("n")
    page.keyboard.press(key)
    page.get_by_role("dialog").wait_for()
    page.keyboard.type(name)
    page.keyboard.press("Enter")
    until(page, lambda: "all saved" in page.locator(".summary").inner_text())
    reach(page, "Sign…")
    page.keyboard.press("Enter")
    page.get_by_role("dialog").wait_for()
    reach(page, "nobody has decided on")
    page.keyboard.press("Space")
    page.keyboard.press("Enter")
    page.get_by_role("dialog").wait_for(state="detached")
    reach(page, "Slides")
    page.keyboard.press("Enter")
    page.get_by_role("searchbox").wait_for()
    reach(page, "To sign")
    page.keyboard.type(after)
    until(page, lambda: rows.count() == 1 and rows.is_visible() and said in rows.inner_text())
    assert (ANNA in rows.inner_text()) == said.startswith("both"), "who has read alone is named to nobody"
    assert violations(page) == []


def test_both_readers_open_decide_and_sign_by_keyboard_alone(people: People, reading: tuple[Client, str]) -> None:
    client, analysis_id = reading
    open_, half, both = "To be read by both", "Read by one of two", "Consensus to sign"
    one_has, both_have = "one of two readers has signed", "both readers have signed, not their consensus"
    for name, key, *seen in ((ANNA, "r", open_, half, one_has), (BORIS, "a", half, both, both_have)):
        page = people.page(str(client.base_url))
        page.goto(str(client.base_url))
        read_by_keyboard(page, name, key, *seen)
        people.leave()
    told = client.get(f"/v1/analyses/{analysis_id}/detections", params={"reviewer": ANNA}).json()["second_reading"]
    assert (told["signed"], told["disagreements"]) == (["first", "second"], [1])


def test_each_sees_their_own_reading_and_then_what_they_differ_on(
    reading: tuple[Client, str], screen: Callable[[str], Any]
) -> None:
    client, analysis_id = reading

    def decide(name: str, revision: int, *changes: dict[str, Any]) -> None:
        headers, path = {"If-Match": f'"{revision}"'}, f"/v1/analyses/{analysis_id}"
        if changes:
            body: dict[str, Any] = {"reviewer": name, "changes": changes}
            assert client.patch(f"{path}/detections", json=body, headers=headers).status_code == 200
        else:
            assert client.post(f"{path}/signature", json={"reviewer": name}, headers=headers).status_code == 200

    decide(ANNA, 0, {"action": "reject", "id": 1, "reason": "Apoptose"})
    decide(BORIS, 0, {"action": "accept", "id": 1})
    anna, boris = screen(ANNA), screen(BORIS)
    for page, words, rejected in ((anna, "The first reading", 1), (boris, "The second reading", 0)):
        assert words in page.get_by_role("region", name="Readers").inner_text()
        assert f"Rejected ({rejected})" in page.get_by_label("Show", exact=True).inner_text()
        assert "Readers differ" not in page.get_by_label("Show", exact=True).inner_text()
    decide(ANNA, 1)
    boris.get_by_role("button", name="Sign…").click()
    dialog = boris.get_by_role("dialog")
    assert "Nothing is sent" in dialog.inner_text()
    assert violations(boris) == []
    dialog.get_by_label("nobody has decided on").check()
    dialog.get_by_role("button", name="Sign", exact=True).click()
    readers = boris.get_by_role("region", name="Readers")
    until(boris, lambda: "they differ on 1 figure, 1 to decide" in readers.inner_text())
    assert "kappa 0.00" in readers.inner_text()
    assert "Readers differ (1)" in boris.get_by_label("Show", exact=True).inner_text()
    boris.get_by_label("Show", exact=True).select_option(label="Readers differ (1)")
    boris.locator(".figure").first.click()
    readers.locator("summary").first.click()
    assert violations(boris) == []
    boris.set_viewport_size({"width": 390, "height": 800})
    assert boris.evaluate("document.documentElement.scrollWidth") <= 390
    assert violations(boris) == []
