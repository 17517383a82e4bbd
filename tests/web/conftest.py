"""A real browser on a real service that asks for keys; pages that talk to another host, or break their policy, fail."""

import csv
import shutil
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from sqlalchemy import Engine

from service.sample import draw_sample_slide
from service.store import keys
from service.store.database import open_database
from tests.integration.running import Running
from tests.slides import pyramid_of, write_pyramid

playwright = pytest.importorskip("playwright.sync_api", reason="needs playwright")

EXECUTABLES = ("chromium", "chromium-browser", "google-chrome")
SEEN_S = 20.0
WORKED_S = 240.0  # the first analysis waits for the worker's start


@dataclass
class Service:
    """The running service, and keys for it."""

    running: Running

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.running.port}/"

    def key(self, *scopes: str) -> tuple[str, str]:
        """A new key's id and secret."""
        with self._engine() as engine:
            return keys.create(engine, "Somebody", "default", scopes or ("admin",))

    def revoke(self, key_id: str) -> None:
        with self._engine() as engine:
            keys.revoke(engine, key_id)

    @contextmanager
    def _engine(self) -> Iterator[Engine]:
        engine = open_database(f"sqlite:///{self.running.data_dir / 'jobs.sqlite3'}", migrate=False)
        try:
            yield engine
        finally:
            engine.dispose()

    def start(self) -> None:
        """Start, again too; the tests' own requests have a key."""
        self.running.start(ready=False)  # pages are there before a worker is
        self.running.http.headers["Authorization"] = f"Bearer {self.key()[1]}"

    def analysed(self, path: Path) -> dict[str, Any]:
        """A new analysis of a slide, done."""
        ended = self.running.wait(self.running.submit(path), WORKED_S)
        assert ended["status"] == "succeeded", ended
        return ended

    def detections(self, analysis_id: str, **asked: Any) -> dict[str, Any]:
        found: dict[str, Any] = self.running.http.get(f"/v1/analyses/{analysis_id}/detections", params=asked).json()
        return found


def until(page: Any, true: Callable[[], Any]) -> None:
    """Poll until something holds; playwright's own way evaluates strings in the page, which its policy forbids."""
    limit = time.monotonic() + SEEN_S
    while not true():
        assert time.monotonic() < limit, page.locator("body").inner_text()
        page.wait_for_timeout(50)


@pytest.fixture(scope="session")
def executable() -> str:
    found = next(filter(None, map(shutil.which, EXECUTABLES)), None)
    if found is None:
        pytest.skip("needs Chromium (Debian: apt-get install chromium)")
    return found


@pytest.fixture(scope="package")
def chromium(executable: str) -> Iterator[Any]:
    """For this folder only: while the driver runs, so does its event loop, and other tests have loops of their own."""
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=executable, args=["--no-sandbox", "--disable-dev-shm-usage"])
        try:
            yield browser
        finally:
            browser.close()


class People:
    """Browsers of people who were never here: without cookies and what pages store, with a cache that may be warm.

    They are used again, since to make one takes as long as to open a page in it.
    """

    def __init__(self, chromium: Any) -> None:
        self._chromium = chromium
        self._idle: dict[str, list[Any]] = defaultdict(list)  # by their options
        self._busy: list[tuple[str, Any]] = []

    def page(self, address: str, **options: Any) -> Any:
        """An empty page in a browser that nobody else has, and that knows nothing of an address."""
        options = {"viewport": {"width": 1280, "height": 800}, **options}
        kind = repr(sorted(options.items()))
        context = self._idle[kind].pop() if self._idle[kind] else self._chromium.new_context(**options)
        context.set_default_timeout(SEEN_S * 1000)
        self._busy.append((kind, context))
        page = context.new_page()
        storage = context.new_cdp_session(page)
        storage.send("Storage.clearDataForOrigin", {"origin": address.rstrip("/"), "storageTypes": "all"})
        storage.detach()
        return page

    def leave(self) -> None:
        """Close all pages, and keep the browsers for the next."""
        while self._busy:
            kind, context = self._busy.pop()
            for page in context.pages:
                page.close()
            context.set_offline(False)
            context.clear_cookies()
            self._idle[kind].append(context)


@pytest.fixture(scope="package")
def people(chromium: Any) -> People:
    return People(chromium)


@pytest.fixture(scope="session")
def service(executable: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    folder = tmp_path_factory.mktemp("web")
    found = Service(Running(folder / "data", lease_s="3", requests_per_minute="1000000"))
    try:
        found.start()
        yield found
    finally:
        found.running.stop()


@pytest.fixture(scope="session")
def slide(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A slide of one real field with many mitoses; where real fields are not at hand, a drawn one."""
    folder = tmp_path_factory.mktemp("slides")
    fields = Path(__file__).parents[3] / "shared/data/mitos14"
    if not fields.is_dir():
        return draw_sample_slide(folder / "field.tif", width=1800, height=1800).path
    with (fields / "frames.csv").open() as file:
        frame = max(csv.DictReader(file), key=lambda row: int(row["mitoses"]))["frame"]
    with Image.open(fields / f"images/{frame}.jpg") as image:
        pixels = np.asarray(image.convert("RGB"))
    return write_pyramid(folder / "field.tif", pyramid_of(pixels, 2), compression="deflate", mpp=0.2274, tile_px=256)


@pytest.fixture(scope="session")
def analysis(service: Service, slide: Path) -> dict[str, Any]:
    """An analysis of the slide, for those who only look."""
    return service.analysed(slide)


@pytest.fixture
def open_page(people: People, service: Service) -> Iterator[Callable[..., Any]]:
    """`open_page(fragment)`: a new person's browser at an address, signed in; `secret=None`: not signed in."""
    faults: list[str] = []

    def heard(message: Any) -> None:
        if "Content Security Policy" in message.text:
            faults.append(message.text)

    def asked(request: Any) -> None:
        if not request.url.startswith((service.url, "data:", f"blob:{service.url}")):
            faults.append(f"a request to {request.url}")

    def open_(fragment: str = "", *, secret: str | None = "", **options: Any) -> Any:
        page = people.page(service.url, **options)
        page.on("console", heard)
        page.on("request", asked)
        page.on("pageerror", lambda error: faults.append(str(error)))
        if secret is not None:
            answer = page.context.request.post(f"{service.url}v1/session", data={"key": secret or service.key()[1]})
            assert answer.status == 204, answer.text()
        page.goto(f"{service.url}{fragment}")
        return page

    yield open_
    people.leave()
    assert faults == []


@pytest.fixture
def shown(request: pytest.FixtureRequest, service: Service, open_page: Callable[..., Any]) -> Callable[..., Any]:
    """`shown()`: a page with an analysis of the slide that is this test's alone; gives page and analysis."""

    def show(analysis: dict[str, Any] | None = None, name: str = "Family, Given", **options: Any) -> Any:
        running = service.running
        analysis = analysis or running.get(running.again(request.getfixturevalue("analysis")["id"]))
        page = open_page(f"#analysis={analysis['id']}", **options)
        page.evaluate("name => localStorage.setItem('mitosis-reviewer', name)", name)
        page.wait_for_selector(".figure")
        return page, analysis

    return show
