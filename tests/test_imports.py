"""Imports go one way: the library knows nothing of servers, and what a server needs of it does not need torch."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import service

PACKAGE = Path(service.__file__).parent
SERVERS = {"fastapi", "starlette", "uvicorn", "celery", "kombu", "redis", "sqlalchemy", "alembic", "pydantic_settings"}
# each module may import those of its own group and of later ones
ROAD = (
    {"cli", "__main__", "runner"},
    {"analysis"},
    {"plan"},
    {"inference", "backend", "weights", "network", "export_onnx", "render", "export", "notices", "report"},
    {
        "calibration",
        "mitotic_figures",
        "mitotic_activity",
        "mitotic_definitions",
        "probability_map",
        "parameters",
        "model_card",
    },
    {"slide", "tissue", "tiling", "stain", "readers", "jpeg_tiles"},
    {"errors", "order", "commit"},
)
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
    "service.cli",
]


def modules() -> Iterator[tuple[str, ast.Module]]:
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        yield ".".join(part for part in parts if part != "__init__"), ast.parse(path.read_text())


def imported(tree: ast.AST) -> set[str]:
    """Full names of all that is imported, inside functions too."""
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


LIBRARY = [
    (name, tree)
    for name, tree in modules()
    if name in ("", "sample") or any(name.split(".")[0] in each for each in ROAD[1:])
]


@pytest.mark.parametrize(("name", "tree"), LIBRARY, ids=[name or "service" for name, _ in LIBRARY])
def test_the_library_imports_no_server_and_no_edge(name: str, tree: ast.Module) -> None:
    names = imported(tree)
    assert not {each.split(".")[0] for each in names} & SERVERS
    ours = {each.split(".")[1] for each in names if each.startswith("service.")}
    assert ours <= {"__version__", "sample", *set().union(*ROAD[1:])}, f"{name} belongs to the library"


@pytest.mark.parametrize(("name", "tree"), LIBRARY, ids=[name or "service" for name, _ in LIBRARY])
def test_imports_go_one_way_along_the_road(name: str, tree: ast.Module) -> None:
    rank = {module: number for number, group in enumerate(ROAD) for module in group}
    own = rank.get(name.split(".")[0])
    if own is None:
        assert name in ("", "sample"), f"{name} has no place on the road yet"
        own = 0
    later = {each.split(".")[1] for each in imported(tree) if each.startswith("service.")} - {"__version__"}
    assert all(rank[module] >= own for module in later), f"{name} imports {sorted(later)}"


def test_the_gateways_part_does_not_import_torch() -> None:
    """One process for all of them: what none of them imports, no single one does."""
    code = f"import sys, {', '.join(TORCH_FREE)}; print(*sorted({{'torch', 'openvino'}} & set(sys.modules)))"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert run.stdout.split() == []


def test_what_is_slow_or_optional_is_imported_when_it_is_used() -> None:
    modules = ("fhir", "hl7", "dicom")
    code = f"import sys, {', '.join(f'service.export.{name}' for name in modules)}; print(*sys.modules)"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert not {"fhir", "hl7apy", "highdicom", "pydicom"} & set(run.stdout.split())


def test_the_package_itself_holds_its_version_only() -> None:
    code = "import sys, service; print(*(name for name in sys.modules if name.startswith('service')))"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert run.stdout.split() == ["service"]
