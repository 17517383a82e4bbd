"""What the gateway says of itself to those who watch it."""

import shutil

import pytest
from fastapi import Response

from service.api.operations import AnalysisMetrics, readyz
from service.api.state import State


def free_bytes(state: State) -> float:
    found = (each for each in AnalysisMetrics(state).collect() if each.name == "mitosis_disk_free_bytes")
    return next(found).samples[0].value


@pytest.mark.parametrize("gone", ["incoming", "."])
def test_a_data_directory_that_takes_nothing_is_not_ready_and_has_no_room(state: State, gone: str) -> None:
    assert readyz(state, Response()).parts["disk"] == "ok"
    assert free_bytes(state) > 0
    shutil.rmtree(state.settings.data_dir / gone)  # as where a share is not mounted any more
    assert "cannot write" in readyz(state, Response()).parts["disk"]
    assert free_bytes(state) == 0
