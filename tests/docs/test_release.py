"""One version everywhere: the package, the changelog, the citation, the guide's tag, the images."""

import re
import subprocess
import sys

import yaml

from service import __version__
from tests.docs.pages import ROOT

RELEASED = re.findall(r"^## (\d+\.\d+\.\d+) - (\d{4}-\d\d-\d\d)$", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)


def test_the_changelog_ends_with_the_version_that_is_installed() -> None:
    assert RELEASED[0][0] == __version__
    numbers = [tuple(map(int, version.split("."))) for version, _ in RELEASED]
    assert numbers == sorted(numbers, reverse=True)


def test_the_citation_names_it_and_is_valid() -> None:
    file = ROOT / "CITATION.cff"
    citation = yaml.safe_load(file.read_text())
    assert (citation["version"], str(citation["date-released"])) == RELEASED[0]
    check = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.citation-file-format", str(file)]
    run = subprocess.run(check, capture_output=True, text=True)
    assert run.returncode == 0, run.stdout


def test_the_guide_and_the_stack_name_it() -> None:
    guide, stack = ((ROOT / name).read_text() for name in ("docs/deployment.md", "docker-compose.yml"))
    assert set(re.findall(r"git checkout (\S+)", guide)) == {f"v{__version__}"}
    assert set(re.findall(r"image: mitosis-\w+:(\S+)", stack)) == {__version__}
