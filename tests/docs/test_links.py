"""What the papers name is there: linked files and headings, and paths of the repository."""

import re

import pytest

from tests.docs.pages import PAGES, ROOT, Page

LINK = re.compile(r"\]\((?P<target>[^)\s]+)\)")
PATH = re.compile(r"(?:service|tests|docs|docker|model_weights|\.ci)/[\w./-]*\w/?")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_to_files_and_headings(page: Page) -> None:
    by_path = {each.path: each for each in PAGES}
    for target in (match["target"] for match in LINK.finditer(page.prose)):
        if re.match(r"\w+:", target):
            continue
        file, _, anchor = target.partition("#")
        path = (page.path.parent / file).resolve() if file else page.path
        assert path.is_relative_to(ROOT), target
        assert path.exists(), target
        assert not anchor or anchor in by_path[path].anchors, target


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_paths_in_backticks_exist(page: Page) -> None:
    named = [words for words in page.words_of_code() if PATH.fullmatch(words)]
    assert [words for words in named if not (ROOT / words).exists()] == []


def test_every_page_of_docs_is_linked_from_the_readme() -> None:
    [readme] = [page for page in PAGES if page.name == "README.md"]
    linked = {match["target"].partition("#")[0] for match in LINK.finditer(readme.text)}
    assert {page.name for page in PAGES if page.name.startswith("docs/")} <= linked
