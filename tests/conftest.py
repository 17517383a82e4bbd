"""What several tests need."""

import os
import shutil
import socket
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings
from PIL import Image

from service.hosts import is_public
from tests.deployment.programs import PostgreSQL
from tests.deployment.stack import postgres
from tests.drawn import dense_crop

FIELD_MPP = 0.25

settings.register_profile("ci", derandomize=True)  # a submission is judged on the same examples every time
if os.environ.get("CI"):
    settings.load_profile("ci")

# Workers of xdist take a core each before torch and OpenVINO count them: two libraries with two threads each on two
# cores spend their time waiting for one another.
if (worker := os.environ.get("PYTEST_XDIST_WORKER")) and hasattr(os, "sched_setaffinity"):
    cores = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {cores[int(worker[2:]) % len(cores)]})


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


@pytest.fixture(scope="session")
def mitoses_image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """700 x 700 px of a drawn section, of FIELD_MPP, where its mitoses lie most densely."""
    path = tmp_path_factory.mktemp("field") / "field.png"
    Image.fromarray(dense_crop(700, 700)[0]).save(path)
    return path


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
