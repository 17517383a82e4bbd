"""The OpenAPI description against the service: whatever it allows to be sent, nothing answers 500 or out of it."""

import os
import re
import subprocess
import sys
from pathlib import Path

from tests.integration.running import Running

CHECKS = "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance"
ROOT = Path(__file__).parents[2]
ENDLESS = "/events$"  # a stream ends with its analysis


def test_every_answer_is_one_that_is_documented(server: Running, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "schemathesis.cli", "run", f"{server.http.base_url}/openapi.json"]
    command += ["--checks", CHECKS, "--exclude-path-regex", ENDLESS, "--max-examples", "10", "--seed", "1"]
    command += ["--generation-database", "none", "--request-timeout", "30", "--no-color"]
    environment = os.environ | {"SCHEMATHESIS_HOOKS": "tests.integration.tus_body", "PYTHONPATH": str(ROOT)}
    run = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=240)
    assert run.returncode == 0, run.stdout[-8000:] + run.stderr[-2000:]
    generated = re.search(r"(\d+) generated, (\d+) passed", run.stdout)
    assert generated, run.stdout[-2000:]
    assert int(generated[1]) == int(generated[2]) > 300
