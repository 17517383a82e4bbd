"""docker-compose.yml as docker compose understands it: merged, with the defaults of its variables."""

import os
import re
import subprocess
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[2]
FILE = ROOT / "docker-compose.yml"
VARIABLE = re.compile(r"\$\{(?P<name>\w+):-(?P<default>[^}]*)\}")

Service = dict[str, Any]


def services(**variables: str) -> dict[str, Service]:
    """All services by name; variables have their defaults, or what is given."""
    found: dict[str, Service] = compose(**variables)["services"]
    return found


def compose(**variables: str) -> dict[str, Any]:
    """The whole file."""
    text = VARIABLE.sub(lambda match: variables.get(match["name"], match["default"]), FILE.read_text())
    assert "${" not in text, "every variable has a default"
    found: dict[str, Any] = yaml.safe_load(text)
    return found


def ours() -> dict[str, Service]:
    """Those that run our own program."""
    return {name: service for name, service in services().items() if service["image"].startswith("mitosis-")}


def make_secrets(folder: Path) -> dict[str, str]:
    """What `docker/make-secrets.sh` makes, by name."""
    (folder / "docker").mkdir(parents=True)
    script = folder / "docker" / "make-secrets.sh"
    script.write_bytes((ROOT / "docker" / "make-secrets.sh").read_bytes())
    subprocess.run(["sh", script], check=True, capture_output=True, env={"PATH": os.environ["PATH"]})
    return {path.name: path.read_text() for path in (folder / "secrets").iterdir()}
