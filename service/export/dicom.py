"""DICOM: the detections as Microscopy Bulk Simple Annotations, the counts as a Comprehensive 3D SR (TID 1500).

Source. Both refer to the slide's instance with the most pixels (`base_level`), and copy patient, study and specimen
from it. Where the slide was not DICOM both are refused (FormatUnavailable): annotations must name an image, and an
SR without one would lie in a study of its own under a patient that nobody sent, where viewers cannot show it. The
other formats have the result then.

Frame. Places are mm in the slide's frame of reference, by the source's own origin, orientation and pixel spacing;
level-0 px of the report are px of its total pixel matrix, counted from the top left corner of the first. Annotations
in px would be simpler, but viewers older than 2024 do not show them (ImagingDataCommons/slim#163), and dciodvfy of
2022 takes them for errors. A circle is an ELLIPSE, a rectangle a POLYGON.

The same arguments give the same bytes: UIDs are made of the content (2.25.UUID), so that storing again is no second
object and a changed report is. Times are in the source's offset from UTC, or in UTC where it names none.
"""

import io
import re
import uuid
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import numpy.typing as npt

from service.errors import FormatUnavailable
from service.export import codes
from service.export.codes import Code
from service.export.findings import Finding, Measure, findings
from service.order import Confirmation, Order, ResultStatus, split_name
from service.report import HotspotPlace, RectanglePlace, Report

if TYPE_CHECKING:
    from pydicom import Dataset

Points: TypeAlias = npt.NDArray[np.float64]

WHOLE_SLIDE = "1.2.840.10008.5.1.4.1.1.77.1.6"  # SOP class VL Whole Slide Microscopy Image
REQUIRED = (
    *("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID", "FrameOfReferenceUID", "Modality"),
    *("TotalPixelMatrixOriginSequence", "ImageOrientationSlide", "SharedFunctionalGroupsSequence"),
)
COPIED = (  # type 2: a source must have them, but may be worse than the standard
    *("PatientID", "PatientName", "PatientBirthDate", "PatientSex"),
    *("AccessionNumber", "StudyID", "StudyDate", "StudyTime", "ReferringPhysicianName"),
)
SAME = {"PatientID": "patient_id", "AccessionNumber": "accession_number", "ContainerIdentifier": "container_id"}
ANNOTATION_SERIES, REPORT_SERIES = 9001, 9002  # series numbers that no scanner gives


def base_level(instances: "Iterable[Dataset]") -> "Dataset":
    """The instance of a DICOM slide that holds level 0. Raises FormatUnavailable where none is one of a slide."""
    levels = [each for each in instances if each.get("SOPClassUID") == WHOLE_SLIDE and "VOLUME" in each.ImageType]
    if not levels:
        raise FormatUnavailable("no instance of a DICOM whole-slide image is there to refer to")
    return max(levels, key=lambda each: int(each.TotalPixelMatrixColumns) * int(each.TotalPixelMatrixRows))


def to_annotations(report: Report, source: "Dataset | None") -> bytes:
    """A DICOM file with one POINT for each mitosis, and its probability. Raises FormatUnavailable, also without any."""
    hd = _highdicom()
    image = _checked(report, source)
    if not report.detections:
        raise FormatUnavailable("there are no mitoses, and a DICOM annotation object cannot be empty")
    places_mm = _slide_mm(hd, image, np.array([(each.x, each.y) for each in report.detections], float))  # (N, 3)
    scores = np.array([each.score for each in report.detections], np.float32)  # (N,)
    group = hd.ann.AnnotationGroup(
        number=1,
        uid=_uid("annotation-group", report, image),
        label="Mitotic figures",
        annotated_property_category=_coded(hd, codes.ANATOMICAL_STRUCTURE),
        annotated_property_type=_coded(hd, codes.MITOTIC_FIGURE),
        graphic_type=hd.ann.GraphicTypeValues.POINT,
        graphic_data=list(places_mm.astype(np.float32)[:, None, :]),
        algorithm_type=hd.ann.AnnotationGroupGenerationTypeValues.AUTOMATIC,
        algorithm_identification=hd.AlgorithmIdentificationSequence(
            name=report.model.id[:64],
            family=_coded(hd, codes.ARTIFICIAL_INTELLIGENCE),
            version=report.software.version,
            parameters=_algorithm_parameters(report),
        ),
        measurements=[hd.ann.Measurements(_coded(hd, codes.PROBABILITY), scores, _coded(hd, codes.COUNT))],
    )
    annotations = hd.ann.MicroscopyBulkSimpleAnnotations(
        source_images=[image],
        annotation_coordinate_type=hd.ann.AnnotationCoordinateTypeValues.SCOORD3D,
        annotation_groups=[group],
        content_label="MITOSES",
        content_description="Mitotic figures",
        **_instance(hd, report, image, "annotations", ANNOTATION_SERIES),
    )
    return _written(annotations, report.analysis.created_at, image)


