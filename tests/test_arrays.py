"""Arrays in a file: whole or not at all."""

from pathlib import Path

import numpy as np
import pytest

from service.arrays import load_arrays, save_arrays
from service.errors import OutputUnwritable


@pytest.mark.parametrize("compressed", [False, True])
def test_arrays_come_back_by_name(tmp_path: Path, compressed: bool) -> None:
    values = np.arange(12.0).reshape(3, 4)
    save_arrays(tmp_path / "a.npz", compressed=compressed, values=values, name="case 7")
    name, found = load_arrays(tmp_path / "a.npz", "note", "name", "values")
    assert str(name) == "case 7"
    np.testing.assert_array_equal(found, values)


def test_what_cannot_be_written_leaves_what_was_there(tmp_path: Path) -> None:
    save_arrays(tmp_path / "a.npz", values=[1, 2])
    with pytest.raises(ValueError, match="pickle"):
        save_arrays(tmp_path / "a.npz", values=np.zeros(4), odd=np.array([object()]))
    assert load_arrays(tmp_path / "a.npz", "note", "values")[0].tolist() == [1, 2]
    assert len(list(tmp_path.iterdir())) == 1
    with pytest.raises(OutputUnwritable, match="No such file"):
        save_arrays(tmp_path / "none" / "a.npz", values=[1])


@pytest.mark.parametrize("compressed", [False, True])
def test_a_damaged_file_is_a_value_error_that_names_it(tmp_path: Path, compressed: bool) -> None:
    path = tmp_path / "a.npz"
    save_arrays(path, compressed=compressed, values=np.arange(300))
    content = path.read_bytes()
    told = []
    for place in range(len(content)):
        path.write_bytes(content[:place] + bytes([content[place] ^ 0xFF]) + content[place + 1 :])
        try:
            assert load_arrays(path, "note", "values")[0].tolist() == list(range(300))
        except ValueError as error:
            told.append(str(error))
    assert len(told) > 0.5 * len(content)
    assert all("a.npz is not a saved note" in each for each in told)
    with pytest.raises(ValueError, match="not a saved note"):
        load_arrays(tmp_path / "missing.npz", "note", "values")
