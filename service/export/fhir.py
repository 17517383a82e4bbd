"""FHIR R4: a Bundle of DiagnosticReport, Observations, Device, Specimen and Provenance.

Bundle. A transaction of PUTs with ids of our own, derived from the analysis: all or nothing, sent again without
harm, and a corrected report replaces the one before it, whose versions the server keeps. It needs a server that
takes ids from clients ("update as create"). A collection holds the same resources for those who read.

What is the hospital's is referred to by its identifier only: patient, request and interpreter are neither created
nor changed. Every quantity is UCUM. The hot-spot is in each Observation's components (centre in level-0 px of the
slide, size in um) and, in words, in its notes. There is no `effective`: it would be the time of the specimen's
collection, which we are not told.

Checked against fhir.resources' R4B models, which are R4 for these resources, and against the value sets that it
does not look at: it takes any word as a status.
"""

import html
import json
import re
import uuid
from datetime import datetime
from typing import Any, Literal

from pydantic import ValidationError

from service.export import codes
from service.export.codes import Code, Concept
from service.export.findings import Finding, Measure, findings, place_measures, place_words, remarks
from service.extras import needs
from service.order import Confirmation, Order, ResultStatus
from service.refusals import FormatUnavailable
from service.report import Report
from service.strict import first_error

Resource = dict[str, Any]

REQUIRED_CODES: dict[str, set[str]] = {  # required bindings of R4, as far as we use them: path to codes we may send
    "Bundle.type": {"transaction", "collection"},
    "Bundle.entry.request.method": {"PUT"},
    "DiagnosticReport.status": {"preliminary", "final", "amended"},
    "DiagnosticReport.text.status": {"generated"},
    "Observation.status": {"preliminary", "final", "amended"},
    "Device.status": {"active"},
    "Device.deviceName.type": {"user-friendly-name", "model-name"},
    "Specimen.status": {"available"},
    "Provenance.entity.role": {"source"},
}


def to_fhir(
    report: Report,
    order: Order,
    status: ResultStatus,
    *,
    confirmed: Confirmation | None = None,
    bundle: Literal["transaction", "collection"] = "transaction",
) -> bytes:
    """Write UTF-8 JSON of a Bundle; the same arguments give the same bytes. Raises FormatUnavailable."""
    issued = (confirmed.at if confirmed else report.analysis.created_at).isoformat()
    device, specimen = _device(report), _specimen(report, order)
    common = {"status": status, "issued": issued, "specimen": _link(specimen)} | _subject(order)
    observations = [_observation(report, each, common | {"device": _link(device)}) for each in findings(report)]
    diagnosis = _diagnostic_report(report, order, common, observations, confirmed)
    provenance = _provenance(report, [diagnosis, *observations], device, issued, confirmed)
    entries = [_entry(each, bundle) for each in (diagnosis, *observations, device, specimen, provenance)]
    content = {"resourceType": "Bundle", "type": bundle, "timestamp": issued, "entry": entries}
    check_fhir(content)
    return json.dumps(content, ensure_ascii=False, indent=1).encode() + b"\n"


def check_fhir(bundle: Resource) -> None:
    """Raise FormatUnavailable where a Bundle does not follow R4's structure or required value sets."""
    with needs("interop"):
        from fhir.resources.R4B.bundle import Bundle
    try:
        Bundle.model_validate(bundle)
    except ValidationError as error:  # in full it quotes values
        place, words = first_error(error)
        raise FormatUnavailable(f"the report makes no valid FHIR bundle: {place}: {words}") from error
    for resource in (bundle, *(entry["resource"] for entry in bundle["entry"])):
        for path, allowed in REQUIRED_CODES.items():
            kind, *names = path.split(".")
            if kind == resource["resourceType"] and (wrong := set(_values(resource, names)) - allowed):
                raise FormatUnavailable(f"{path} cannot be {', '.join(sorted(map(str, wrong)))}")


