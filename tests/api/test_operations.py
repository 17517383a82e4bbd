"""What the gateway says of itself to those who watch it."""

import shutil

import pytest
from fastapi import Response

from service import __version__
from service.api.operations import AnalysisMetrics, metrics, readyz
from service.api.state import State
from service.commit import source_commit


def free_bytes(state: State) -> float:
    found = (each for each in AnalysisMetrics(state).collect() if each.name == "mitosis_disk_free_bytes")
    return next(found).samples[0].value


def test_the_metrics_say_of_which_release_the_gateway_is(state: State) -> None:
    said = 'mitosis_build_info{{commit="{}",version="{}"}} 1.0'.format(source_commit() or "", __version__)
    assert said in metrics(state).body.decode()


@pytest.mark.parametrize("gone", ["incoming", "."])
def test_a_data_directory_that_takes_nothing_is_not_ready_and_has_no_room(state: State, gone: str) -> None:
    assert readyz(state, Response()).parts["disk"] == "ok"
    assert free_bytes(state) > 0
    shutil.rmtree(state.settings.data_dir / gone)  # as where a share is not mounted any more
    assert "cannot write" in readyz(state, Response()).parts["disk"]
    assert free_bytes(state) == 0
