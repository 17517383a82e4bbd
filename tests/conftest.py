"""What several tests need, and which tests run where."""

import gc
import os
import shutil
import socket
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings
from PIL import Image
from sqlalchemy import Engine

from service.hosts import is_public
from tests import drawn
from tests.databases import job_store
from tests.deployment.programs import PostgreSQL
from tests.deployment.stack import postgres
from tests.drawn import dense_crop
from tests.leftovers import hold, sweep

FIELD_MPP = 0.25

settings.register_profile("ci", derandomize=True)  # a submission is judged on the same examples every time
if os.environ.get("CI"):
    settings.load_profile("ci")

os.environ.setdefault("MITOSIS_CACHE_DIR", "")  # commands under test leave nothing in the home of who tests

# Also where the machine says otherwise: some hundred processes of ours start, and each would compile the service anew,
# as each worker of xdist would all tests.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False

# The first workers of xdist take a core each before torch and OpenVINO count them: two libraries with two threads each
# on two cores spend their time waiting for one another. The others take whatever core has nothing to do, with one
# OpenMP thread each.
if (worker := os.environ.get("PYTEST_XDIST_WORKER")) and hasattr(os, "sched_setaffinity"):
    cores, number = sorted(os.sched_getaffinity(0)), int(worker[2:])
    if number < len(cores):
        os.sched_setaffinity(0, {cores[number]})
    else:
        os.environ["OMP_NUM_THREADS"] = "1"

# What waits for others or takes long comes first, so that something is left to do beside it, and after it.
FIRST = ("web", "integration", "chaos", "training", "interop", "worker")
# Files that share a service, which each worker of xdist would start anew.
TOGETHER = {
    "the viewer's service": ("tests/web/",),
    "one service": tuple(f"tests/integration/test_{name}" for name in ("client", "contract", "submit", "waiting")),
    "one site": ("tests/interop/test_holds.py", "tests/interop/test_patients.py"),
}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    places = {f"tests/{folder}": place for place, folder in enumerate(FIRST)}
    items.sort(key=lambda item: places.get(item.nodeid.partition("::")[0].rpartition("/")[0], len(FIRST)))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """`--dist loadfile`, with the files of TOGETHER as one."""
    if config.getoption("dist") != "loadfile":
        return None
    from xdist.scheduler import LoadFileScheduling

    class Together(LoadFileScheduling):
        def _split_scope(self, nodeid: str) -> str:
            file: str = super()._split_scope(nodeid)
            return next((what for what, files in TOGETHER.items() if file.startswith(files)), file)

    return Together(config, log)


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Iterator[None]:
    """Import all without looking for garbage, and look through none of it later."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


@pytest.fixture(scope="session")
def shared() -> Path:
    """Real fields and slides, which are not part of the repository."""
    folder = Path(__file__).parents[2] / "shared"
    if not (folder / "data").is_dir():
        pytest.skip("needs the real slides and fields in ../shared/data")
    return folder


@pytest.fixture(scope="session")
def private_name() -> str:
    """A name of this machine, other than localhost, that leads to a private address only."""
    name = socket.gethostname()
    try:
        addresses = {str(each[4][0]) for each in socket.getaddrinfo(name, 80)}
    except OSError:
        addresses = set()
    if name == "localhost" or not addresses or any(map(is_public, addresses)):
        pytest.skip("needs a name of this machine with a private address")
    return name


@pytest.fixture(scope="session", autouse=True)
def _leftovers(tmp_path_factory: pytest.TempPathFactory) -> None:
    sweep()
    hold(tmp_path_factory.getbasetemp())


@pytest.fixture(scope="session", autouse=True)
def _shared_drawings(tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.getbasetemp()
    drawn.shared[:] = [folder.parent if "PYTEST_XDIST_WORKER" in os.environ else folder]


@pytest.fixture(scope="session")
def mitoses_image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """700 x 700 px of a drawn section, of FIELD_MPP, where its mitoses lie most densely."""
    path = tmp_path_factory.mktemp("field") / "field.png"
    Image.fromarray(dense_crop(700, 700)[0]).save(path)
    return path


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    """An empty job store in the test's folder."""
    found = job_store(tmp_path)
    yield found
    found.dispose()


@pytest.fixture(scope="session")
def postgresql_server() -> Iterator[PostgreSQL]:
    with postgres() as server:
        yield server


@pytest.fixture
def postgresql(postgresql_server: PostgreSQL) -> str:
    """The URL of a database of PostgreSQL without tables."""
    return postgresql_server.create(f"of-{uuid.uuid4()}")


@pytest.fixture
def locked_folder() -> Iterator[Path]:
    """A folder that may be neither read nor written; root may do everything, so the test is run as nobody."""
    folder = Path("/tmp") / f"mitosis-locked-{os.getpid()}"  # nobody cannot get to tmp_path
    folder.mkdir()
    Image.new("RGB", (60, 40)).save(folder / "slide.png")
    folder.chmod(0)
    user = os.geteuid()
    if user == 0:
        os.seteuid(65534)
    yield folder
    if user == 0:
        os.seteuid(0)
    folder.chmod(0o700)
    shutil.rmtree(folder)
