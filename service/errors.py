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
|   |-- SlideChanged          slide-changed         not what was accepted: replaced, or written to, since
|   |-- PixelsUnsupported     pixels-unsupported    not 8-bit RGB
|   |-- ResolutionUnknown     mpp-unknown           neither the request nor the slide says um per pixel
|   |-- ResolutionInvalid     mpp-invalid           zero, negative or not a number
|   |-- ResolutionTooLow      resolution-too-low    coarser than x20
|   |-- StainNotHE            stain-not-he          DAB, fluorescence or another stain, and nobody asked for that
|   |-- RegionInvalid         region-invalid        not four whole numbers, or empty
|   |-- RegionOutside         region-outside        not inside the slide
|   |-- ParameterInvalid      parameter-invalid     any other value out of its range
|   |-- DataInvalid           data-invalid          labelled data, or a list of slides, that is wrong; names the line
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
    |-- DeviceUnavailable     device-unavailable    the device or precision asked for is not there
    |-- DeviceFailed          device-failed         the device broke off, or lacks memory for a single tile
    |-- SettingsInvalid       settings-invalid      the service's settings contradict each other or are unsafe
    |-- StorageFull           storage-full          no room left on the disk
    |-- StoredDamaged         stored-damaged        a stored file is missing, cut short or edited
    |-- StoredNewer           stored-newer           a stored file is whole, but of a later release
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

    def __init_subclass__(cls, code: str) -> None:
        cls.code = code


class BadInput(MitosisError, code="bad-input"):
    """What was given cannot be analysed."""

    exit_code = 2


class FileMissing(BadInput, code="file-missing"):
    """The path leads to nothing that can be read."""


class NotASlide(BadInput, code="not-a-slide"):
    """No reader knows this file."""


class SlideDamaged(BadInput, code="slide-damaged"):
    """The file is a slide, but cut short or corrupt."""


class SlideTooLarge(BadInput, code="slide-too-large"):
    """The header claims more pixels than any slide has, or than the file can hold."""


class SlideUnsupported(BadInput, code="slide-unsupported"):
    """A sound slide of a kind that is not read here; says which, and what to convert it to."""


class SlideAmbiguous(BadInput, code="slide-ambiguous"):
    """A file or folder with several pictures, each of which could be the slide."""


class ReferenceForbidden(BadInput, code="reference-forbidden"):
    """A slide that names files outside its own folder."""


class SlideChanged(BadInput, code="slide-changed"):
    """The slide is not what was accepted: its file was replaced, or written to, since."""


class PixelsUnsupported(BadInput, code="pixels-unsupported"):
    """The pixels are not 8-bit RGB."""


class ResolutionUnknown(BadInput, code="mpp-unknown"):
    """Neither the request nor the slide says how large a pixel is."""


class ResolutionInvalid(BadInput, code="mpp-invalid"):
    """The given um per pixel is no positive number."""


class ResolutionTooLow(BadInput, code="resolution-too-low"):
    """Coarser than x20: mitoses cannot be told from other dark nuclei."""


class StainNotHE(BadInput, code="stain-not-he"):
    """Tissue that does not look stained with haematoxylin and eosin: DAB, fluorescence or another stain."""


class RegionInvalid(BadInput, code="region-invalid"):
    """The region is not X,Y,W,H with a positive size."""


class RegionOutside(BadInput, code="region-outside"):
    """The region is not inside the slide."""


class ParameterInvalid(BadInput, code="parameter-invalid"):
    """A value is out of its range."""


class DataInvalid(BadInput, code="data-invalid"):
    """Labelled data, or a list of slides, that cannot be trusted: names the file, and the line where there is one."""


class ModelUnknown(BadInput, code="model-unknown"):
    """There is no model of that id, and no folder of that name."""


class ArchiveUnsafe(BadInput, code="archive-unsafe"):
    """A zip that leads out of its folder, holds links, or unpacks to far too much."""


class SourceForbidden(BadInput, code="uri-forbidden"):
    """A `uri` that is not below a configured root."""


class CallbackForbidden(BadInput, code="callback-forbidden"):
    """A `callback_url` to a host that is not allowed."""


class RequestInvalid(BadInput, code="request-invalid"):
    """The request does not follow the API's description; says where."""


class Refusal(MitosisError, code="refused"):
    """The service does not do this, now or for this caller."""


class Failure(MitosisError, code="failure"):
    """The installation is at fault, not the input."""


class WeightsDamaged(Failure, code="weights-damaged"):
    """The weights' checksum is not the one in the model card."""


class WeightsMismatch(Failure, code="weights-mismatch"):
    """The weights' names or shapes do not fit the architecture in the model card."""


class CardInvalid(Failure, code="model-card-invalid"):
    """The model card is missing, no JSON, or lacks an entry."""


class DeviceUnavailable(Failure, code="device-unavailable"):
    """The device or precision that was asked for is not on this machine, or not of this model."""


class DeviceFailed(Failure, code="device-failed"):
    """The GPU broke off while it computed, or lacks the memory for a single tile."""


class SettingsInvalid(Failure, code="settings-invalid"):
    """The service's settings contradict each other, or would be unsafe."""


class StorageFull(Failure, code="storage-full"):
    """There is no room left on the disk."""


class StoredDamaged(Failure, code="stored-damaged"):
    """A stored file is not what the service wrote: it is missing, cut short or edited."""


class StoredNewer(Failure, code="stored-newer"):
    """A stored file is whole, but of a later release than this one: start that release."""


class WorkerLost(Failure, code="worker-lost"):
    """The analysis ended its worker too often to be tried again."""


class TimeLimitExceeded(Failure, code="time-limit-exceeded"):
    """The analysis took longer than is allowed."""


class AuditBroken(Failure, code="audit-broken"):
    """The audit log is not what was written into it."""


class InternalError(Failure, code="internal-error"):
    """A fault of the program."""


class OutputUnwritable(Failure, code="output-unwritable"):
    """The report or picture cannot be written where it was asked for."""
