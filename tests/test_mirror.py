"""Tests lie where their module does: tests/WING/test_MODULE.py for service/WING/MODULE.py, or it is said why not."""

from pathlib import Path

import pytest

import service

PACKAGE, TESTS = Path(service.__file__).parent, Path(__file__).parent
MOST_LINES = 400  # of a test module

WIRING = "parts put together, and nothing decided"
FACTS = "names and numbers; what uses them is tested"
# module: why it has no test file of its name, with the file that tests it where that is one
WITHOUT = {
    "__main__": WIRING,
    "backend": "every kind of arithmetic against the others: test_inference.py",
    "csv_rows": "by what reads such tables: test_cohort.py, training/test_fields.py",
    "focus": "found on blurred tissue: test_quality.py",
    "folds": "found on drawn folds: test_quality.py",
    "ink": "every colour of pen: test_quality.py",
    "midog_boxes": "written and read back: export/test_formats.py, training/test_labels.py",
    "model_card": "of weights and their card: test_weights.py, cli/test_app.py",
    "refusals": "a tree of codes, walked with the errors: test_errors.py",
    "report": "a schema; each field is looked at where it is made: test_analysis.py, docs/test_reports.py",
    "sample_cells": "how the drawn slide looks: test_sample.py",
    "api/analyses": "routes, with a worker: integration/test_client.py, integration/test_contract.py",
    "api/app": WIRING,
    "api/audit": "who looked at what, by every route: integration/test_review.py, store/test_audit.py",
    "api/formats": "by the media types that are asked for: api/test_results.py",
    "api/holds": "routes, with real processes: interop/test_holds.py",
    "api/layers": "pictures of a running service: web/test_story.py",
    "api/maintenance": "what it does every second, with processes that die: chaos/test_chaos.py",
    "api/review": "routes, with two people at once: integration/test_review.py",
    "api/schemas": "the description against the service: integration/test_contract.py",
    "api/state": WIRING,
    "cli/ablate": "the command makes the study: training/test_ablation.py",
    "cli/audit": "the command reads the log: store/test_audit.py",
    "cli/cross_validate": "the command makes the study: training/test_cross_validation.py",
    "cli/demo": "real processes: integration/test_demo.py",
    "cli/evaluate": "the command makes the figures: training/test_evaluate.py",
    "cli/export_onnx": "the command writes a model: test_export_onnx.py",
    "cli/failures": "what a command says: cli/test_starts.py, cli/test_console.py",
    "cli/info": "the command describes a slide: cli/test_app.py",
    "cli/keys": "the command makes the keys: store/test_keys.py",
    "cli/labels": "the command makes the fields: training/test_labels.py",
    "cli/migrate": "the command of an upgrade: deployment/test_postgresql.py",
    "cli/options": FACTS,
    "cli/processes": "with processes that are killed: cli/test_analyze.py",
    "cli/recount": "the command compares a card: training/test_held_out_file.py",
    "cli/retention": "the command shows and allows it: store/test_retention.py",
    "cli/serve": WIRING,
    "cli/supervisor": "real processes that die: chaos/test_chaos.py",
    "cli/verify": "the command says what is not the same: integration/test_review.py",
    "client/watched_folder": "the command watches a folder: cli/test_watch.py",
    "export/codes": FACTS,
    "export/asap": "every format by its reader: export/test_formats.py",
    "export/coco": "every format by its reader: export/test_formats.py",
    "export/dsa": "every format by its reader: export/test_formats.py",
    "export/marks": "every format by its reader: export/test_formats.py",
    "export/midog_points": "what the challenge's command writes: cli/test_midog.py",
    "export/ome_tiff": "by the parser of OME: export/test_map_pyramid.py",
    "export/ome_zarr": "level by level: export/test_map_pyramid.py",
    "export/fhir_order": "what came goes out: interop/test_echo.py, export/test_fhir.py",
    "export/hl7_order": "what came goes out: interop/test_echo.py, export/test_hl7.py",
    "intake/pictures": "drawn by a child: intake/test_sandbox.py",
    "intake/sandbox_child": "a process that may do nothing: intake/test_sandbox.py",
    "api/fhir_results": "reads and searches: api/test_fhir.py",
    "interop/fhir_served": "every address of a report: api/test_fhir.py; orders: interop/test_echo.py",
    "export/dicom_instance": "UIDs and times of every object: export/test_dicom.py, export/test_dicom_pdf.py",
    "interop/http_post": "by what is sent with it: interop/test_dicomweb.py, interop/test_acknowledgements.py",
    "interop/result_pdf": "with a slide, and when it is gone: api/test_results.py; sent: interop/test_channels.py",
    "interop/delivery_errors": FACTS,
    "interop/hl7_answers": "orders by HL7: interop/test_hl7_orders.py",
    "interop/hl7_identifiers": "orders by HL7: interop/test_hl7_orders.py, interop/test_patients.py",
    "interop/result_dicom": "in the zip, of a slide that is gone: api/test_results.py; integration/test_archive.py",
    "interop/result_version": "what goes out of which version: interop/test_channels.py",
    "readers/levels": "readers against one another, through a slide: test_slide.py",
    "readers/mirax": "a slide's file and its folder: client/test_packing.py, intake/test_archive.py",
    "readers/opened_slide": "a value and a protocol",
    "readers/slide_folders": "of folders of DICOM files: readers/test_dicom_images.py",
    "readers/tiff_images": "which picture of a file is the slide: readers/test_image_series.py",
    "readers/tiff_slide": "a reader against the others: test_slide.py",
    "store/clock": "what a wrong one does: store/test_retention.py, store/test_sessions.py",
    "store/database": "on SQLite by every store, on PostgreSQL: deployment/test_postgresql.py",
    "store/holds": "whose result it is: interop/test_holds.py, store/test_patient_gate_migration.py",
    "store/matching": "whose result it is: interop/test_patients.py, interop/test_echo.py",
    "store/orders": "orders by HL7: interop/test_hl7_orders.py",
    "store/records": FACTS,
    "store/reviews": "two people at once: test_review.py, deployment/test_postgresql.py",
    "store/sqlite": "on SQLite by every store; its file's mode: integration/test_places.py",
    "worker/transport": "with a worker of its own: worker/test_process.py",
    "training/midog_file": "read with the fields that it lists: training/test_fields.py",
    "training/final_model": "the last step of the study: training/test_cross_validation.py",
}


