"""Prints what an image installs: the package's dependencies with some extras, without those that it can do without.

    python3 docker/requirements.py postgresql,interop --without torch

pip has no way to leave a dependency out, and only a worker with a GPU needs torch, which is larger than all the rest.
"""

import argparse
import re
import tomllib
from pathlib import Path

parser = argparse.ArgumentParser()
parser.add_argument("extras", type=lambda text: [extra for extra in text.split(",") if extra])
parser.add_argument("--without", action="append", default=[])
asked = parser.parse_args()

project = tomllib.loads(Path("pyproject.toml").read_text())["project"]
wanted = project["dependencies"] + [line for extra in asked.extras for line in project["optional-dependencies"][extra]]
kept = [line for line in wanted if re.split(r"[^\w.-]", line)[0] not in asked.without]
if len(kept) != len(wanted) - len(asked.without):
    parser.error(f"not all of {asked.without} are dependencies")
print("\n".join(kept))  # noqa: T201
