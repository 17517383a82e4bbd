"""DICOM: the detections as Microscopy Bulk Simple Annotations, the counts as a Comprehensive 3D SR (TID 1500).

Source. Both refer to level 0 of the slide (`service.export.dicom_source`), and copy patient, study and specimen from
it. Where the slide was not DICOM both are refused (FormatUnavailable): annotations must name an image, and an
SR without one would lie in a study of its own under a patient that nobody sent, where viewers cannot show it. The
other formats have the result then.

Frame. Places are mm in the slide's frame of reference, by the source's own origin, orientation and pixel spacing;
level-0 px of the report are px of its total pixel matrix, counted from the top left corner of the first. Annotations
in px would be simpler, but viewers older than 2024 do not show them (ImagingDataCommons/slim#163), and dciodvfy of
2022 takes them for errors. A circle is an ELLIPSE, a rectangle a POLYGON.

The same arguments give the same bytes. UIDs (2.25.UUID) are made of source, analysis and revision, so that a version
that is stored again is no second object; each version names the documents that it replaces. Times are in the source's
offset from UTC, or in UTC where it names none.
"""

from contextlib import suppress
from typing import Any

import numpy as np

from service.activity_report import HotspotPlace, RectanglePlace
from service.export import codes
from service.export.dicom_instance import coded, instance_facts, instance_uid, named_uid, series_uid, written
from service.export.dicom_source import Dataset, Points, checked, highdicom, slide_mm
from service.export.findings import Finding, Measure, findings
from service.order import Confirmation, Order, Standing, split_name
from service.readers.dicom_images import UNFIT
from service.refusals import FormatUnavailable
from service.report import Report

COMPREHENSIVE_3D_SR = "1.2.840.10008.5.1.4.1.1.88.34"  # SOP class
ANNOTATION_SERIES, REPORT_SERIES = 9001, 9002  # series numbers that no scanner gives


def to_dicom(report: Report, order: Order, source: Dataset | None, standing: Standing) -> list[bytes]:
    """Write all that is stored of a version: the structured report, and the annotations where there is any mitosis.

    Raises FormatUnavailable.
    """
    document = to_structured_report(report, order, source, standing)
    return [document, to_annotations(report, source, standing)] if report.detections else [document]


def to_annotations(report: Report, source: Dataset | None, standing: Standing) -> bytes:
    """Write a DICOM file with a POINT and a probability for each mitosis. Raises FormatUnavailable, also for none."""
    hd = highdicom()
    image, confirmed = checked(report, source), standing.confirmed
    if not report.detections:
        raise FormatUnavailable("there are no mitoses, and a DICOM annotation object cannot be empty")
    places_mm = slide_mm(image, np.array([(each.x, each.y) for each in report.detections], float))  # (N, 3)
    # (N,), NaN for those that a person added
    scores = np.array([np.nan if each.score is None else each.score for each in report.detections], np.float32)
    measured = hd.ann.Measurements(coded(codes.PROBABILITY), scores, coded(codes.COUNT))
    kinds = hd.ann.AnnotationGroupGenerationTypeValues
    group = hd.ann.AnnotationGroup(
        number=1,
        uid=instance_uid("annotation-group", report, image, standing.version),
        label="Mitotic figures",
        annotated_property_category=coded(codes.ANATOMICAL_STRUCTURE),
        annotated_property_type=coded(codes.MITOTIC_FIGURE),
        graphic_type=hd.ann.GraphicTypeValues.POINT,
        graphic_data=list(places_mm.astype(np.float32)[:, None, :]),
        algorithm_type=kinds.SEMIAUTOMATIC if confirmed else kinds.AUTOMATIC,
        algorithm_identification=hd.AlgorithmIdentificationSequence(
            name=report.model.id[:64],
            family=coded(codes.ARTIFICIAL_INTELLIGENCE),
            version=report.software.version,
            parameters=_algorithm_parameters(report),
        ),
        measurements=None if np.isnan(scores).all() else [measured],
    )
    annotations = hd.ann.MicroscopyBulkSimpleAnnotations(
        source_images=[image],
        annotation_coordinate_type=hd.ann.AnnotationCoordinateTypeValues.SCOORD3D,
        annotation_groups=[group],
        content_label="MITOSES",
        content_description="Mitotic figures, reviewed" if confirmed else "Mitotic figures",
        content_creator_name=_person_name(confirmed.name) if confirmed else None,
        **instance_facts(report, image, "annotations", ANNOTATION_SERIES, standing.version),
    )
    return written(annotations, standing.since(report.analysis.created_at), image)