def to_structured_report(
    report: Report,
    order: Order,
    source: "Dataset | None",
    status: ResultStatus,
    *,
    confirmed: Confirmation | None = None,
) -> bytes:
    """A DICOM file with every count and score; final and amended by the flags, verified where a person confirmed it.

    Raises FormatUnavailable, also where the order is of another patient, accession or container than the slide.
    """
    hd = _highdicom()
    image = _checked(report, source)
    _check_order(order, image)
    organization = confirmed and (confirmed.organization or image.get("InstitutionName"))
    content = hd.sr.MeasurementReport(
        observation_context=_context(hd, report, image, confirmed),
        procedure_reported=_coded(hd, codes.WHOLE_SLIDE_IMAGING),
        imaging_measurements=[_measurements(hd, report, image, each) for each in findings(report)],
        referenced_images=[image],
    )
    document = hd.sr.Comprehensive3DSR(
        evidence=[image],
        content=content[0],
        is_complete=True,
        is_final=status != "preliminary",
        is_verified=bool(organization),
        verifying_observer_name=_person_name(confirmed.name) if confirmed else None,
        verifying_organization=organization,
        requested_procedures=_requests(order, image),
        **_instance(hd, report, image, f"report {status} {order} {confirmed}", REPORT_SERIES),
    )
    document.CompletionFlagDescription = status
    if confirmed and organization:
        document.VerifyingObserverSequence[0].VerificationDateTime = confirmed.at.strftime("%Y%m%d%H%M%S%z")
    return _written(document, confirmed.at if confirmed else report.analysis.created_at, image)


def _highdicom() -> Any:
    try:
        import highdicom
    except ImportError as error:
        raise FormatUnavailable(f"{error.name} is not installed; pip install 'mitosis-service[interop]'") from error
    return highdicom


def _checked(report: Report, source: "Dataset | None") -> "Dataset":
    """The source's header, if it is level 0 of the report's slide."""
    from pydicom import Dataset

    if source is None or source.get("SOPClassUID") != WHOLE_SLIDE:
        raise FormatUnavailable(f"{report.slide.name} is no DICOM slide; ask for json, geojson, fhir or hl7")
    if missing := [keyword for keyword in REQUIRED if not source.get(keyword)]:
        raise FormatUnavailable(f"the DICOM instance to refer to lacks {', '.join(missing)}")
    size = (int(source.TotalPixelMatrixColumns), int(source.TotalPixelMatrixRows))
    if size != (report.slide.width, report.slide.height):
        raise FormatUnavailable(f"{report.slide.name} and the DICOM instance to refer to differ in size")
    header = Dataset()
    header.update({element.tag: element for element in source})  # decoded by the source's character set
    for keyword in COPIED:
        if keyword not in header:
            setattr(header, keyword, "")
    return header


def _check_order(order: Order, image: "Dataset") -> None:
    pairs = {name: (str(image.get(keyword) or ""), getattr(order, name)) for keyword, name in SAME.items()}
    differing = [name for name, (ours, theirs) in pairs.items() if ours and theirs and ours != theirs]
    if differing:  # the values are the patient's, and stay out of messages and logs
        raise FormatUnavailable(f"the order's {', '.join(differing)} is not the DICOM slide's")


