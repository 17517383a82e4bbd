"""The first notebook's code runs, in an empty folder; `make notebooks` runs all of them and keeps what they show."""

import json

import matplotlib as mpl
import pytest

from tests.docs.pages import ROOT

NOTEBOOKS = {path.stem: json.loads(path.read_text())["cells"] for path in (ROOT / "docs").glob("*.ipynb")}


def test_the_notebook_from_slide_to_plot_runs(tmp_path: object, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(str(tmp_path))
    mpl.use("agg")
    names: dict[str, object] = {"__name__": "__main__"}
    for cell in NOTEBOOKS["slide-to-plot"]:
        if cell["cell_type"] == "code":
            exec(compile("".join(cell["source"]), "slide-to-plot", "exec"), names)


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_a_notebook_was_run_from_top_to_bottom_without_an_error(name: str) -> None:
    code = [cell for cell in NOTEBOOKS[name] if cell["cell_type"] == "code"]
    assert [cell["execution_count"] for cell in code] == list(range(1, len(code) + 1))
    assert not [out for cell in code for out in cell["outputs"] if out["output_type"] == "error"]