def to_structured_report(report: Report, order: Order, source: Dataset | None, standing: Standing) -> bytes:
    """Write a DICOM file with all counts and scores; its flags say final or amended, and verified by a person.

    It names the documents of the versions that it takes the place of. Raises FormatUnavailable, also where order and
    slide differ in patient, accession or container.
    """
    hd = highdicom()
    image, confirmed = checked(report, source, order), standing.confirmed
    revisions = (*standing.replaced, standing.revision)
    earlier = {(each, moves) for moves in range(standing.moves + 1) for each in revisions} - {standing.version}
    organization = confirmed and _text(confirmed.organization or str(image.get("InstitutionName") or ""))
    content = hd.sr.MeasurementReport(
        observation_context=_context(hd, report, image, confirmed),
        procedure_reported=coded(codes.WHOLE_SLIDE_IMAGING),
        imaging_measurements=[_measurements(hd, report, image, each) for each in findings(report)],
        referenced_images=[image],
    )
    document = hd.sr.Comprehensive3DSR(
        evidence=[image],
        content=content[0],
        is_complete=True,
        is_final=standing.status != "preliminary",
        is_verified=bool(organization),
        verifying_observer_name=_person_name(confirmed.name) if confirmed else None,
        verifying_organization=organization,
        requested_procedures=_requests(order, image),
        previous_versions=[_predecessor(report, image, each) for each in sorted(earlier)] or None,
        **instance_facts(report, image, "report", REPORT_SERIES, standing.version),
    )
    document.CompletionFlagDescription = standing.status
    if confirmed and organization:
        document.VerifyingObserverSequence[0].VerificationDateTime = confirmed.at.strftime("%Y%m%d%H%M%S%z")
    return written(document, standing.since(report.analysis.created_at), image)


def _predecessor(report: Report, image: Dataset, version: tuple[int, int]) -> Dataset:
    from pydicom import Dataset

    document = Dataset()
    document.SOPClassUID = COMPREHENSIVE_3D_SR
    document.SOPInstanceUID = instance_uid("report", report, image, version)
    document.StudyInstanceUID = image.StudyInstanceUID
    document.SeriesInstanceUID = series_uid(report, image, REPORT_SERIES)
    return document


def _text(text: str) -> str:
    """Fit a text into LO: without what separates values, and no longer than it may be."""
    return text.replace("\\", " ").strip()[:64].strip()


def _person_name(name: str) -> str:
    """Write a name as PN: family and given name; what separates its parts cannot be in them."""
    return "^".join(part.translate(str.maketrans("^=\\", "   ")) for part in split_name(name))[:64]


def _algorithm_parameters(report: Report) -> dict[str, str]:
    return {"threshold": str(report.model.threshold), "model": report.model.id, "sha256": report.model.sha256}