def _values(node: Any, names: list[str]) -> list[Any]:
    """Find what lies at a path, through lists."""
    if isinstance(node, list):
        return [value for each in node for value in _values(each, names)]
    if not names:
        return [node]
    return _values(node[names[0]], names[1:]) if names[0] in node else []


def _resource(kind: str, name: str, **elements: Any) -> Resource:
    """Make a resource with an id made of a name, without the elements that are empty."""
    identity = str(uuid.uuid5(uuid.NAMESPACE_OID, f"{kind} {name}"))
    filled = {key: value for key, value in elements.items() if value not in (None, "", [], {})}
    return {"resourceType": kind, "id": identity, **filled}


def _entry(resource: Resource, bundle: str) -> Resource:
    entry = {"fullUrl": f"urn:uuid:{resource['id']}", "resource": resource}
    if bundle == "transaction":
        entry["request"] = {"method": "PUT", "url": f"{resource['resourceType']}/{resource['id']}"}
    return entry


def _link(resource: Resource) -> Resource:
    return {"reference": f"urn:uuid:{resource['id']}", "type": resource["resourceType"]}


def _coding(code: Code) -> Resource:
    return {"system": code.system.uri, "code": code.value, "display": code.meaning}


def _concept(concept: Concept, text: str = "") -> Resource:
    return {"coding": [_coding(code) for code in concept], "text": text or concept[-1].meaning}


def _identifier(value: str, *, system: str = "", kind: Code | None = None, assigner: str | None = None) -> Resource:
    identifier: Resource = {"type": {"coding": [_coding(kind)]}} if kind else {}
    if system:
        identifier["system"] = system
    identifier["value"] = _printable(value)
    if assigner:
        identifier["assigner"] = {"display": assigner}
    return identifier


def _printable(text: str) -> str:
    """Leave out control characters, which no FHIR string may hold; file names may."""
    return re.sub(r"[\x00-\x1f\x7f]+", " ", text).strip() or "-"


def _subject(order: Order) -> Resource:
    if order.patient_id is None:
        return {}
    identifier = _identifier(order.patient_id, assigner=order.patient_id_issuer)
    name = {"display": order.patient_name} if order.patient_name else {}
    return {"subject": {"type": "Patient", "identifier": identifier, **name}}


def _request(order: Order) -> list[Resource]:
    """Refer to the request by its first known number."""
    numbers = (
        (order.placer_order_number, codes.PLACER_NUMBER),
        (order.filler_order_number, codes.FILLER_NUMBER),
        (order.accession_number, codes.ACCESSION),
    )
    known = [_identifier(number, kind=kind) for number, kind in numbers if number]
    return [{"type": "ServiceRequest", "identifier": identifier} for identifier in known[:1]]


def _device(report: Report) -> Resource:
    software, model = report.software, report.model
    versions = ((codes.SOFTWARE, software.version), (codes.MODEL_SHA256, model.sha256))
    return _resource(
        "Device",
        f"{software.name} {software.version} {model.id} {model.sha256}",
        identifier=[_identifier(model.sha256, system="urn:mitosis:model-sha256")],
        status="active",
        deviceName=[
            {"name": software.name, "type": "user-friendly-name"},
            {"name": _printable(model.id), "type": "model-name"},
        ],
        modelNumber=_printable(model.id),
        version=[{"type": _concept(name), "value": _printable(value)} for name, value in versions],
    )


def _specimen(report: Report, order: Order) -> Resource:
    """Describe the slide: its block as the parent, its stain as what was done to it."""
    slide = _identifier(report.slide.sha256, system="urn:mitosis:slide-sha256")
    return _resource(
        "Specimen",
        report.analysis.id,
        identifier=[*([_identifier(order.specimen_id)] if order.specimen_id else []), slide],
        accessionIdentifier=order.accession_number and _identifier(order.accession_number, kind=codes.ACCESSION),
        status="available",
        type=_concept((codes.SLIDE,)),
        parent=[{"type": "Specimen", "identifier": _identifier(order.block), "display": order.block}]
        if order.block
        else [],
        processing=[{"procedure": {"text": order.stain}}] if order.stain else [],
        container=[{"identifier": [_identifier(order.container_id)]}] if order.container_id else [],
        **_subject(order),
    )


