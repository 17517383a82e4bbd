"""The viewer's files: all there, under a policy that lets in nothing else, free of facts that are said elsewhere."""

import re
from collections.abc import Iterator

import pytest
from httpx import Client

from service.api.viewer import WEB, add_viewer
from service.store import keys
from tests.api.small_app import client_of, small_app

IMPORTED = re.compile(r'(?:from |import\(?)"\./([\w.]+)"')
STATIC = re.compile(r'(?:from|import) "\./([\w.]+)"')
MOST_BYTES = 150 << 10  # of own code that a page loads
SOURCES = {path.name: path.read_text() for path in sorted((WEB / "viewer").glob("*.js"))}


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    app = small_app(tmp_path_factory.mktemp("app"))
    add_viewer(app)
    with client_of(app) as client:
        yield client
    app.state.service.engine.dispose()


def test_the_page_and_all_that_it_loads_are_here(client: Client) -> None:
    page = client.get("/")
    addresses = re.findall(r'(?:src|href)="([^"]+)"', page.text)
    assert len(addresses) > 3
    imported = {name for text in SOURCES.values() for name in IMPORTED.findall(text)}
    named = {*imported, *styles_of(SOURCES["main.js"])}
    for address in [each for each in addresses if each != "docs"] + [f"viewer/{name}" for name in named]:
        answer = client.get("/" + address)
        assert answer.status_code == 200, address
        assert answer.headers["cache-control"] == "no-cache"
    assert not re.search(r"<script>|<style|\son\w+=|\sstyle=", page.text)
    assert "script-src 'self'" in page.headers["content-security-policy"]


def test_it_asks_for_scopes_that_there_are() -> None:
    asked = {scope for text in SOURCES.values() for scope in re.findall(r'\bmay\("(\w+)"\)', text)}
    assert asked
    assert asked <= set(keys.SCOPES)


@pytest.mark.parametrize("name", SOURCES)
def test_colours_are_in_the_style_sheets_and_areas_in_the_definitions(name: str) -> None:
    assert not re.search(r"#[0-9a-fA-F]{6}\b|\brgba?\(", SOURCES[name])
    assert not re.search(r"\d\s?mm²", SOURCES[name])
    assert not re.search(r"\d\s?%", re.sub(r"\$\{[^}]*\}", "", SOURCES[name]).replace("100%", ""))


def test_every_colour_that_a_script_asks_for_has_a_name_in_the_style_sheets() -> None:
    styles = (WEB / "viewer" / "base.css").read_text()
    asked = set(re.findall(r'\bcolour\("([\w-]+)"\)', "".join(SOURCES.values())))
    (others,) = re.findall(r"const names = \[([^\]]+)\]", SOURCES["overlay.js"])
    (kinds,) = re.findall(r"const KINDS = \[([^\]]+)\]", SOURCES["overlay.js"])
    named = (
        asked | set(re.findall(r'"([\w-]+)"', others)) | {f"figure-{kind}" for kind in re.findall(r'"(\w+)"', kinds)}
    )
    assert len(named) >= 13
    for colour in named:
        assert f"  --{colour}: " in styles, colour


def graph(names: set[str], imported: re.Pattern[str]) -> set[str]:
    """Modules, and all that they import."""
    loaded, to_load = set[str](), set(names)
    while to_load:
        loaded.add(name := to_load.pop())
        to_load |= set(imported.findall(SOURCES[name])) - loaded
    return loaded


def styles_of(text: str) -> list[str]:
    lists = re.findall(r"\[([^\][]+)\]\.map\(loadStyle\)", text)
    return [f"{name}.css" for names in lists for name in re.findall(r"\w+", names)]


@pytest.mark.parametrize(
    ("page", "styles", "other"),
    [("start_page.js", ["start"], "deep_zoom.js"), ("slide_page.js", ["slide", "review", "print"], "tus.js")],
)
def test_a_page_loads_little_code_of_its_own(page: str, styles: list[str], other: str) -> None:
    loaded = graph({"main.js", page}, STATIC)  # what is imported later belongs to a tool, and comes when that is used
    assert other not in loaded
    files = [WEB / "viewer" / name for name in (*loaded, "index.html", "base.css", *(f"{each}.css" for each in styles))]
    assert sum(file.stat().st_size for file in files) < MOST_BYTES


def test_every_module_and_style_is_of_a_page() -> None:
    assert graph({"main.js"}, IMPORTED) == SOURCES.keys()
    styles = {path.name for path in (WEB / "viewer").glob("*.css")}
    assert styles == {"base.css", *styles_of(SOURCES["main.js"])}
