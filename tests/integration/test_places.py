"""Where a service keeps what it has: in any folder, whatever its name, and open to nobody else, whatever the umask."""

import os
import stat
from pathlib import Path

import pytest

from tests.integration.running import Running
from tests.slides import draw_tissue, write_pyramid

ODD = "a b#c?d%41ü'\"&;[x]*{y}::+@=,!~$H"


def open_to_others(folder: Path) -> list[str]:
    """Paths in a folder, and itself, that others may read or write."""
    found = [folder, *folder.rglob("*")]
    return [str(path.relative_to(folder)) for path in found if stat.S_IMODE(path.lstat().st_mode) & 0o077]


def test_a_service_works_in_a_folder_of_any_name_and_nobody_else_reads_it(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    data = tmp_path_factory.mktemp("o") / ODD  # short: a socket's path has at most 108 bytes
    slide = write_pyramid(tmp_path / "slide.tif", [draw_tissue(620, 560)])
    running, before = Running(data, log=tmp_path / "log"), os.umask(0)
    try:
        running.start()
        analysis_id = running.submit(slide)
        report = running.report(analysis_id)
        overlay = running.http.get(f"/v1/analyses/{analysis_id}/overlay.png")
        assert overlay.status_code == 200, (overlay.text, running.told())
        assert [path.name for path in data.parent.iterdir()] == [ODD], "and not beside it"
        assert (data / "jobs.sqlite3").stat().st_size > 0
        assert (data / "broker" / "valkey.sock").is_socket()
        assert open_to_others(data) == []
        running.stop()

        for path in (data, *data.rglob("*")):  # as an earlier release may have left them
            path.chmod(0o777 if path.is_dir() else 0o666)
        running.start()
        assert running.report(analysis_id) == report
        ours = [data, *data.glob("*"), *data.glob("jobs.sqlite3*")]
        assert [path.name for path in ours if stat.S_IMODE(path.stat().st_mode) & 0o077] == []
    finally:
        os.umask(before)
        running.stop()
