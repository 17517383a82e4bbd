"""Results as this service's own FHIR server has them: every resource under an address of its own.

The report has the analysis' id, and what it refers to that id, a dot and eight digits of the id that other servers get.
"""

import json
import re
from typing import Any, Final, Literal, TypeAlias, get_args

from service.export.fhir_order import Resource
from service.interop.result_version import ResultVersion
from service.store.settings import Settings

Part: TypeAlias = Literal["DiagnosticReport", "Observation", "Device", "Specimen", "Provenance"]
PARTS: Final[tuple[Part, ...]] = get_args(Part)
ANALYSIS_ID: Final = re.compile(r"([0-9a-f-]{36})(\.[0-9a-f]{8})?")


def analysis_of(resource_id: str) -> str | None:
    """Read the analysis' id in a resource's; None where it is none of ours."""
    found = ANALYSIS_ID.fullmatch(resource_id)
    return found[1] if found else None


def served(version: ResultVersion, settings: Settings) -> dict[str, Resource]:
    """Give all resources of a result by address, as `Observation/ID`; the report first. Raises FormatUnavailable."""
    bundle = json.loads(version.fhir(settings, "collection"))
    resources = [entry["resource"] for entry in bundle["entry"]]
    addresses = {f"urn:uuid:{each['id']}": f"{each['resourceType']}/{_id(version, each)}" for each in resources}
    meta = {"versionId": str(version.revision), "lastUpdated": bundle["timestamp"]}
    return {
        addresses[f"urn:uuid:{each['id']}"]: {
            **_with_addresses(each, addresses),
            "id": _id(version, each),
            "meta": each.get("meta", {}) | meta,
        }
        for each in resources
    }


def _id(version: ResultVersion, resource: Resource) -> str:
    own = "" if resource["resourceType"] == "DiagnosticReport" else f".{resource['id'][:8]}"
    return f"{version.analysis.id}{own}"


def _with_addresses(value: Any, addresses: dict[str, str]) -> Any:
    if isinstance(value, dict):
        return {name: _with_addresses(each, addresses) for name, each in value.items()}
    if isinstance(value, list):
        return [_with_addresses(each, addresses) for each in value]
    return addresses.get(value, value) if isinstance(value, str) else value
