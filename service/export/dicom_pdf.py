"""DICOM: the PDF of a result, encapsulated, in the slide's study: for viewers that show no structured report."""

from service.export import codes
from service.export.dicom_instance import coded, instance_facts, written
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
    facts = instance_facts(report, image, "pdf", SERIES, standing.version)
    for name in facts.keys() - {"coding_schemes"}:  # as highdicom calls them
        words = [word.upper() if word in ("sop", "uid") else word.title() for word in name.split("_")]
        setattr(document, "".join(words), facts[name])
    document.SOPClassUID = EncapsulatedPDFStorage
    document.Modality = "DOC"
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
