"""Results as this service's own FHIR server has them: every resource under an address of its own.

The report has the analysis' id, and what it refers to that id, a dot and eight digits of the id that other servers get.
"""

import json
import re
from typing import Final, Literal, TypeAlias, get_args

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
    content = version.fhir(settings, "collection").decode()
    resources = [entry["resource"] for entry in json.loads(content)["entry"]]
    for each in resources:
        content = content.replace(f'"urn:uuid:{each["id"]}"', f'"{each["resourceType"]}/{_id(version, each)}"')
    bundle = json.loads(content)
    meta = {"versionId": str(version.standing.revision), "lastUpdated": bundle["timestamp"]}
    found = {entry["fullUrl"]: entry["resource"] for entry in bundle["entry"]}
    return {
        address: each | {"id": _id(version, each), "meta": each.get("meta", {}) | meta}
        for address, each in found.items()
    }


def _id(version: ResultVersion, resource: Resource) -> str:
    own = "" if resource["resourceType"] == "DiagnosticReport" else f".{resource['id'][:8]}"
    return f"{version.analysis.id}{own}"
