"""A client of the service: slides in, Reports out, over connections that break and past servers that are restarted.

    with Client("https://mitosis.hospital.example", key="mk_...") as client:
        analysis = client.submit(path=Path("slide.svs"))
        report = client.result(client.wait(analysis.id).check().id)

Whatever fails raises the class of `service.errors` that the service named by its code, with all that its problem
details carry (`slide_id`, `errors`, ...) as attributes. While the service cannot be reached, requests are repeated for
`patience_s`; then ServerUnreachable is raised. A submission carries an Idempotency-Key, so that it can be repeated too.
"""

import hashlib
import math
import os
import time
import uuid
from base64 import b64encode
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Literal, Self, TypedDict, TypeVar, Unpack
from urllib.parse import quote

import httpx
from pydantic import BaseModel, ConfigDict, ValidationError

from service.client.connection import SLOW_S, TEMPORARY, Connection, error_of, pause
from service.client.packing import packed
from service.errors import MitosisError, ParameterInvalid, ResolutionInvalid
from service.files import readable
from service.order import Priority
from service.refusals import NotFinished, NotFound, OffsetConflict, ServerUnreachable, UploadIncomplete, UploadTimeout

if TYPE_CHECKING:  # what a Report is made of takes a second to import
    from service.report import Report

CHUNK_BYTES = 8 << 20  # at most this is sent again after an interruption
FIRST_POLL_S, LONGEST_POLL_S = 0.05, 1.0
TUS = {"Tus-Resumable": "1.0.0"}
INTERRUPTIONS = (*TEMPORARY, OffsetConflict, UploadIncomplete, UploadTimeout)

Status = Literal["queued", "running", "succeeded", "failed", "cancelled"]
Region = tuple[int, int, int, int]  # x, y, width, height in level-0 px
OnBytes = Callable[[int, int], None]  # sent, of all


