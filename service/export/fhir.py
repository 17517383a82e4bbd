"""FHIR R4: a Bundle of DiagnosticReport, Observations, Device, Specimen and Provenance.

Bundle. A transaction of PUTs with ids of our own, derived from the analysis: all or nothing, sent again without
harm, and a corrected report replaces the one before it, whose versions the server keeps. It needs a server that
takes ids from clients ("update as create"). A collection holds the same resources for those who read.

What is the hospital's is referred to by its identifier only, as it came: patient, request and interpreter are neither
created nor changed. A result that a person gives to another order gets resources of its own; those of the order before
stay where they are, as entered in error. Every quantity is UCUM. The hot-spot is in each Observation's components
(centre in level-0 px of the slide, size in um) and, in words, in its notes. `effective` is when it was computed: when
the specimen was taken, we are not told. `performer` is who vouches for it, so that a preliminary result has none.

Checked against fhir.resources' R4B models, which are R4 for these resources, and against the value sets that it
does not look at: it takes any word as a status.
"""

import base64
import html
import json
import uuid
from collections.abc import Collection
from datetime import datetime
from typing import Any, Literal

from pydantic import ValidationError

from service.export import codes, fhir_order
from service.export.codes import Concept
from service.export.fhir_order import Resource, filled, identifier, printable
from service.export.findings import Finding, Measure, findings, place_measures, place_words, remarks
from service.extras import needs
from service.order import Confirmation, Order, Standing
from service.refusals import FormatUnavailable
from service.report import Report
from service.strict import first_error

REQUIRED_CODES: dict[str, set[str]] = {  # required bindings of R4, as far as we use them: path to codes we may send
    "Bundle.type": {"transaction", "collection"},
    "Bundle.entry.request.method": {"PUT"},
    "DiagnosticReport.status": {"preliminary", "final", "amended", "entered-in-error"},
    "DiagnosticReport.text.status": {"generated"},
    "Observation.status": {"preliminary", "final", "amended", "entered-in-error"},
    "Device.status": {"active"},
    "Device.deviceName.type": {"user-friendly-name", "model-name"},
    "Specimen.status": {"available"},
    "Provenance.entity.role": {"source"},
}


def to_fhir(
    report: Report,
    order: Order,
    standing: Standing,
    *,
    bundle: Literal["transaction", "collection"] = "transaction",
    chosen: Collection[str] | None = None,
    viewer: str = "",
    pdf: bytes | None = None,
) -> bytes:
    """Write UTF-8 JSON of a Bundle; the same arguments give the same bytes.

    `chosen`: of `RESULTS`, by default all. `viewer`: the service's address for people; `pdf` is the same for people.

    Raises FormatUnavailable.
    """
    confirmed, issued = standing.confirmed, standing.since(report.analysis.created_at).isoformat()
    name = report.analysis.id if standing.moves == 0 else f"{report.analysis.id} moved {standing.moves}"
    device, specimen = _device(report), _specimen(report, order, name)
    common: Resource = {
        "status": "entered-in-error" if standing.withdrawn else standing.status,
        "issued": issued,
        "specimen": _link(specimen),
    }
    common |= fhir_order.subject(order) | {"effectiveDateTime": report.analysis.created_at.isoformat()}
    if confirmed:
        office = [{"type": "Organization", "display": confirmed.organization}] if confirmed.organization else []
        common["performer"] = [{"type": "Practitioner", "display": confirmed.name}, *office]
    of_device = common | {"device": _link(device)}
    observations = [_observation(f"{name} {each.key}", report, each, of_device) for each in findings(report, chosen)]
    diagnosis = _diagnostic_report(name, report, order, common, observations, confirmed)
    if forms := _forms(report, viewer, pdf, issued):
        diagnosis["presentedForm"] = forms
    provenance = _provenance(name, report, [diagnosis, *observations], device, issued, confirmed)
    resources = [diagnosis, *observations, device, specimen, provenance]
    entries = [_entry(each | fhir_order.processing_mark(order), bundle) for each in resources]
    content = {"resourceType": "Bundle", "type": bundle, "timestamp": issued, "entry": entries}
    check_fhir(content)
    return json.dumps(content, ensure_ascii=False, indent=1).encode() + b"\n"


def _forms(report: Report, viewer: str, pdf: bytes | None, issued: str) -> list[Resource]:
    """Give the same for people: the PDF, and the address in the viewer."""
    common = {"language": "en", "title": codes.REPORT[0].meaning}
    forms: list[Resource] = []
    if pdf is not None:
        content = {"data": base64.b64encode(pdf).decode(), "creation": issued}
        forms.append({"contentType": "application/pdf"} | common | content)
    if viewer:
        title = {"title": codes.VIEWER[0].meaning, "url": f"{viewer}/#analysis={report.analysis.id}"}
        forms.append({"contentType": "text/html"} | common | title)
    return forms


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
    return {"resourceType": kind, "id": identity, **filled(**elements)}


