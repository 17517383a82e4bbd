"""The command, in this process or in one of its own, and what its errors look like."""

import subprocess
import sys

from typer.testing import CliRunner, Result

from service.cli import app as cli
from tests.slides import draw_tissue

PIXELS = draw_tissue(620, 560)


def mitosis(*arguments: object) -> Result:
    """The command, in this process, so that the model is loaded once."""
    return CliRunner().invoke(cli.app, [str(each) for each in arguments], catch_exceptions=False)


def mitosis_process(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "service", *(str(each) for each in arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


def assert_error(run: Result, code: str, exit_code: int = 2) -> str:
    """Nothing on standard output, one line on standard error; the line is returned."""
    assert run.stdout == ""
    assert run.stderr.startswith(f"error: {code}: ")
    assert run.stderr.count("\n") == 1
    assert run.exit_code == exit_code
    return run.stderr
