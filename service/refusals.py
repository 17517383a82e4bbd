"""What a running service refuses, now or for this caller; each leaf has a stable code.

MitosisError
`-- Refusal                   (the command line exits 1)
    |-- KeyRequired           key-required          no bearer key, or none that is valid
    |-- TokenInvalid          token-invalid         a token of the OpenID provider that is not believed
    |-- TokenExpired          token-expired         a token of the OpenID provider that was valid once
    |-- LogoutRefused         logout-refused        a provider's logout token that is not believed, or came twice
    |-- ScopeMissing          scope-missing         the key may not do this
    |-- NotFound              not-found             no such analysis, slide or upload; or it is somebody else's
    |-- NotFinished           not-finished          there is no result yet, or none any more
    |-- IdempotencyConflict   idempotency-conflict  the same Idempotency-Key came with another request
    |-- RevisionConflict      revision-conflict     somebody else changed the review in between
    |-- ReadingTaken          reading-taken         two others read this analysis, or one with that name
    |-- ReadingBlinded        reading-blinded       the other reader's decisions, before both have signed
    |-- DisagreementsOpen     disagreements-open    a consensus in which readers' disagreements are undecided
    |-- PreconditionRequired  precondition-required a change that does not say which revision it is of
    |-- OrderConflict         order-conflict        an order that cannot be cancelled or changed any more
    |-- ResultHeld            result-held           nobody has decided whose result it is
    |-- HoldChanged           hold-changed          what holds the result is not what was decided about
    |-- WithdrawalOpen        withdrawal-open       a result that other systems have yet to take back
    |-- OffsetConflict        offset-conflict       an upload goes on at another byte
    |-- UploadIncomplete      upload-incomplete     fewer or more bytes than were announced
    |-- UploadTimeout         upload-timeout        no byte came for too long
    |-- UploadTooLarge        upload-too-large      more bytes than this service takes
    |-- FormatUnavailable     format-unavailable    the result cannot be had in that format
    |-- TooManyRequests       too-many-requests     more requests than the limit; wait
    |-- QueueUnavailable      queue-unavailable     the broker cannot be reached; try again
    |-- ProviderUnavailable   provider-unavailable  the OpenID provider cannot be reached; try again
    |-- SourceUnavailable     uri-unavailable       the archive that a `uri` leads to does not answer; try again
    |-- DatabaseUnavailable   database-unavailable  the database cannot be reached or is locked; try again
    `-- ServerUnreachable     server-unreachable    the client cannot reach the service
"""

from service.errors import Refusal


class KeyRequired(Refusal, code="key-required"):
    """There is no bearer key, or none that is valid."""


class TokenInvalid(Refusal, code="token-invalid"):
    """A token of the OpenID provider is not believed."""


class TokenExpired(Refusal, code="token-expired"):
    """A token of the OpenID provider is not valid any more."""


class LogoutRefused(Refusal, code="logout-refused"):
    """A logout token of the OpenID provider is not believed, or was sent before."""


class ScopeMissing(Refusal, code="scope-missing"):
    """The key may not do this."""


class NotFound(Refusal, code="not-found"):
    """There is no such thing, or it is somebody else's: which, is not said."""


class NotFinished(Refusal, code="not-finished"):
    """There is no result: the analysis has not ended, or not well."""


class IdempotencyConflict(Refusal, code="idempotency-conflict"):
    """The same Idempotency-Key came before with another request."""


class RevisionConflict(Refusal, code="revision-conflict"):
    """Somebody else changed the review in between; nothing of this change was done."""

    revision: int  # where it stands now


class ReadingTaken(Refusal, code="reading-taken"):
    """Two other people read this analysis, or somebody with that name and another key."""


class ReadingBlinded(Refusal, code="reading-blinded"):
    """The decisions of another reader are not shown until both have signed."""


class DisagreementsOpen(Refusal, code="disagreements-open"):
    """Figures on which the readers differ are undecided: nothing is chosen for them."""


class PreconditionRequired(Refusal, code="precondition-required"):
    """The change does not say which revision it is of."""


class OrderConflict(Refusal, code="order-conflict"):
    """The order cannot be cancelled or changed any more."""


class ResultHeld(Refusal, code="result-held"):
    """Sources do not agree on the patient: a person must decide whose result it is."""


class HoldChanged(Refusal, code="hold-changed"):
    """What holds the result is not what was decided about; nothing was changed."""


class WithdrawalOpen(Refusal, code="withdrawal-open"):
    """The result is being taken back where it was told for another order: it is needed until that is done."""


class OffsetConflict(Refusal, code="offset-conflict"):
    """The upload goes on at another byte, or somewhere else at this moment."""


class UploadIncomplete(Refusal, code="upload-incomplete"):
    """Fewer or more bytes came than were announced."""


class UploadTimeout(Refusal, code="upload-timeout"):
    """No byte came for too long."""


class UploadTooLarge(Refusal, code="upload-too-large"):
    """More bytes than this service takes."""


class FormatUnavailable(Refusal, code="format-unavailable"):
    """The result cannot be had in that format."""


class TooManyRequests(Refusal, code="too-many-requests"):
    """More requests than the limit allows."""


class QueueUnavailable(Refusal, code="queue-unavailable"):
    """The broker cannot be reached."""


class ProviderUnavailable(Refusal, code="provider-unavailable"):
    """The OpenID provider does not answer; try again."""


class SourceUnavailable(Refusal, code="uri-unavailable"):
    """The archive that a `uri` leads to does not answer, or not with a slide."""


class DatabaseUnavailable(Refusal, code="database-unavailable"):
    """The database cannot be reached, or is locked for too long."""


class ServerUnreachable(Refusal, code="server-unreachable"):
    """The client cannot reach the service."""