def _entry(resource: Resource, bundle: str) -> Resource:
    entry = {"fullUrl": f"urn:uuid:{resource['id']}", "resource": resource}
    if bundle == "transaction":
        entry["request"] = {"method": "PUT", "url": f"{resource['resourceType']}/{resource['id']}"}
    return entry


def _link(resource: Resource) -> Resource:
    return {"reference": f"urn:uuid:{resource['id']}", "type": resource["resourceType"]}


def _concept(concept: Concept, text: str = "") -> Resource:
    return {"coding": [fhir_order.coding(code) for code in concept], "text": text or concept[-1].meaning}


def _device(report: Report) -> Resource:
    software, model = report.software, report.model
    versions = ((codes.SOFTWARE, software.version), (codes.MODEL_SHA256, model.sha256))
    return _resource(
        "Device",
        f"{software.name} {software.version} {model.id} {model.sha256}",
        identifier=[identifier(model.sha256, system="urn:mitosis:model-sha256")],
        status="active",
        deviceName=[
            {"name": software.name, "type": "user-friendly-name"},
            {"name": printable(model.id), "type": "model-name"},
        ],
        modelNumber=printable(model.id),
        version=[{"type": _concept(name), "value": printable(value)} for name, value in versions],
    )


def _specimen(report: Report, order: Order, name: str) -> Resource:
    """Describe the slide: its block as the parent, its stain as what was done to it."""
    slide = identifier(report.slide.sha256, system="urn:mitosis:slide-sha256")
    return _resource(
        "Specimen",
        name,
        identifier=[*fhir_order.specimen_identifiers(order), slide],
        accessionIdentifier=fhir_order.accession(order),
        status="available",
        type=_concept((codes.SLIDE,)),
        parent=[{"type": "Specimen", "identifier": identifier(order.block), "display": order.block}]
        if order.block
        else [],
        processing=[{"procedure": {"text": order.stain}}] if order.stain else [],
        container=fhir_order.container(order),
        **fhir_order.subject(order),
    )


def _value(measure: Measure) -> Resource:
    if measure.unit is None:
        return {"valueBoolean": measure.value}
    unit = {"unit": measure.unit.meaning, "system": measure.unit.system.uri, "code": measure.unit.value}
    return {"valueQuantity": {"value": measure.value, **unit}}


def _observation(name: str, report: Report, finding: Finding, common: Resource) -> Resource:
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
        name,
        identifier=[identifier(f"{report.analysis.id} {finding.key}", system="urn:mitosis:observation")],
        category=[_concept((codes.LABORATORY,))],
        code=_concept(finding.name),
        interpretation=[] if finding.high is None else [_concept((codes.HIGH if finding.high else codes.NORMAL,))],
        method={"text": finding.method},
        note=[{"text": note} for note in notes],
        component=[{"code": _concept(each.name), **_value(each)} for each in measures],
        **value,
        **common,
    )


def _diagnostic_report(
    name: str,
    report: Report,
    order: Order,
    common: Resource,
    observations: list[Resource],
    confirmed: Confirmation | None,
) -> Resource:
    words = [printable(remark) for remark in remarks(report, confirmed, order)]
    paragraphs = "".join(f"<p>{html.escape(remark)}</p>" for remark in words)
    filler = order.filler_order_number and fhir_order.number_of(order, order.filler_order_number, codes.FILLER_NUMBER)
    return _resource(
        "DiagnosticReport",
        name,
        text={"status": "generated", "div": f'<div xmlns="http://www.w3.org/1999/xhtml">{paragraphs}</div>'},
        identifier=[identifier(report.analysis.id, system="urn:mitosis:analysis"), fhir_order.accession(order), filler],
        basedOn=fhir_order.request_of(order),
        category=[_concept((codes.SURGICAL_PATHOLOGY,))],
        code=_concept(codes.REPORT),
        resultsInterpreter=[{"type": "Practitioner", "display": confirmed.name}] if confirmed else [],
        result=[_link(each) for each in observations],
        conclusion="\n".join(words),
        **{**common, "specimen": [common["specimen"]]},
    )


def _provenance(
    name: str, report: Report, targets: list[Resource], device: Resource, issued: str, confirmed: Confirmation | None
) -> Resource:
    """Say who made and who confirmed this version; each version has its own."""
    agents: list[Resource] = [{"type": _concept((codes.ASSEMBLER,)), "who": _link(device)}]
    if confirmed:
        who, office = {"display": confirmed.name}, filled(display=confirmed.organization)
        agents.append(filled(type=_concept((codes.VERIFIER,)), who=who, onBehalfOf=office))
    slide = identifier(report.slide.sha256, system="urn:mitosis:slide-sha256")
    return _resource(
        "Provenance",
        f"{name} {targets[0]['status']} {datetime.fromisoformat(issued).timestamp()}",
        target=[_link(each) for each in targets],
        recorded=issued,
        agent=agents,
        entity=[{"role": "source", "what": {"identifier": slide, "display": printable(report.slide.name)}}],
    )
