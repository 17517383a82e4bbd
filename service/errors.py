"""Everything that can go wrong, as one tree; each leaf has a stable code that outlives its wording.

MitosisError
|-- BadInput                  what was given cannot be analysed (the command line exits 2)
|   |-- FileMissing           file-missing          no such file, or it cannot be read
|   |-- NotASlide             not-a-slide           no reader knows this file
|   |-- SlideDamaged          slide-damaged         a slide, but cut short or corrupt; names the place
|   |-- SlideTooLarge         slide-too-large       claims more pixels than any slide, or than its bytes can hold
|   |-- SlideUnsupported      slide-unsupported     sound, but of a kind that is not read; says what to convert it to
|   |-- SlideAmbiguous        slide-ambiguous       several pictures, each of which could be the slide
|   |-- ReferenceForbidden    reference-forbidden   a slide that names files outside its own folder
|   |-- PixelsUnsupported     pixels-unsupported    not 8-bit RGB
|   |-- ResolutionUnknown     mpp-unknown           neither the request nor the slide says um per pixel
|   |-- ResolutionInvalid     mpp-invalid           zero, negative or not a number
|   |-- ResolutionTooLow      resolution-too-low    coarser than x20
|   |-- RegionInvalid         region-invalid        not four whole numbers, or empty
|   |-- RegionOutside         region-outside        not inside the slide
|   |-- ParameterInvalid      parameter-invalid     any other value out of its range
|   |-- DataInvalid           data-invalid          labelled data that cannot be trusted; names file and line
|   |-- ModelUnknown          model-unknown         no model of that id, no such folder
|   |-- ArchiveUnsafe         archive-unsafe        a zip with a way out, links, or far more inside than outside
|   |-- SourceForbidden       uri-forbidden         a `uri` outside the configured roots
|   |-- CallbackForbidden     callback-forbidden    a `callback_url` to a host that is not allowed
|   `-- RequestInvalid        request-invalid       a request that does not follow the API's description
|-- Refusal                   the service does not do this, now or for this caller (the command line exits 1)
|   `-- ...                                       see `service.refusals`
`-- Failure                   the installation is at fault, not the input (the command line exits 1)
    |-- WeightsDamaged        weights-damaged       the weights' checksum is not the model card's
    |-- WeightsMismatch       weights-mismatch      the weights do not fit the card's architecture
    |-- CardInvalid           model-card-invalid    the model card cannot be read
    |-- DeviceUnavailable     device-unavailable    the device or backend asked for is not there
    |-- SettingsInvalid       settings-invalid      the service's settings contradict each other or are unsafe
    |-- StorageFull           storage-full          no room left on the disk
    |-- WorkerLost            worker-lost           the analysis ended its worker too often
    |-- TimeLimitExceeded     time-limit-exceeded   the analysis took longer than is allowed
    |-- AuditBroken           audit-broken          the audit log is not what was written
    |-- InternalError         internal-error        a fault of the program; the logs have it
    `-- OutputUnwritable      output-unwritable     the report or picture cannot be written

Nothing here knows HTTP: the gateway maps classes to statuses in one table.
"""

from typing import ClassVar


class MitosisError(Exception):
    """Base of all errors; `str()` says what happened and what to do."""

    code: ClassVar[str] = "error"
    exit_code: ClassVar[int] = 1


class BadInput(MitosisError):
    """What was given cannot be analysed."""

    code = "bad-input"
    exit_code = 2


class FileMissing(BadInput):
    """The path leads to nothing that can be read."""

    code = "file-missing"


class NotASlide(BadInput):
    """No reader knows this file."""

    code = "not-a-slide"


class SlideDamaged(BadInput):
    """The file is a slide, but cut short or corrupt."""

    code = "slide-damaged"


class SlideTooLarge(BadInput):
    """The header claims more pixels than any slide has, or than the file can hold."""

    code = "slide-too-large"


class SlideUnsupported(BadInput):
    """A sound slide of a kind that is not read here; says which, and what to convert it to."""

    code = "slide-unsupported"


class SlideAmbiguous(BadInput):
    """A file or folder with several pictures, each of which could be the slide."""

    code = "slide-ambiguous"


class ReferenceForbidden(BadInput):
    """A slide that names files outside its own folder."""

    code = "reference-forbidden"


class PixelsUnsupported(BadInput):
    """The pixels are not 8-bit RGB."""

    code = "pixels-unsupported"


class ResolutionUnknown(BadInput):
    """Neither the request nor the slide says how large a pixel is."""

    code = "mpp-unknown"


class ResolutionInvalid(BadInput):
    """The given um per pixel is no positive number."""

    code = "mpp-invalid"


class ResolutionTooLow(BadInput):
    """Coarser than x20: mitoses cannot be told from other dark nuclei."""

    code = "resolution-too-low"


class RegionInvalid(BadInput):
    """The region is not X,Y,W,H with a positive size."""

    code = "region-invalid"


class RegionOutside(BadInput):
    """The region is not inside the slide."""

    code = "region-outside"


class ParameterInvalid(BadInput):
    """A value is out of its range."""

    code = "parameter-invalid"


class DataInvalid(BadInput):
    """Labelled data that cannot be trusted: names the file, and the line where there is one."""

    code = "data-invalid"


class ModelUnknown(BadInput):
    """There is no model of that id, and no folder of that name."""

    code = "model-unknown"


class ArchiveUnsafe(BadInput):
    """A zip that leads out of its folder, holds links, or unpacks to far too much."""

    code = "archive-unsafe"


class SourceForbidden(BadInput):
    """A `uri` that is not below a configured root."""

    code = "uri-forbidden"


class CallbackForbidden(BadInput):
    """A `callback_url` to a host that is not allowed."""

    code = "callback-forbidden"


class RequestInvalid(BadInput):
    """The request does not follow the API's description; says where."""

    code = "request-invalid"


class Refusal(MitosisError):
    """The service does not do this, now or for this caller."""

    code = "refused"


class Failure(MitosisError):
    """The installation is at fault, not the input."""

    code = "failure"


class WeightsDamaged(Failure):
    """The weights' checksum is not the one in the model card."""

    code = "weights-damaged"


class WeightsMismatch(Failure):
    """The weights' names or shapes do not fit the architecture in the model card."""

    code = "weights-mismatch"


class CardInvalid(Failure):
    """The model card is missing, no JSON, or lacks an entry."""

    code = "model-card-invalid"


class DeviceUnavailable(Failure):
    """The device or backend that was asked for is not on this machine."""

    code = "device-unavailable"


class SettingsInvalid(Failure):
    """The service's settings contradict each other, or would be unsafe."""

    code = "settings-invalid"


class StorageFull(Failure):
    """There is no room left on the disk."""

    code = "storage-full"


class WorkerLost(Failure):
    """The analysis ended its worker too often to be tried again."""

    code = "worker-lost"


class TimeLimitExceeded(Failure):
    """The analysis took longer than is allowed."""

    code = "time-limit-exceeded"


class AuditBroken(Failure):
    """The audit log is not what was written into it."""

    code = "audit-broken"


class InternalError(Failure):
    """A fault of the program."""

    code = "internal-error"


class OutputUnwritable(Failure):
    """The report or picture cannot be written where it was asked for."""

    code = "output-unwritable"
