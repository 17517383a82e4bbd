"""Imports go one way: the library knows no wing, wings know only those below them, and the gateway needs no torch."""

import ast
import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from functools import cache
from graphlib import TopologicalSorter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

import service
from tests.slides import draw_tissue, write_pyramid

PACKAGE = Path(service.__file__).parent
SERVERS = {"fastapi", "starlette", "uvicorn", "celery", "kombu", "redis", "sqlalchemy", "alembic", "pydantic_settings"}
# each wing imports the library and the wings named here; "" is the library: service/ itself, and readers/
WINGS = {
    "": set(),
    "export": set(),
    "training": set(),
    "client": set(),
    "store": set(),
    "worker": {"store"},
    "intake": {"store"},
    "interop": {"store", "intake", "export"},
    "api": {"store", "intake", "interop", "worker", "export"},
    "cli": {"store", "intake", "interop", "worker", "export", "api", "client", "training"},
}
IMPORTED = re.compile(r'(?:from |import\()"\./([^"]+)"')  # by a module of the viewer, also while it runs
TORCH_FREE = [
    "service",
    "service.slide",
    "service.report",
    "service.export.csv",
    "service.export.geojson",
    "service.export.fhir",
    "service.export.hl7",
    "service.export.dicom",
    "service.errors",
    "service.model_card",
    "service.parameters",
    "service.api.app",
    "service.cli.app",
]


def modules() -> Iterator[tuple[str, Path]]:
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
        yield ".".join(part for part in parts if part != "__init__"), path