def _context(hd: Any, report: Report, image: Dataset, confirmed: Confirmation | None) -> Any:
    """Say who observed (software, and the person who confirmed it) and what: the specimen on the slide."""
    device = f"{report.software.version} {report.model.sha256}"
    attributes = hd.sr.DeviceObserverIdentifyingAttributes(
        uid=named_uid(device),
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
        person = hd.sr.ObserverContext(coded(codes.PERSON), named)
    specimen = None
    with suppress(*UNFIT):  # unless the source has all of it
        specimen = hd.sr.SubjectContext.from_image(image)
    return hd.sr.ObservationContext(
        observer_person_context=person,
        observer_device_context=hd.sr.ObserverContext(coded(codes.DEVICE), attributes),
        subject_context=specimen,
    )


def _measurements(hd: Any, report: Report, image: Dataset, finding: Finding) -> Any:
    """Write a finding as a measurement group: of its hot-spot (TID 1410), or else of the image (TID 1501)."""
    measures = list(finding.details)
    if finding.value is not None and finding.unit is not None:
        measures.insert(0, Measure(finding.name, finding.value, finding.unit))
    answers = [(each.name[0], codes.YES if each.value else codes.NO) for each in measures if each.unit is None]
    if finding.unit is None and finding.value is not None:
        answers.insert(0, (finding.name[0], codes.score(int(finding.value))))
    common = {
        "tracking_identifier": hd.sr.TrackingIdentifier(
            uid=named_uid(f"{report.analysis.id} {finding.key}"), identifier=finding.method
        ),
        "finding_type": coded(codes.MITOTIC_FIGURE if finding.place is None else codes.HOTSPOT[0]),
        "algorithm_id": hd.sr.AlgorithmIdentification(
            name=report.model.id,
            version=report.software.version,
            parameters=[f"{name}={value}" for name, value in _algorithm_parameters(report).items()],
        ),
        "measurements": [
            hd.sr.Measurement(coded(each.name[0]), each.value, coded(each.unit))
            for each in measures
            if each.unit is not None
        ],
        "qualitative_evaluations": [hd.sr.QualitativeEvaluation(coded(name), coded(value)) for name, value in answers],
    }
    if finding.place is None:
        sources = [hd.sr.SourceImageForMeasurementGroup.from_source_image(image)]
        return hd.sr.MeasurementsAndQualitativeEvaluations(source_images=sources, **common)
    region = _region(hd, report, image, finding.place)
    return hd.sr.PlanarROIMeasurementsAndQualitativeEvaluations(referenced_region=region, **common)


def _region(hd: Any, report: Report, image: Dataset, place: HotspotPlace) -> Any:
    """Give a hot-spot in mm of the slide's frame of reference."""
    rectangle = isinstance(place, RectanglePlace)
    points_mm = slide_mm(image, _outline(place, report.slide.mpp))
    kind = hd.sr.GraphicTypeValues3D.POLYGON if rectangle else hd.sr.GraphicTypeValues3D.ELLIPSE
    return hd.sr.ImageRegion3D(kind, points_mm, image.FrameOfReferenceUID)


def _outline(place: HotspotPlace, mpp: tuple[float, float]) -> Points:
    """Give (N, 2) level-0 px: a rectangle's corners, closed; the ends of a circle's two axes."""
    if isinstance(place, RectanglePlace):
        half = np.array([place.width_um / 2, place.height_um / 2])
        signs = np.array([(-1, -1), (1, -1), (1, 1), (-1, 1), (-1, -1)])
    else:
        half = np.array([place.radius_um, place.radius_um])
        signs = np.array([(-1, 0), (1, 0), (0, -1), (0, 1)])
    outline: Points = np.array([place.x, place.y]) + signs * half / mpp
    return outline


def _requests(order: Order, image: Dataset) -> list[Dataset] | None:
    """Name the order that the document answers, if it has a number."""
    from pydicom import Dataset

    if not (order.placer_order_number or order.filler_order_number or order.accession_number):
        return None
    request = Dataset()
    request.StudyInstanceUID = image.StudyInstanceUID
    request.ReferencedStudySequence = []
    request.AccessionNumber = _number(order.accession_number, 16) or image.AccessionNumber
    request.PlacerOrderNumberImagingServiceRequest = _number(order.placer_order_number, 64)
    request.FillerOrderNumberImagingServiceRequest = _number(order.filler_order_number, 64)
    request.RequestedProcedureID = ""
    request.RequestedProcedureDescription = _text(order.service.text) if order.service else ""
    request.RequestedProcedureCodeSequence = []
    return [request]


def _number(number: str | None, length: int) -> str:
    """Give a number that fits, or none: one that was cut would be another one."""
    return number if number and len(number) <= length and "\\" not in number else ""
