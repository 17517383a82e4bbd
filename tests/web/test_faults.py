"""What goes wrong while a page is open: nothing that was entered is lost, and nobody is overwritten in silence."""

from pathlib import Path
from typing import Any

import tifffile

from service.slide import Box, open_slide
from tests.slides import pyramid_of, write_pyramid
from tests.web.conftest import WORKED_S, Service
from tests.web.test_story import count, decisions, saved


def test_access_that_ends_in_the_middle_of_a_review_loses_nothing(service: Service, shown: Any) -> None:
    key_id, secret = service.key("read", "review")
    page, analysis = shown(secret=secret)
    total = count(page)
    page.locator(".figure").first.click()
    page.keyboard.press("r")
    saved(page)
    service.revoke(key_id)
    page.keyboard.press("r")
    dialog = page.get_by_role("dialog", name="Sign in again")
    dialog.get_by_label("Key").fill("mk_wrong")
    dialog.get_by_role("button", name="Sign in").click()
    dialog.get_by_text("This key is not valid").wait_for()
    dialog.get_by_label("Key").fill(service.key("read", "review")[1])
    dialog.get_by_role("button", name="Sign in").click()
    saved(page)
    assert count(page) == total - 2
    assert list(decisions(service, analysis).values()) == ["rejected", "rejected"]
    assert "mk_" not in page.url
    assert "mk_" not in service.running.log.read_text()
    kept = page.evaluate("document.cookie + JSON.stringify(localStorage) + JSON.stringify(sessionStorage)")
    assert "mk_" not in kept


def test_the_second_of_two_reviewers_is_told_and_overwrites_nothing(service: Service, shown: Any) -> None:
    page, analysis = shown(name="Meyer, Anna")
    other, _ = shown(analysis, name="Bakker, Jan")
    for each, key in ((page, "r"), (other, "a")):
        each.locator(".figure").first.click()
        each.keyboard.press(key)
    saved(page)
    banner = other.locator("#banner")
    banner.get_by_text("Meyer, Anna has changed this review").wait_for()
    assert list(decisions(service, analysis).values()) == ["rejected"]
    banner.get_by_role("button", name="Show theirs").click()
    banner.get_by_text("They decided otherwise on no.").wait_for()
    assert list(decisions(service, analysis).values()) == ["rejected"]
    banner.get_by_role("button", name="Send mine").click()
    saved(other)
    assert list(decisions(service, analysis).values()) == ["accepted"]
    log = service.running.http.get(f"/v1/analyses/{analysis['id']}/review").json()["entries"]
    assert [(each["reviewer"], each["action"]) for each in log] == [
        ("Meyer, Anna", "reject"),
        ("Bakker, Jan", "accept"),
    ]


def test_a_deleted_slide_leaves_result_and_review(service: Service, tmp_path: Path, slide: Path, shown: Any) -> None:
    with open_slide(slide) as opened:
        pixels = opened.read(Box(0, 0, opened.width, opened.height - 1))
    own = write_pyramid(tmp_path / "own.tif", pyramid_of(pixels, 2), tile_px=256)
    page, analysis = shown(service.analysed(own))
    assert service.running.http.delete(f"/v1/slides/{analysis['slide_id']}").status_code == 204
    for _ in range(6):
        page.keyboard.press("+")
    page.get_by_text("The slide was deleted").wait_for()
    total = count(page)
    page.reload()
    page.get_by_text("The slide was deleted").wait_for()
    page.locator(".figure").first.click(timeout=10_000)  # without its pixels the page had no end of tiles to draw
    assert count(page) == total


def test_a_job_that_fails_says_why_and_what_to_do(
    service: Service, slide: Path, tmp_path: Path, open_page: Any
) -> None:
    path = damaged(slide, tmp_path / "damaged.tif")
    page = open_page()
    page.set_input_files("#files", path)
    page.locator(".new-slide").get_by_role("button", name="Analyse").click()
    row = page.locator("tbody tr", has_text="damaged.tif")
    row.get_by_text("Failed. The file is damaged").wait_for(timeout=WORKED_S * 1000)
    assert "copy the file again" in row.inner_text()  # the reader's own words, whatever was lost
    row.get_by_role("link").click()
    page.get_by_text("Copy it again from the scanner").first.wait_for()


def damaged(slide: Path, path: Path) -> Path:
    """A copy in which one tile in the middle of the tissue is broken; its header is not."""
    path.write_bytes(slide.read_bytes())
    with tifffile.TiffFile(path) as tiff:
        page: Any = tiff.pages.first
        middle = len(page.dataoffsets) // 2
        start, length = page.dataoffsets[middle], page.databytecounts[middle]
    with path.open("r+b") as file:
        file.seek(start)
        file.write(bytes(length))
    return path
