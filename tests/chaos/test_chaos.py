"""A few seconds of what `make chaos` does for ten minutes: each part killed once, and all that must hold, holds."""

import json

import pytest

from tests.chaos.run import main


def test_a_few_seconds_of_harm(capsys: pytest.CaptureFixture[str]) -> None:
    status = main(["--seconds", "5", "--analyses", "4", "--seed", "3", "--workers", "1", "--on", "embedded"])
    told = capsys.readouterr().out
    assert status == 0, told
    figures = json.loads(told.splitlines()[-1])
    kills = {name: count for name, count in figures["harm"].items() if name.startswith("kill ")}
    assert kills.keys() == {"kill gateway", "kill worker", "kill broker"}
    assert sum(figures["ended"].values()) == 4
