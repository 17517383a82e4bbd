"""A note on a figure, and undo after the page was loaded anew."""

from typing import Any

from tests.web.conftest import Service, until
from tests.web.test_accessibility import violations
from tests.web.test_story import decisions, saved


def test_a_note_is_kept_and_decisions_are_undone_after_a_reload(service: Service, shown: Any) -> None:
    page, analysis = shown()
    page.keyboard.press("n")
    page.keyboard.press("t")
    page.get_by_label("Note", exact=True).fill("late anaphase?")
    assert violations(page) == []
    page.keyboard.press("Enter")
    page.locator(".chosen").get_by_text("Note: late anaphase?").wait_for()
    for key in "ra":
        page.keyboard.press(key)
    saved(page)
    page.keyboard.press("m")
    page.wait_for_timeout(600)
    page.keyboard.press("Enter")
    saved(page)
    added = len(service.detections(analysis["id"])["detections"])
    page.reload()
    page.wait_for_selector(".figure")
    first = [each for each in service.detections(analysis["id"])["detections"] if each["note"]]
    assert [(each["note"], each["decision"]) for each in first] == [("late anaphase?", "rejected")]
    undo = page.get_by_role("button", name="Undo")
    steps = 0
    while undo.is_enabled():
        steps += 1
        undo.click()
        page.wait_for_timeout(150)
        saved(page)
    assert steps in (3, 4)  # where the cross stands there may be a mitosis already
    until(page, lambda: decisions(service, analysis) == {})
    after = service.detections(analysis["id"])["detections"]
    assert len(after) in (added, added - 1)
    assert [each["note"] for each in after if each["note"]] == []