@cache
def imported(name: str) -> frozenset[str]:
    """Full names of all that a module of ours imports, inside functions too."""
    names = set()
    for node in ast.walk(ast.parse(MODULES[name].read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return frozenset(names)


MODULES = dict(modules())


def ours(name: str) -> set[str]:
    """The modules of ours that one imports; `from service.slide import Box` is `service.slide`."""
    found = (each for each in imported(name) if each.startswith("service"))
    return {each if each in MODULES else each.rpartition(".")[0] for each in found}


BELOW_THE_READERS = {"service.box", "service.errors", "service.files", "service.refusals"}


def folder(module: str) -> str:
    """The folder that a module of ours lies in, "" for service/ itself."""
    first = module.split(".")[1:2]
    return first[0] if first and (PACKAGE / first[0]).is_dir() else ""


def wing(module: str) -> str:
    """The folder of a module that belongs to an edge of the house, "" for the library."""
    return "" if folder(module) == "readers" else folder(module)


@pytest.mark.parametrize("name", [name for name in MODULES if name != "service.__main__"])
def test_a_module_imports_only_its_own_wing_and_those_below(name: str) -> None:
    own = wing(name)
    wings = {wing(each) for each in ours(name)} - {own, ""}
    assert wings <= WINGS[own], f"{name} imports {sorted(wings - WINGS[own])}"


@pytest.mark.parametrize("name", [name for name in MODULES if wing(name) in ("", "export", "training", "client")])
def test_the_library_its_exports_its_training_and_the_client_need_no_server(name: str) -> None:
    if name != "service.__main__":
        assert not {each.split(".")[0] for each in imported(name)} & SERVERS


def test_readers_know_nothing_of_the_library_but_boxes_files_and_errors() -> None:
    for name in MODULES:
        if folder(name) == "readers":
            above = {each for each in ours(name) if folder(each) != "readers"} - BELOW_THE_READERS
            assert not above, f"{name} imports {sorted(above)}"
    for name in BELOW_THE_READERS:
        assert not {each for each in ours(name) if folder(each) == "readers"}


def test_no_circle_of_imports_between_files_or_folders() -> None:
    TopologicalSorter({name: ours(name) - {name} for name in MODULES}).prepare()  # raises CycleError
    folders: dict[str, set[str]] = {}
    for name in MODULES:
        if name != "service.__main__" and name not in BELOW_THE_READERS:  # `python -m service` is the command line
            found = ours(name) - BELOW_THE_READERS
            folders.setdefault(folder(name), set()).update({folder(each) for each in found} - {folder(name)})
    TopologicalSorter(folders).prepare()


def test_no_circle_of_imports_in_the_viewer() -> None:
    viewer = PACKAGE / "web" / "viewer"
    imports = {file.name: set(IMPORTED.findall(file.read_text())) for file in viewer.glob("*.js")}
    assert imports["main.js"] & set(imports)
    TopologicalSorter(imports).prepare()


def test_the_gateways_part_does_not_import_torch() -> None:
    """One process for all of them: what none of them imports, no single one does."""
    names = [*TORCH_FREE, *(name for name in MODULES if wing(name) == "cli")]  # commands are imported when they run
    code = f"import sys, {', '.join(names)}; print(*sorted({{'torch', 'openvino'}} & set(sys.modules)))"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert run.stdout.split() == []


@pytest.mark.parametrize(
    ("names", "late"),
    [
        ("service.cli.app", {"numpy", "pydantic", "rich.console"}),
        ("service.cli.analyze", {"fsspec", "scipy.ndimage", "scipy.spatial", "skimage.measure", "sqlalchemy"}),
        ("service.cli.supervisor, service.api.app", {"alembic", "scipy.ndimage", "scipy.spatial", "scipy.special"}),
        ("service.worker.process", {"alembic", "scipy.ndimage", "sqlalchemy"}),
        ("service.intake.sandbox_child", {"celery", "scipy.ndimage", "scipy.spatial", "sqlalchemy", "zarr"}),
    ],
)
def test_what_takes_long_to_import_waits_until_it_is_needed(names: str, late: set[str]) -> None:
    code = f"import sys, {names}; print(*sys.modules)"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert late & set(run.stdout.split()) == set()


def test_the_client_imports_neither_torch_nor_celery() -> None:
    names = [name for name in MODULES if wing(name) == "client"]
    code = f"import sys, {', '.join(names)}; print(*sorted({{'torch', 'celery', 'sqlalchemy'}} & set(sys.modules)))"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert run.stdout.split() == []


def test_an_analysis_on_a_cpu_imports_what_it_uses(mitoses_image: Path) -> None:
    command = ["-X", "importtime", "-m", "service", "analyze", mitoses_image, "--mpp", "0.25", "--device", "cpu"]
    run = subprocess.run([sys.executable, *command], capture_output=True, text=True, check=True, timeout=120)
    loaded = {line.rpartition("|")[2].strip() for line in run.stderr.splitlines() if line.startswith("import time:")}
    assert "openvino" in loaded
    needless = {"torch", "openvino_telemetry"}
    assert not needless & loaded


class Refusing(BaseHTTPRequestHandler):
    """A service that wants a key."""

    def refuse(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.send_response(401)
        self.end_headers()
        self.wfile.write(b'{"code": "key-required"}')

    do_PUT = do_POST = do_GET = refuse  # noqa: N815  names of the base class

    def log_message(self, *_: object) -> None:
        pass


@pytest.mark.parametrize("command", [["submit", "slide.tif"], ["watch", ".", "--still", "0.1", "--every", "0.1"]])
def test_who_sends_slides_to_a_service_does_without_what_runs_one(tmp_path: Path, command: list[str]) -> None:
    write_pyramid(tmp_path / "slide.tif", [draw_tissue(300, 300)])
    environment = {**os.environ, "PYTHONPATH": str(PACKAGE.parent), "MITOSIS_DATA_DIR": str(tmp_path / "data")}
    with ThreadingHTTPServer(("127.0.0.1", 0), Refusing) as server:
        threading.Thread(target=server.serve_forever).start()
        asked = [*command, "--server", f"http://127.0.0.1:{server.server_address[1]}"]
        process = subprocess.Popen(
            [sys.executable, "-X", "importtime", "-m", "service", *asked],
            cwd=tmp_path,
            env=environment,
            stderr=subprocess.PIPE,
            text=True,
        )
        try:
            lines: list[str] = []
            assert process.stderr is not None
            for line in process.stderr:
                lines.append(line)
                if line.startswith("error: key-required"):  # it has opened the slide and sent it
                    break
        finally:
            process.kill()
            process.communicate()
            server.shutdown()
    assert lines[-1].startswith("error: key-required"), lines[-5:]
    loaded = {line.rpartition("|")[2].strip().partition(".")[0] for line in lines if line.startswith("import time:")}
    assert "httpx" in loaded
    assert not loaded & {"torch", "openvino", "celery", "sqlalchemy", "fastapi"}


def test_what_is_slow_or_optional_is_imported_when_it_is_used() -> None:
    modules = ("cli.app", "api.app", "export.fhir", "export.hl7", "export.dicom")
    code = f"import sys, {', '.join(f'service.{name}' for name in modules)}; print(*sys.modules)"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert not {"fhir", "hl7apy", "highdicom", "pydicom", "scipy.stats", "matplotlib"} & set(run.stdout.split())


def test_the_package_itself_holds_its_version_only() -> None:
    code = "import sys, service; print(*(name for name in sys.modules if name.startswith('service')))"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert run.stdout.split() == ["service"]


def test_the_package_says_that_it_is_typed() -> None:
    assert (PACKAGE / "py.typed").is_file()  # PEP 561