def _uid(kind: str, report: Report, image: "Dataset") -> str:
    name = f"{kind} {image.SOPInstanceUID} {report.model_dump_json()}"
    return f"2.25.{uuid.uuid5(uuid.NAMESPACE_OID, name).int}"


def _instance(hd: Any, report: Report, image: "Dataset", kind: str, series_number: int) -> dict[str, Any]:
    """What both objects tell of themselves: series, instance, equipment, coding scheme."""
    series = f"{series_number} {image.StudyInstanceUID} {report.analysis.id}"
    scheme = hd.coding_schemes.CodingSchemeIdentificationItem(
        codes.LOCAL.designator, name="Codes of mitosis-service", responsible_organization="mitosis-service"
    )
    return {
        "series_instance_uid": f"2.25.{uuid.uuid5(uuid.NAMESPACE_OID, series).int}",
        "series_number": series_number,
        "sop_instance_uid": _uid(kind, report, image),
        "instance_number": 1,
        "manufacturer": report.software.name,
        "manufacturer_model_name": report.model.id[:64],
        "software_versions": report.software.version,
        "device_serial_number": report.model.sha256,  # the trained model is the device
        "coding_schemes": [scheme],
        "series_description": "Mitotic activity",
        "specific_character_set": "ISO_IR 192",
    }


def _written(instance: Any, moment: datetime, image: "Dataset") -> bytes:
    """The file's bytes, with its own times instead of those at which it happened to be written."""
    offset = str(image.get("TimezoneOffsetFromUTC") or "")
    local = moment.astimezone(UTC)
    if re.fullmatch(r"[+-][01]\d[0-5]\d", offset):
        instance.TimezoneOffsetFromUTC = offset
        local = moment.astimezone(datetime.strptime(offset, "%z").tzinfo)
    for name in ("InstanceCreation", "Content"):
        setattr(instance, f"{name}Date", local.strftime("%Y%m%d"))
        setattr(instance, f"{name}Time", local.strftime("%H%M%S"))
    for item in instance.get("ContributingEquipmentSequence", []):
        item.pop("ContributionDateTime", None)
    content = io.BytesIO()
    instance.save_as(content, enforce_file_format=True)
    return content.getvalue()


def _coded(hd: Any, code: Code) -> Any:
    return hd.sr.CodedConcept(code.value, code.system.designator, code.meaning[:64])


def _person_name(name: str) -> str:
    """PN: family and given name; what separates its parts cannot be in them."""
    return "^".join(part.translate(str.maketrans("^=\\", "   ")) for part in split_name(name))


def _algorithm_parameters(report: Report) -> dict[str, str]:
    return {"threshold": str(report.model.threshold), "model": report.model.id, "sha256": report.model.sha256}


def _context(hd: Any, report: Report, image: "Dataset", confirmed: Confirmation | None) -> Any:
    """Who observed (software, and the person who confirmed it) and what: the specimen on the slide."""
    device = f"{report.software.version} {report.model.sha256}"
    attributes = hd.sr.DeviceObserverIdentifyingAttributes(
        uid=f"2.25.{uuid.uuid5(uuid.NAMESPACE_OID, device).int}",
        name=report.software.name,
        manufacturer_name=report.software.name,
        model_name=report.model.id,
        serial_number=report.model.sha256,
    )
    person = None
    if confirmed:
        named = hd.sr.PersonObserverIdentifyingAttributes(
            name=_person_name(confirmed.name), organization_name=confirmed.organization
        )
        person = hd.sr.ObserverContext(_coded(hd, codes.PERSON), named)
    return hd.sr.ObservationContext(
        observer_person_context=person,
        observer_device_context=hd.sr.ObserverContext(_coded(hd, codes.DEVICE), attributes),
        subject_context=hd.sr.SubjectContext.from_image(image) if image.get("SpecimenDescriptionSequence") else None,
    )


