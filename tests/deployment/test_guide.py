"""The guide for IT speaks of codes, services and variables that exist; tests/docs looks at settings and links."""

import re

import typer.main

from service import errors, refusals  # noqa: F401  all errors are known then
from service.cli.app import app
from service.errors import MitosisError
from tests.deployment.compose import FILE, ROOT, services

GUIDE = (ROOT / "docs" / "deployment.md").read_text()


def test_its_variables_of_the_stack_exist() -> None:
    [facts] = re.findall(r"go into `\.env`: (.*?)\. Settings", GUIDE, re.DOTALL)
    named = {each.split("=")[0] for each in re.findall(r"`([A-Z_]+[^`]*)`", facts)}
    assert named == set(re.findall(r"\$\{(\w+):-", FILE.read_text())) - {
        "BASE",
        "COMMIT",
        "TORCH_INDEX",
        "GRAFANA_ADDRESS",
        "GATEWAY_ADDRESS",
    }


def test_its_codes_are_codes_of_errors() -> None:
    def below(kind: type[MitosisError]) -> set[str]:
        return {kind.code}.union(*(below(each) for each in kind.__subclasses__()))

    rows = [row.split("|") for row in GUIDE.rpartition("## Faults")[2].splitlines() if row.count("|") == 4]
    codes = {code for row in rows for code in re.findall(r"`([a-z-]+)`", row[2])}
    assert len(codes) > 10
    assert codes <= below(errors.MitosisError)


def test_its_services_and_commands_exist() -> None:
    commands = typer.main.get_command(app).commands  # type: ignore[attr-defined]
    assert set(re.findall(r"(?<!/)mitosis ([a-z]+)\b", GUIDE)) <= commands.keys()
    named = re.findall(r"compose (?:exec|run)((?: --?[\w-]+)*(?: tar)?) ([a-z-]+)", GUIDE)
    assert {name for _, name in named} <= services().keys()
    profiles = set(re.findall(r"--profile ([a-z]+)", GUIDE))
    assert profiles <= {profile for service in services().values() for profile in service.get("profiles", [])}
