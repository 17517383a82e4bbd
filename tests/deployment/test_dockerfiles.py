"""Dockerfiles that a linter has nothing to say about, and a gateway without torch."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.deployment.compose import ROOT, ours
from tests.deployment.programs import program

DOCKERFILES = sorted((ROOT / "docker").glob("*.Dockerfile"))


@pytest.mark.parametrize("path", DOCKERFILES, ids=lambda path: path.stem)
def test_hadolint_has_nothing_to_say(path: Path) -> None:
    subprocess.run([program(str(Path(sys.executable).with_name("hadolint"))), path], check=True)


def test_compose_builds_all_of_them() -> None:
    built = {service["build"]["dockerfile"] for service in ours().values() if "build" in service}
    assert built == {str(path.relative_to(ROOT)) for path in DOCKERFILES}


@pytest.mark.parametrize("path", DOCKERFILES, ids=lambda path: path.stem)
def test_the_last_stage_holds_no_build_tools_and_no_root(path: Path) -> None:
    last = path.read_text().rpartition("\nFROM ")[2]
    assert "apt-get" not in last
    assert "pip" not in last
    assert "\nUSER 10001:10001\n" in last
    assert "\nHEALTHCHECK " in last


def requirements(*arguments: str) -> set[str]:
    command = [sys.executable, "docker/requirements.py", *arguments]
    return set(subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout.splitlines())


def test_what_images_install() -> None:
    everything = requirements("postgresql,interop")
    assert {line for line in everything if line.startswith("torch")} == {"torch==2.13.0"}
    assert requirements("postgresql,interop", "--without", "torch") == everything - {"torch==2.13.0"}
    assert any(line.startswith("openvino") for line in requirements("postgresql", "--without", "torch"))
    assert any(line.startswith("psycopg[binary]") for line in everything)


def test_a_dependency_that_is_none_cannot_be_left_out() -> None:
    with pytest.raises(subprocess.CalledProcessError):
        requirements("", "--without", "torhc")
