"""DICOM: the PDF of a result, encapsulated, in the slide's study: for viewers that show no structured report."""

from service.export import codes
from service.export.dicom_instance import coded, instance_uid, series_uid, written
from service.export.dicom_source import COPIED, Dataset, checked, highdicom
from service.order import Order, Standing
from service.report import Report

SERIES = 9003  # a number that no scanner gives


def to_encapsulated_pdf(pdf: bytes, report: Report, order: Order, source: Dataset | None, standing: Standing) -> bytes:
    """Write a DICOM file that holds a PDF. Raises as `to_structured_report`."""
    highdicom()
    from pydicom import Dataset, FileMetaDataset
    from pydicom.uid import EncapsulatedPDFStorage, ExplicitVRLittleEndian

    image = checked(report, source, order)
    document, slide = Dataset(), Dataset()
    slide.ReferencedSOPClassUID, slide.ReferencedSOPInstanceUID = image.SOPClassUID, image.SOPInstanceUID
    for keyword in ("StudyInstanceUID", *COPIED):
        setattr(document, keyword, image.get(keyword, ""))
    document.SpecificCharacterSet = "ISO_IR 192"
    document.SOPClassUID = EncapsulatedPDFStorage
    document.SOPInstanceUID = instance_uid("pdf", report, image, standing.version)
    document.Modality = "DOC"
    document.SeriesInstanceUID = series_uid(report, image, SERIES)
    document.SeriesNumber = SERIES
    document.SeriesDescription = "Mitotic activity"
    document.InstanceNumber = standing.revision + 1
    document.Manufacturer = report.software.name
    document.ManufacturerModelName = report.model.id[:64]
    document.SoftwareVersions = report.software.version
    document.DeviceSerialNumber = report.model.sha256
    document.ConversionType = "WSD"
    document.BurnedInAnnotation = "YES"  # names are in it
    document.RecognizableVisualFeatures = "NO"
    document.VerificationFlag = "VERIFIED" if standing.confirmed else "UNVERIFIED"
    document.AcquisitionDateTime = report.analysis.created_at.strftime("%Y%m%d%H%M%S%z")
    document.DocumentTitle = codes.REPORT[0].meaning[:64]
    document.ConceptNameCodeSequence = [coded(codes.REPORT[0])]
    document.SourceInstanceSequence = [slide]
    document.MIMETypeOfEncapsulatedDocument = "application/pdf"
    document.EncapsulatedDocument = pdf + bytes(len(pdf) % 2)
    document.EncapsulatedDocumentLength = len(pdf)
    document.file_meta = FileMetaDataset()
    document.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    return written(document, standing.since(report.analysis.created_at), image)