def _value(measure: Measure) -> Resource:
    if measure.unit is None:
        return {"valueBoolean": measure.value}
    unit = {"unit": measure.unit.meaning, "system": measure.unit.system.uri, "code": measure.unit.value}
    return {"valueQuantity": {"value": measure.value, **unit}}


def _observation(report: Report, finding: Finding, common: Resource) -> Resource:
    if finding.value is None:
        value: Resource = {"dataAbsentReason": _concept((codes.NOT_PERFORMED,), finding.missing)}
    elif finding.unit is None:
        value = {"valueInteger": finding.value}
    else:
        value = _value(Measure(finding.name, finding.value, finding.unit))
    place = finding.place
    measures = (*finding.details, *(place_measures(place) if place else ()))
    notes = [f"Hot-spot: {place_words(place)}"] if place else []
    return _resource(
        "Observation",
        f"{report.analysis.id} {finding.key}",
        identifier=[_identifier(f"{report.analysis.id} {finding.key}", system="urn:mitosis:observation")],
        category=[_concept((codes.LABORATORY,))],
        code=_concept(finding.name),
        method={"text": finding.method},
        note=[{"text": note} for note in notes],
        component=[{"code": _concept(each.name), **_value(each)} for each in measures],
        **value,
        **common,
    )


def _diagnostic_report(
    report: Report, order: Order, common: Resource, observations: list[Resource], confirmed: Confirmation | None
) -> Resource:
    words = [_printable(remark) for remark in remarks(report, confirmed)]
    paragraphs = "".join(f"<p>{html.escape(remark)}</p>" for remark in words)
    numbers = ((order.accession_number, codes.ACCESSION), (order.filler_order_number, codes.FILLER_NUMBER))
    return _resource(
        "DiagnosticReport",
        report.analysis.id,
        text={"status": "generated", "div": f'<div xmlns="http://www.w3.org/1999/xhtml">{paragraphs}</div>'},
        identifier=[
            _identifier(report.analysis.id, system="urn:mitosis:analysis"),
            *(_identifier(number, kind=kind) for number, kind in numbers if number),
        ],
        basedOn=_request(order),
        category=[_concept((codes.SURGICAL_PATHOLOGY,))],
        code=_concept(codes.REPORT),
        resultsInterpreter=[{"type": "Practitioner", "display": confirmed.name}] if confirmed else [],
        result=[_link(each) for each in observations],
        conclusion="\n".join(words),
        **{**common, "specimen": [common["specimen"]]},
    )


def _provenance(
    report: Report, targets: list[Resource], device: Resource, issued: str, confirmed: Confirmation | None
) -> Resource:
    """Say who made and who confirmed this version; each version has its own."""
    agents: list[Resource] = [{"type": _concept((codes.ASSEMBLER,)), "who": _link(device)}]
    if confirmed:
        office = {"onBehalfOf": {"display": confirmed.organization}} if confirmed.organization else {}
        agents.append({"type": _concept((codes.VERIFIER,)), "who": {"display": confirmed.name}, **office})
    slide = _identifier(report.slide.sha256, system="urn:mitosis:slide-sha256")
    return _resource(
        "Provenance",
        f"{report.analysis.id} {targets[0]['status']} {datetime.fromisoformat(issued).timestamp()}",
        target=[_link(each) for each in targets],
        recorded=issued,
        agent=agents,
        entity=[{"role": "source", "what": {"identifier": slide, "display": _printable(report.slide.name)}}],
    )
