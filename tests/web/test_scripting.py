"""Cross-site scripting: what people write, and what an address says, is shown as text and never as markup."""

from collections.abc import Callable
from typing import Any
from urllib.parse import quote

import pytest

from service.sample import draw_sample_slide
from tests.web.conftest import Service

MARKUP = "\"><img src=x onerror='window.run=1'><script>window.run=1</script>"


def is_text(page: Any) -> bool:
    found = page.evaluate("() => [window.run ?? 0, document.querySelectorAll('img[src=x], script:not([src])').length]")
    return bool(found == [0, 0])


@pytest.fixture(scope="module")
def hostile(service: Service, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """A reviewed analysis whose slide, order, reviewer and reasons are all markup."""
    path = tmp_path_factory.mktemp("hostile") / "\"><img src=x onerror='window.run=1'>.tif"
    draw_sample_slide(path, width=1500, height=1500)
    http = service.running.http
    analysis_id = service.running.submit(path, order={"accession_number": MARKUP, "patient_id": MARKUP})
    ended = service.running.wait(analysis_id)
    assert ended["status"] == "succeeded", ended
    detections = http.get(f"/v1/analyses/{analysis_id}/detections")
    changes = [{"action": "reject", "id": detections.json()["detections"][0]["id"], "reason": MARKUP}]
    changes += [{"action": "add", "x": 90, "y": 90, "reason": MARKUP}]
    place, tag = f"/v1/analyses/{analysis_id}/detections", {"If-Match": detections.headers["ETag"]}
    changed = http.patch(place, json={"changes": changes, "reviewer": MARKUP}, headers=tag)
    assert changed.status_code == 200, changed.text
    return ended


def test_names_and_reasons_are_text_on_every_panel(hostile: dict[str, Any], shown: Callable[..., Any]) -> None:
    page, _ = shown(hostile, MARKUP)
    for tab in page.get_by_role("tab").all():
        tab.click()
        page.wait_for_timeout(100)
        assert is_text(page)
    assert "onerror" in page.locator("body").inner_text(), "the words themselves are shown"


@pytest.mark.parametrize("field", ["analysis", "slide", "sign-in"])
def test_an_address_is_text(service: Service, open_page: Callable[..., Any], field: str) -> None:
    page = open_page(f"#{field}={quote(MARKUP)}&x={quote(MARKUP)}&d={quote(MARKUP)}")
    page.locator("main").first.wait_for()
    page.wait_for_timeout(200)
    assert is_text(page)
