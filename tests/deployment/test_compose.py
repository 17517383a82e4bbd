"""The compose file: valid, hardened, and of settings, commands and secrets that exist."""

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import typer.main

from service.cli.app import app
from service.store.settings import Settings
from tests.deployment.compose import FILE, ROOT, compose, make_secrets, ours, services
from tests.deployment.programs import program

SETTINGS = {f"MITOSIS_{name.upper()}" for name in Settings.model_fields}
BY_HAND = {"tls_certificate", "tls_key", "watch_key"}
PINNED = re.compile(r"[a-z0-9./-]+:v?\d+\.\d+(\.\d+)?(-[a-z0-9.]+)?(@sha256:[0-9a-f]{64})?")
everyone = pytest.mark.parametrize("name", services())


def test_it_follows_the_compose_specification() -> None:
    check = Path(sys.executable).with_name("check-jsonschema")
    subprocess.run([program(str(check)), "--builtin-schema", "vendor.compose-spec", FILE], check=True)


@everyone
def test_no_service_has_more_rights_than_it_needs(name: str) -> None:
    service = services()[name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert "cap_add" not in service
    assert "privileged" not in service
    assert service["security_opt"] == ["no-new-privileges:true"]
    uid, _ = service["user"].split(":")
    assert int(uid) > 0
    assert {"memory", "pids"} <= service["deploy"]["resources"]["limits"].keys()
    assert service["restart"] == "unless-stopped" or name == "migrate"
    assert "healthcheck" in service
    assert all(volume.split(":")[0].startswith("./") is volume.endswith(":ro") for volume in service.get("volumes", []))


def test_a_full_broker_says_so_before_it_is_killed() -> None:
    valkey = services()["valkey"]
    most = valkey["command"][valkey["command"].index("--maxmemory") + 1]
    assert int(most.removesuffix("mb")) < int(valkey["deploy"]["resources"]["limits"]["memory"].removesuffix("m"))


@everyone
def test_images_are_pinned(name: str) -> None:
    assert PINNED.fullmatch(services()[name]["image"])


def test_only_ports_that_are_meant_to_be_open_are_open() -> None:
    published = {name: service["ports"] for name, service in services().items() if "ports" in service}
    assert published.pop("proxy") == ["0.0.0.0:443:8443"]
    assert all(port.startswith("127.0.0.1:") for ports in published.values() for port in ports)


def test_what_needs_no_way_out_has_none() -> None:
    networks = compose()["networks"]
    inside = {name for name, network in networks.items() if network.get("internal")}
    for name in ("postgres", "valkey", "worker", "worker-gpu", "migrate", "prometheus"):
        assert set(services()[name]["networks"]) <= inside


@pytest.mark.parametrize("name", ours())
def test_its_variables_are_settings(name: str) -> None:
    names = {each for each in ours()[name]["environment"] if each != "FORWARDED_ALLOW_IPS"}
    assert names <= SETTINGS | {str(option.envvar) for option in command_of(name)[0].params}


def test_the_example_of_settings_names_settings() -> None:
    lines = (ROOT / "docker" / "mitosis.env.example").read_text().splitlines()
    names = {line.lstrip("#").split("=")[0] for line in lines if re.match(r"#?MITOSIS_\w+=", line)}
    assert names
    assert names <= SETTINGS


@pytest.mark.parametrize("name", ours())
def test_its_command_exists(name: str) -> None:
    command, words = command_of(name)
    with command.make_context(name, words):
        pass


def command_of(name: str) -> tuple[Any, list[str]]:
    """The command that a service runs, and its words."""
    command: Any = typer.main.get_command(app)
    words = ours()[name]["command"]
    while hasattr(command, "commands"):
        command, words = command.commands[words[0]], words[1:]
    return command, list(words)


def test_the_secrets_are_those_that_the_script_makes_and_the_services_read(tmp_path: Path) -> None:
    made, known = make_secrets(tmp_path), compose()["secrets"]
    assert known.keys() == {*made, *BY_HAND}
    assert all(value["file"] == f"secrets/{name}" for name, value in known.items())
    used = {secret for service in services().values() for secret in service.get("secrets", [])}
    assert used == known.keys()
    assert {name.upper() for service in ours().values() for name in service["secrets"]} - {"WATCH_KEY"} <= SETTINGS
    assert made["postgres_password"].strip() in made["mitosis_database_url"]
    assert made["valkey_conf"].split()[1] in made["mitosis_broker_url"]
    assert make_secrets_again(tmp_path) == made, "what is there stays"
    assert oct((tmp_path / "secrets").stat().st_mode)[-3:] == "700"


def make_secrets_again(folder: Path) -> dict[str, str]:
    subprocess.run(["sh", folder / "docker" / "make-secrets.sh"], check=True, capture_output=True, env=os.environ)
    return {path.name: path.read_text() for path in (folder / "secrets").iterdir()}


def test_settings_come_from_secret_files(tmp_path: Path) -> None:
    made = make_secrets(tmp_path)
    settings = Settings(_secrets_dir=tmp_path / "secrets")  # type: ignore[call-arg]
    assert settings.database_url == made["mitosis_database_url"].strip()
    assert settings.broker_url == made["mitosis_broker_url"].strip()
    assert settings.callback_secret is not None


def test_the_release_is_the_images_tag() -> None:
    from service import __version__

    assert {service["image"].partition(":")[2] for service in ours().values()} == {__version__}