def modules() -> set[str]:
    """All modules of the package but packages and migrations, as WING/MODULE."""
    paths = (path.relative_to(PACKAGE).with_suffix("") for path in PACKAGE.rglob("*.py"))
    return {path.as_posix() for path in paths if path.name != "__init__" and "migrations" not in path.parts}


def has_tests(module: str) -> bool:
    folder, _, name = module.rpartition("/")
    return (TESTS / folder / f"test_{name}.py").is_file()


def test_a_module_has_its_tests_or_a_reason() -> None:
    assert {each for each in modules() if not has_tests(each)} - WITHOUT.keys() == set()


def test_no_reason_outlives_what_it_is_of() -> None:
    assert WITHOUT.keys() - modules() == set(), "these modules are gone"
    assert {each for each in WITHOUT if has_tests(each)} == set(), "these have tests of their own"


@pytest.mark.parametrize("module", WITHOUT)
def test_a_reason_leads_to_tests_that_are_there(module: str) -> None:
    files = [word.strip(",") for word in WITHOUT[module].split() if word.strip(",").endswith(".py")]
    assert [file for file in files if not (TESTS / file).is_file()] == []


def test_no_test_module_is_too_long_to_be_read() -> None:
    lengths = {path: len(path.read_text().splitlines()) for path in TESTS.rglob("test_*.py")}
    assert {path.name for path, lines in lengths.items() if lines > MOST_LINES} == set()