class _Answer(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")  # a newer service may say more


class UploadedSlide(_Answer):
    """A slide that the service has; `slide` is what its reader sees."""

    slide_id: str
    name: str
    sha256: str  # of what was sent
    size: int
    slide: dict[str, Any]


class _Upload(_Answer):
    offset: int
    slide_id: str | None


class JobError(_Answer):
    """The reason why an analysis failed."""

    code: str
    detail: str


class AnalysisStatus(_Answer):
    """The state of an analysis; `progress` goes from 0 to 1."""

    id: str
    status: Status
    progress: float
    patches_per_s: float
    seconds_left: float | None
    slide_id: str
    slide_name: str
    model: str
    priority: Priority
    accession_number: str | None
    error: JobError | None
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None

    @property
    def ended(self) -> bool:
        """True where it changes no more."""
        return self.status not in ("queued", "running")

    def check(self) -> Self:
        """Return itself. Raises the error of an analysis that failed, and NotFinished of one that was cancelled."""
        if self.error is not None:
            raise error_of(self.error.code, self.error.detail)
        if self.status == "cancelled":
            raise NotFinished(f"analysis {self.id} of {self.slide_name} was cancelled")
        return self


class _Page(_Answer):
    analyses: list[AnalysisStatus]
    next_cursor: str | None


Answer = TypeVar("Answer", bound=_Answer)


class AnalysisOptions(TypedDict, total=False):
    """The options of a request beside its slide; None leaves the service's default."""

    region: Region | Mapping[str, Any] | None  # also as a report has it, or GeoJSON
    exclude: Region | Mapping[str, Any] | None  # not this part of it
    mpp: float | None  # um per px
    threshold: float | None
    model: str | None
    priority: Priority
    callback_url: str | None
    order: Mapping[str, str] | None
    halo_px: int | None
    any_stain: bool
    parts: int | None  # workers that share it


class Client:
    """A service, as one caller sees it. Close it, or use it as a context manager.

    `timeout_s` is for one answer, `patience_s` for as long as there is none. Raises ParameterInvalid for an address
    or a key that cannot be one.
    """

    def __init__(
        self, server: str, key: str | None = None, *, timeout_s: float = 30.0, patience_s: float = 60.0
    ) -> None:
        self._connection = Connection(server, key, timeout_s, patience_s)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close its connections."""
        self._connection.close()

    # Slides

    def upload(self, path: Path, on_progress: OnBytes | None = None) -> UploadedSlide:
        """Send a slide: a file, a DICOM folder, or a MIRAX file with its folder. Interrupted, it goes on where it was.

        Raises what the service's reader says of it, FileMissing, NotASlide, StorageFull, UploadIncomplete,
        UploadTooLarge.
        """
        with packed(path) as (file_path, name), _open(file_path) as file:
            before = os.fstat(file.fileno())
            send = self._put if before.st_size < CHUNK_BYTES else self._send
            uploaded = send(file, before.st_size, name, on_progress or (lambda *_: None))
            after = os.fstat(file.fileno())
            if (before.st_size, before.st_mtime_ns) != (after.st_size, after.st_mtime_ns):  # by a scanner, say
                raise UploadIncomplete(f"{path} was written to while it was sent; send it again when that is done")
            return uploaded

    def _put(self, file: BinaryIO, size: int, name: str, on_progress: OnBytes) -> UploadedSlide:
        content = _read(file, 0, size)
        response = self._connection.ask("PUT", f"/v1/slides/{quote(name, safe='')}", content=content, slow=True)
        on_progress(size, size)
        return _checked(_parsed(UploadedSlide, response), hashlib.sha256(content).hexdigest())

    def _send(self, file: BinaryIO, size: int, name: str, on_progress: OnBytes) -> UploadedSlide:
        """Send in chunks, by the tus protocol."""
        try:
            return self._send_once(file, size, name, on_progress)
        except NotFound:  # it has gone with the service's disk, or was refused in an answer that got lost
            return self._send_once(file, size, name, on_progress)

    def _send_once(self, file: BinaryIO, size: int, name: str, on_progress: OnBytes) -> UploadedSlide:
        place, slide_id = self._begin(size, name), None
        pauses, digest, hashed, offset = self._connection.pauses(), hashlib.sha256(), 0, 0
        interrupted = False  # then the last request may still be written from what is on its way
        while slide_id is None:
            asking = interrupted  # whether it is over, by a request without bytes: until then they would be refused
            content = _read(file, offset, min(CHUNK_BYTES, size - offset))  # nothing, where only the slide is missing
            trouble: MitosisError = ServerUnreachable(f"{self._connection.server} takes no more bytes of {name}")
            try:
                now, slide_id = self._patch(place, offset, b"" if asking else content)
                interrupted = False
            except INTERRUPTIONS as error:
                interrupted = True
                trouble, upload = error, _parsed(_Upload, self._connection.ask("GET", place))
                now, slide_id = upload.offset, upload.slide_id
            if now > hashed:
                digest.update(content[hashed - offset : now - offset])
                hashed = now
            if now > offset:
                pauses = self._connection.pauses(SLOW_S if now == size else None)
            elif slide_id is None and (interrupted or not asking):
                pause(pauses, trouble)
            offset = now
            on_progress(offset, size)
        found = self._connection.ask("GET", f"/v1/slides/{quote(slide_id, safe='')}")
        return _checked(_parsed(UploadedSlide, found), digest.hexdigest())

    def _begin(self, size: int, name: str) -> str:
        """Create an upload and give its path."""
        headers = TUS | {"Upload-Length": str(size), "Upload-Metadata": f"filename {b64encode(name.encode()).decode()}"}
        location = self._connection.ask("POST", "/v1/uploads", headers=headers).headers.get("Location", "")
        return f"/v1/uploads/{location.rsplit('/', 1)[-1]}"  # proxies may have made another address of it

    def _patch(self, place: str, offset: int, content: bytes) -> tuple[int, str | None]:
        """Send some bytes: how far the upload is then, and its slide once it has one."""
        headers = TUS | {"Upload-Offset": str(offset), "Content-Type": "application/offset+octet-stream"}
        answer = self._connection.ask_once("PATCH", place, content=content, headers=headers, slow=True).headers
        return int(answer.get("Upload-Offset", offset + len(content))), answer.get("Slide-Id")

    # Analyses

    def submit(
        self,
        slide_id: str | None = None,
        *,
        uri: str | None = None,
        path: Path | None = None,
        idempotency_key: str | None = None,
        on_progress: OnBytes | None = None,
        **options: Unpack[AnalysisOptions],
    ) -> AnalysisStatus:
        """Queue an analysis of a slide: one that was uploaded, one the service can reach, or one to upload now.

        Raises what `upload` does, and what is wrong with the request: then the error has the `slide_id`, and the
        request can be sent again without the slide.
        """
        mpp, threshold = options.get("mpp"), options.get("threshold")  # judged before a slide is sent for nothing
        if mpp is not None and not 0 < mpp < math.inf:
            raise ResolutionInvalid(f"mpp {mpp} is no positive number of um per pixel")
        if threshold is not None and not 0 < threshold < 1:
            raise ParameterInvalid(f"threshold {threshold} is not between 0 and 1")
        if path is not None:
            slide_id = self.upload(path, on_progress).slide_id
        asked: dict[str, Any] = {"slide_id": slide_id, "uri": uri, "priority": "routine", **options}
        for name in ("region", "exclude"):
            if isinstance(area := asked.get(name), tuple):
                asked[name] = dict(zip(("x", "y", "width", "height"), area, strict=True))
        headers = {"Idempotency-Key": idempotency_key or str(uuid.uuid4())}
        given = {name: value for name, value in asked.items() if value is not None}
        return _parsed(AnalysisStatus, self._connection.ask("POST", "/v1/analyses", json=given, headers=headers))

    def get(self, analysis_id: str) -> AnalysisStatus:
        """Ask where an analysis stands. Raises NotFound."""
        return _parsed(AnalysisStatus, self._connection.ask("GET", _path(analysis_id)))

    def wait(
        self,
        analysis_id: str,
        on_progress: Callable[[AnalysisStatus], None] | None = None,
        timeout_s: float | None = None,
    ) -> AnalysisStatus:
        """Wait until an analysis has ended, well or not. Raises NotFound, and NotFinished when time is up."""
        limit = None if timeout_s is None else time.monotonic() + timeout_s
        poll_s = FIRST_POLL_S
        while True:
            analysis = self.get(analysis_id)
            if on_progress:
                on_progress(analysis)
            if analysis.ended:
                return analysis
            if limit is not None and time.monotonic() > limit:
                raise NotFinished(f"analysis {analysis_id} is {analysis.status} after {timeout_s:g} s")
            time.sleep(poll_s)
            poll_s = min(1.5 * poll_s, LONGEST_POLL_S)

    def cancel(self, analysis_id: str) -> AnalysisStatus:
        """Stop an analysis; one that has ended stays as it is. Raises NotFound."""
        asked = self._connection.ask("DELETE", _path(analysis_id), params={"keep": "true"})
        return _parsed(AnalysisStatus, asked)

    def delete(self, analysis_id: str) -> None:
        """Forget an analysis and its result, cancelled first where it still runs; the slide stays. Raises NotFound."""
        self.cancel(analysis_id)
        self._connection.ask("DELETE", _path(analysis_id))

    def list(self, *, status: Status | None = None, accession_number: str | None = None) -> Iterator[AnalysisStatus]:
        """Yield analyses, newest first, fetched as they are asked for."""
        asked = {"status": status, "accession_number": accession_number}
        given = {name: value for name, value in asked.items() if value is not None}
        cursor: dict[str, str] | None = {}
        while cursor is not None:
            page = _parsed(_Page, self._connection.ask("GET", "/v1/analyses", params=given | cursor))
            yield from page.analyses
            cursor = {"cursor": page.next_cursor} if page.next_cursor else None

    # Results

    def result(self, analysis_id: str) -> "Report":
        """Fetch the report of an analysis. Raises NotFinished, NotFound."""
        from service.report import Report

        content = self.result_bytes(analysis_id)
        try:
            return Report.model_validate_json(content)
        except ValidationError as error:
            raise ServerUnreachable(f"the report of {analysis_id} is of another version than this client") from error

    def result_bytes(self, analysis_id: str, file_format: str = "json") -> bytes:
        """Fetch the report as a file of a format. Raises NotFinished, NotFound."""
        return self._connection.ask("GET", f"{_path(analysis_id)}/result", params={"format": file_format}).content

    def picture(self, analysis_id: str, name: str) -> bytes:
        """Fetch a PNG: thumbnail.png, overlay.png, heatmap.png or detections/{n}.png. Raises NotFinished, NotFound."""
        return self._connection.ask("GET", f"{_path(analysis_id)}/{quote(name)}", slow=True).content


def _open(path: Path) -> BinaryIO:
    with readable(path):
        return path.open("rb")


def _read(file: BinaryIO, offset: int, count: int) -> bytes:
    with readable(Path(file.name)):
        file.seek(offset)
        content = file.read(count)
    if len(content) < count:
        raise UploadIncomplete(f"{file.name} became shorter while it was sent; send it again when it is whole")
    return content


def _checked(slide: UploadedSlide, sha256: str) -> UploadedSlide:
    if slide.sha256 != sha256:
        raise UploadIncomplete(f"{slide.name} arrived with another checksum; send it again")
    return slide


def _path(analysis_id: str) -> str:
    return f"/v1/analyses/{quote(analysis_id, safe='')}"


def _parsed(kind: type[Answer], response: httpx.Response) -> Answer:
    try:
        return kind.model_validate_json(response.content)
    except ValidationError as error:
        raise ServerUnreachable(f"{response.request.url} does not answer as this service does") from error
