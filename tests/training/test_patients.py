"""Cases that may be one patient are drawn together, and only those."""

from pathlib import Path

import pytest

from service.cli.train import read_split
from service.training.patients import patient_of, patients_apart
from service.training.scoring import Localisation, bootstrap_interval, together_or_alone
from tests.cli.commands import mitosis
from tests.training.study import MPP, write_study


@pytest.mark.parametrize(
    ("case", "patient"),
    [("H03", "3"), ("A03", "3"), ("A30", "30"), ("03", "03"), ("S24-1", "S24-1"), ("A", "A"), ("H03b", "H03b")],
)
def test_the_number_after_letters_is_the_patient(case: str, patient: str) -> None:
    assert patient_of(case) == patient


def test_an_interval_draws_them_as_one() -> None:
    alike = [Localisation(9, 1, 0), Localisation(2, 5, 6), Localisation(5, 3, 4), Localisation(7, 4, 1)]
    cases = [*alike, *alike]
    names = [*"3478", *"3478"]
    assert together_or_alone(range(8), names) == [[0, 4], [1, 5], [2, 6], [3, 7]]
    pairs = [case + case for case in alike]
    assert bootstrap_interval(cases, "f1", names) == bootstrap_interval(pairs, "f1")
    apart, together = bootstrap_interval(cases, "f1"), bootstrap_interval(cases, "f1", names)
    assert apart is not None
    assert together is not None
    assert together[1] - together[0] > apart[1] - apart[0]
    assert bootstrap_interval(cases[::4], "f1", names[::4]) is None, "one patient"


def test_a_split_that_parts_a_patient_is_warned_of(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert patients_apart([["H03", "A04"], ["A03", "H04", "H05"], ["S3", "25"]]) == [
        ["A03", "H03", "S3"],
        ["A04", "H04"],
    ]
    assert not patients_apart([["H03", "A03"], ["H04"], ["B", "C"]])
    data = write_study(tmp_path / "data")
    frames = data / "frames.csv"
    frames.write_text(frames.read_text().replace(",H12,", ",A04,"))
    read_split([data], [MPP], "H04")
    assert "cases A04 and H04 may be one patient" in capsys.readouterr().err
    (tmp_path / "run/fold-1").mkdir(parents=True)
    (tmp_path / "run/fold-1/card.json").touch()
    run = mitosis("cross-validate", "--data", data, "--mpp", MPP, "--fold", "H04", "--out", tmp_path / "run")
    assert "warning: cases A04 and H04 may be one patient" in run.stderr
    assert "holds a run" in run.stderr
