"""One version of a result, with all that is said of it to other systems."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from sqlalchemy import Engine

from service.export.dicom import to_dicom
from service.export.dicom_pdf import to_encapsulated_pdf
from service.export.dicom_source import Dataset
from service.export.fhir import to_fhir
from service.export.hl7 import Envelope, to_hl7
from service.order import Order, Standing
from service.readings import signed_report
from service.refusals import ResultHeld
from service.report import Report
from service.store.analyses import Analyses
from service.store.holds import carried_order
from service.store.records import Analysis
from service.store.results import Result
from service.store.reviews import Reviews
from service.store.settings import Settings
from service.store.storage import Storage


@dataclass(frozen=True, slots=True)
class ResultVersion:
    """What was computed or signed, for which order, and where it stands."""

    analysis: Analysis
    report: Report
    order: Order  # empty where there is none
    standing: Standing
    result: Result  # what was computed, and its maps

    def fhir(
        self, settings: Settings, bundle: Literal["transaction", "collection"] = "transaction", pdf: bytes | None = None
    ) -> bytes:
        """As a FHIR Bundle, with the PDF in it if there is one. Raises FormatUnavailable."""
        told, viewer = (self.report, self.order, self.standing), settings.viewer_url
        return to_fhir(*told, bundle=bundle, chosen=settings.result_definitions, viewer=viewer, pdf=pdf)

    def hl7(
        self,
        settings: Settings,
        control_id: str | None = None,
        sent_at: datetime | None = None,
        pdf: bytes | None = None,
    ) -> bytes:
        """As a message of HL7 v2; its control id is always the same, if none is given. Raises FormatUnavailable."""
        own = hashlib.sha256(f"{self.analysis.id} {self.standing.revision}".encode()).hexdigest()[:20]
        sender, receiver = _names(settings.hl7_sender), _names(settings.hl7_receiver)
        envelope = Envelope(control_id or own, sent_at, sender, receiver, viewer=settings.viewer_url)
        return to_hl7(self.report, self.order, self.standing, envelope, chosen=settings.result_definitions, pdf=pdf)

    def dicom(self, header: Dataset | None, pdf: bytes | None = None) -> dict[str, bytes]:
        """As DICOM files by name, that refer to a slide by its header. Raises FormatUnavailable."""
        told = (self.report, self.order, header, self.standing)
        files = dict(zip(("report.dcm", "annotations.dcm"), to_dicom(*told), strict=False))
        return files if pdf is None else files | {"pdf.dcm": to_encapsulated_pdf(pdf, *told)}


@dataclass(frozen=True, slots=True)
class OutgoingResult:
    """A version on its way: its key, the same at every try, and since when it is to be sent."""

    version: ResultVersion
    key: str  # 20 characters: what HL7 2.5.1 has room for
    since: datetime
    header: Callable[[], Dataset | None]  # of the DICOM slide that it is of, if it is one
    pdf: Callable[[], bytes]


def _names(text: str) -> tuple[str, str]:
    application, _, facility = text.partition("^")
    return application, facility


def find_version(
    engine: Engine,
    storage: Storage,
    analysis_id: str,
    tenant: str,
    revision: int | None = None,
    withdraws: dict[str, Any] | None = None,
) -> ResultVersion:
    """Find the version that was signed at a revision (0: the machine's), or the one that is valid now.

    `withdraws`: the order that it is taken back from, and how often it had been moved until then. Raises NotFound,
    NotFinished, StoredDamaged, DatabaseUnavailable.
    """
    analysis = Analyses(engine).get(analysis_id, tenant)
    result = Result.of(engine, storage, analysis)
    report = result.report()
    entries = Reviews(engine).entries(analysis_id)
    known = [entry for entry in entries if revision is None or entry.revision <= revision]
    order = carried_order(withdraws if withdraws is not None else analysis.request)
    moves = withdraws["moves"] if withdraws is not None else analysis.moves
    signed, status, confirmed, at = signed_report(report, known)
    told_at = (entry.revision for entry in known if entry.action == "sign" and not entry.withheld)
    before = {0, *told_at} - {at}
    standing = Standing(status, confirmed, at, tuple(sorted(before)), moves, withdraws is not None)
    return ResultVersion(analysis, signed, order, standing, result)


def require_released(version: ResultVersion) -> ResultVersion:
    """Give a version that names a patient only where nobody has to decide whose it is. Raises ResultHeld."""
    if version.analysis.held:
        raise ResultHeld("this result is held until a person decides whose it is; `held` of the analysis says why")
    return version
