"""What a running service refuses, now or for this caller; each leaf has a stable code.

MitosisError
`-- Refusal                   (the command line exits 1)
    |-- KeyRequired           key-required          no bearer key, or none that is valid
    |-- ScopeMissing          scope-missing         the key may not do this
    |-- NotFound              not-found             no such analysis, slide or upload; or it is somebody else's
    |-- NotFinished           not-finished          there is no result yet, or none any more
    |-- IdempotencyConflict   idempotency-conflict  the same Idempotency-Key came with another request
    |-- RevisionConflict      revision-conflict     somebody else changed the review in between
    |-- PreconditionRequired  precondition-required a change that does not say which revision it is of
    |-- OrderConflict         order-conflict        an order that cannot be cancelled or changed any more
    |-- OffsetConflict        offset-conflict       an upload goes on at another byte
    |-- UploadIncomplete      upload-incomplete     fewer or more bytes than were announced
    |-- UploadTimeout         upload-timeout        no byte came for too long
    |-- UploadTooLarge        upload-too-large      more bytes than this service takes
    |-- FormatUnavailable     format-unavailable    the result cannot be had in that format
    |-- TooManyRequests       too-many-requests     more requests than the limit; wait
    |-- QueueUnavailable      queue-unavailable     the broker cannot be reached; try again
    |-- SourceUnavailable     uri-unavailable       the archive that a `uri` leads to does not answer; try again
    |-- DatabaseUnavailable   database-unavailable  the database cannot be reached or is locked; try again
    `-- ServerUnreachable     server-unreachable    the client cannot reach the service
"""

from service.errors import Refusal


class KeyRequired(Refusal):
    """There is no bearer key, or none that is valid."""

    code = "key-required"


class ScopeMissing(Refusal):
    """The key may not do this."""

    code = "scope-missing"


class NotFound(Refusal):
    """There is no such thing, or it is somebody else's: which, is not said."""

    code = "not-found"


class NotFinished(Refusal):
    """There is no result: the analysis has not ended, or not well."""

    code = "not-finished"


class IdempotencyConflict(Refusal):
    """The same Idempotency-Key came before with another request."""

    code = "idempotency-conflict"


class RevisionConflict(Refusal):
    """Somebody else changed the review in between; nothing of this change was done."""

    code = "revision-conflict"
    revision: int  # where it stands now


class PreconditionRequired(Refusal):
    """The change does not say which revision it is of."""

    code = "precondition-required"


class OrderConflict(Refusal):
    """The order cannot be cancelled or changed any more."""

    code = "order-conflict"


class OffsetConflict(Refusal):
    """The upload goes on at another byte, or somewhere else at this moment."""

    code = "offset-conflict"


class UploadIncomplete(Refusal):
    """Fewer or more bytes came than were announced."""

    code = "upload-incomplete"


class UploadTimeout(Refusal):
    """No byte came for too long."""

    code = "upload-timeout"


class UploadTooLarge(Refusal):
    """More bytes than this service takes."""

    code = "upload-too-large"


class FormatUnavailable(Refusal):
    """The result cannot be had in that format."""

    code = "format-unavailable"


class TooManyRequests(Refusal):
    """More requests than the limit allows."""

    code = "too-many-requests"


class QueueUnavailable(Refusal):
    """The broker cannot be reached."""

    code = "queue-unavailable"


class SourceUnavailable(Refusal):
    """The archive that a `uri` leads to does not answer, or not with a slide."""

    code = "uri-unavailable"


class DatabaseUnavailable(Refusal):
    """The database cannot be reached, or is locked for too long."""

    code = "database-unavailable"


class ServerUnreachable(Refusal):
    """The client cannot reach the service."""

    code = "server-unreachable"
