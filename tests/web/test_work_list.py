"""The work list in a browser: sorted, searched, filtered and turned by the service; slides that wait; no living worker.

A gateway in this process is enough: nothing here is analysed.
"""

from collections.abc import Iterator
from typing import Any

import pytest
from sqlalchemy import update

from service.api import analyses, definitions, events, session, slides
from service.api.state import State
from service.api.viewer import add_viewer
from service.intake.sandbox import Sandbox
from service.store.analyses import Analyses
from service.store.database import analyses as table
from service.store.database import writing
from service.store.records import Submission
from service.store.settings import load_settings
from service.store.slides import SlideRow, list_slides, remember_slide
from service.store.storage import Storage
from service.store.summaries import Summary
from service.store.work_list import find_page
from service.worker.broker import Broker
from tests.api.small_app import app_of, client_of
from tests.databases import job_store
from tests.web.conftest import People, until
from tests.web.test_accessibility import violations
from tests.worker.conftest import embedded

COUNT = 57  # analyses: more than a page
FACTS = {"name": "a.svs", "reader": "openslide", "vendor": "aperio", "width": 900, "height": 800, "sha256": "0"}
FACTS |= {"levels": [[900, 800]], "downsamples": [1.0], "mpp": None, "mpp_source": None, "claimed_mpp": None}
FACTS |= {"objective_power": None, "bounds": None}
SUMMARY = Summary(
    status="final",
    changed=True,
    reviewer="Meyer, Anna",
    figures=20,
    undecided=3,
    total=17,
    mai=12,
    high_risk=True,
    near_cutoff=True,
    area_sufficient=True,
    warnings=["low-magnification"],
)


@pytest.fixture(scope="module")
def state(tmp_path_factory: pytest.TempPathFactory) -> Iterator[State]:
    folder = tmp_path_factory.mktemp("listed")
    settings = load_settings(data_dir=folder, requests_per_minute=10**6)
    engine = job_store(folder)
    valkey = embedded(settings)
    valkey.start()
    with Sandbox() as sandbox:
        yield State(settings, engine, Storage(folder), Analyses(engine), Broker(settings), sandbox)
    valkey.stop()
    engine.dispose()


@pytest.fixture(scope="module")
def address(state: State) -> Iterator[str]:
    for number in range(COUNT):
        asked = Submission("default", f"s{number // 2}", f"{number:03} Weiß.svs", {}, "m", "0" * 64)
        analysis, _ = state.analyses.submit(asked)
        if number == 4:
            done = {"status": "succeeded", "signed": True, "summary": SUMMARY.model_dump(mode="json")}
            with writing(state.engine) as connection:
                connection.execute(update(table).where(table.c.id == analysis.id).values(**done))
    app = app_of(state, analyses, definitions, events, session, slides)
    add_viewer(app)
    with client_of(app) as client:
        yield str(client.base_url)


@pytest.fixture
def page(people: People, address: str) -> Iterator[Any]:
    opened = people.page(address)
    opened.on("dialog", lambda dialog: dialog.accept())
    opened.goto(address)
    opened.wait_for_selector("tbody tr")
    yield opened
    people.leave()


def names(page: Any) -> list[str]:
    return [text[:3] for text in page.locator("tbody .name a").all_inner_texts()]


def test_it_is_sorted_searched_filtered_and_turned_by_the_service(page: Any) -> None:
    assert names(page)[:2] == ["056", "055"]
    page.get_by_role("button", name="Next page").click()
    until(page, lambda: names(page) == [f"{number:03}" for number in range(6, -1, -1)])
    page.get_by_role("button", name="Slide", exact=True).click()
    until(page, lambda: names(page)[0] == "000")
    assert page.get_by_role("columnheader", name="Slide").get_attribute("aria-sort") == "ascending"
    page.get_by_role("button", name="MAI").click()
    until(page, lambda: names(page)[0] == "004")
    page.get_by_role("searchbox").fill("004 WEISS")
    until(page, lambda: names(page) == ["004"])
    page.get_by_role("button", name="2 of this slide").click()
    until(page, lambda: names(page) == ["004"])
    page.get_by_role("searchbox").fill("")
    until(page, lambda: sorted(names(page)) == ["004", "005"])
    page.get_by_role("button", name="Only 004").click()
    page.get_by_label("Show").select_option("signed")
    until(page, lambda: names(page) == ["004"])


def test_a_row_says_what_was_found_and_what_limits_it(page: Any) -> None:
    page.get_by_label("Show").select_option("signed")
    until(page, lambda: len(names(page)) == 1)
    row = page.locator("tbody tr").inner_text()
    for words in ("12", "near the cut-off", "17", "Meyer, Anna", " min", "changed since then", "17 of 20 decided"):
        assert words in row
    assert "low-magnification" in row


def test_it_says_that_no_worker_is_alive(page: Any) -> None:
    page.get_by_text("No worker is alive").wait_for()
    assert violations(page) == []


def test_slides_that_wait_are_analysed_by_one_form_or_deleted(state: State, page: Any) -> None:
    for name in ("B26-7_A1.svs", "B26-8 A2.svs", "b.svs"):
        remember_slide(state.engine, SlideRow("default", f"{ord(name[-5]):064}", name, 10, FACTS), "p")
    page.reload()
    lines = page.locator(".new-slide")
    until(page, lambda: lines.count() == 3)
    page.get_by_role("button", name="Remove b.svs").click()
    page.get_by_text("b.svs is deleted.").wait_for()
    page.get_by_label("Accession number from the name").check()
    filled = [line.get_by_label("Accession number").input_value() for line in lines.all()]
    assert filled == ["B26-8", "B26-7"]
    page.get_by_role("button", name="Analyse all 2").click()
    assert lines.count() == 2  # the um per pixel are asked for
    page.get_by_label("µm per pixel").fill("0.25")
    page.get_by_role("button", name="Analyse all 2").click()
    page.get_by_text("2 analyses queued.").wait_for()
    assert list_slides(state.engine, "default", analysed=False) == ([], None)
    queued = find_page(state.engine, "default", limit=2).analyses
    assert {each.accession_number for each in queued} == {"B26-7", "B26-8"}
    assert {each.request["mpp"] for each in queued} == {0.25}


@pytest.mark.parametrize("width", [390, 820])
def test_nothing_is_cut_off_where_the_window_is_narrow(page: Any, width: int) -> None:
    page.set_viewport_size({"width": width, "height": 844})
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert violations(page) == []