def _measurements(hd: Any, report: Report, image: "Dataset", finding: Finding) -> Any:
    """A finding as a measurement group; with a hot-spot, of that region (TID 1410), else of the image (TID 1501)."""
    measures = [*_main(finding), *finding.details]
    answers = [(each.name[0], codes.YES if each.value else codes.NO) for each in measures if each.unit is None]
    if finding.unit is None and finding.value is not None:
        answers.insert(0, (finding.name[0], codes.score(int(finding.value))))
    tracked = f"2.25.{uuid.uuid5(uuid.NAMESPACE_OID, f'{report.analysis.id} {finding.key}').int}"
    common = {
        "tracking_identifier": hd.sr.TrackingIdentifier(uid=tracked, identifier=finding.method),
        "finding_type": _coded(hd, codes.MITOTIC_FIGURE if finding.place is None else codes.HOTSPOT[0]),
        "algorithm_id": hd.sr.AlgorithmIdentification(
            name=report.model.id,
            version=report.software.version,
            parameters=[f"{name}={value}" for name, value in _algorithm_parameters(report).items()],
        ),
        "measurements": [
            hd.sr.Measurement(_coded(hd, each.name[0]), each.value, _coded(hd, each.unit))
            for each in measures
            if each.unit is not None
        ],
        "qualitative_evaluations": [
            hd.sr.QualitativeEvaluation(_coded(hd, name), _coded(hd, value)) for name, value in answers
        ],
    }
    if finding.place is None:
        sources = [hd.sr.SourceImageForMeasurementGroup.from_source_image(image)]
        return hd.sr.MeasurementsAndQualitativeEvaluations(source_images=sources, **common)
    region = _region(hd, report, image, finding.place)
    return hd.sr.PlanarROIMeasurementsAndQualitativeEvaluations(referenced_region=region, **common)


def _main(finding: Finding) -> list[Measure]:
    if finding.value is None or finding.unit is None:
        return []
    return [Measure(finding.name, finding.value, finding.unit)]


def _region(hd: Any, report: Report, image: "Dataset", place: HotspotPlace) -> Any:
    """A hot-spot in mm of the slide's frame of reference."""
    rectangle = isinstance(place, RectanglePlace)
    points_mm = _slide_mm(hd, image, _outline(place, report.slide.mpp))
    kind = hd.sr.GraphicTypeValues3D.POLYGON if rectangle else hd.sr.GraphicTypeValues3D.ELLIPSE
    return hd.sr.ImageRegion3D(kind, points_mm, image.FrameOfReferenceUID)


def _slide_mm(hd: Any, image: "Dataset", places_px: Points) -> Points:
    """(N, 2) px of the total pixel matrix to (N, 3) mm of the slide's frame of reference."""
    transform = hd.spatial.ImageToReferenceTransformer.for_image(image, for_total_pixel_matrix=True)
    places_mm: Points = transform(places_px)
    return places_mm


def _outline(place: HotspotPlace, mpp: tuple[float, float]) -> Points:
    """(N, 2) level-0 px: a rectangle's corners, closed; the ends of a circle's two axes."""
    if isinstance(place, RectanglePlace):
        half = np.array([place.width_um / 2, place.height_um / 2])
        signs = np.array([(-1, -1), (1, -1), (1, 1), (-1, 1), (-1, -1)])
    else:
        half = np.array([place.radius_um, place.radius_um])
        signs = np.array([(-1, 0), (1, 0), (0, -1), (0, 1)])
    outline: Points = np.array([place.x, place.y]) + signs * half / mpp
    return outline


def _requests(order: Order, image: "Dataset") -> "list[Dataset] | None":
    """The order that the document answers, if it has a number."""
    from pydicom import Dataset

    if not (order.placer_order_number or order.filler_order_number or order.accession_number):
        return None
    request = Dataset()
    request.StudyInstanceUID = image.StudyInstanceUID
    request.ReferencedStudySequence = []
    request.AccessionNumber = order.accession_number or image.AccessionNumber
    request.PlacerOrderNumberImagingServiceRequest = order.placer_order_number or ""
    request.FillerOrderNumberImagingServiceRequest = order.filler_order_number or ""
    request.RequestedProcedureID = ""
    request.RequestedProcedureDescription = order.service.text if order.service else ""
    request.RequestedProcedureCodeSequence = []
    return [request]
