"""The image archive: what was found in a slide is stored beside it, by DICOMweb (STOW-RS).

The archive is the operator's MITOSIS_DICOMWEB, and who we are its secrets: they go to that address and nowhere else.
Stored is what the archive says, of each object, that it has. One that it had already counts, too: ours have the same
UID whenever they are sent.
"""

import base64
import io
import json
import uuid
from collections.abc import Sequence
from contextlib import suppress
from importlib.util import find_spec
from typing import Final

from service.errors import SettingsInvalid
from service.interop.delivery_errors import DeliveryDeclined, DeliveryFailed, DeliveryRejected
from service.interop.http_post import checked_url, post
from service.store.settings import Settings

HOPELESS: Final = (202, 400, 409, 413, 415, 422)  # it is about what we sent; the rest may be put right over there
# what answers raise that are no DICOM JSON
ODD: Final = (AttributeError, KeyError, TypeError, ValueError, RecursionError)
STORED: Final = (200, 201, 204)
# reasons of failure: PS3.18, STOW-RS response payload
PROCESSING_FAILURE: Final = 0x0110  # it says no more; another try may help
DUPLICATE: Final = 0x0111
OUT_OF_RESOURCES: Final = range(0xA700, 0xA800)


def check_settings(settings: Settings) -> None:
    """Raise SettingsInvalid for an archive that is no URL, or unusable secrets; called when the service starts."""
    login = settings.dicomweb_login
    if settings.dicomweb:
        checked_url(settings.dicomweb, "MITOSIS_DICOMWEB")
    if settings.dicomweb and find_spec("highdicom") is None:
        raise SettingsInvalid("MITOSIS_DICOMWEB needs more packages; pip install 'mitosis-service[interop]'")
    if login is not None and ":" not in login.get_secret_value():
        raise SettingsInvalid("MITOSIS_DICOMWEB_LOGIN is not `user:password`")
    if login is not None and settings.dicomweb_token is not None:
        raise SettingsInvalid("MITOSIS_DICOMWEB_LOGIN and MITOSIS_DICOMWEB_TOKEN: give one of them")


def authorization(settings: Settings) -> dict[str, str]:
    """Make the header by which the archive knows us, if it asks who we are."""
    if settings.dicomweb_token is not None:
        return {"Authorization": f"Bearer {settings.dicomweb_token.get_secret_value()}"}
    if settings.dicomweb_login is not None:
        encoded = base64.b64encode(settings.dicomweb_login.get_secret_value().encode()).decode()
        return {"Authorization": f"Basic {encoded}"}
    return {}


def store(settings: Settings, objects: Sequence[bytes]) -> None:
    """Store DICOM files in the archive.

    Raises DeliveryFailed; DeliveryDeclined where it does not say that it has them, DeliveryRejected where another try
    would not help.
    """
    import pydicom

    boundary = uuid.uuid4().hex
    start = f"--{boundary}\r\nContent-Type: application/dicom\r\n\r\n".encode()
    parts = [part for each in objects for part in (start, each, b"\r\n")]
    kind = f'multipart/related; type="application/dicom"; boundary={boundary}'
    headers = {"Accept": "application/dicom+json", "Content-Type": kind} | authorization(settings)
    url = f"{settings.dicomweb.rstrip('/')}/studies"
    status, said = post(url, [*parts, f"--{boundary}--\r\n".encode()], headers)
    files = [pydicom.dcmread(io.BytesIO(each), stop_before_pixels=True).file_meta for each in objects]
    _judge(status, said, {str(each.MediaStorageSOPInstanceUID) for each in files})


def _judge(status: int, said: bytes, sent: set[str]) -> None:
    """Judge an answer by what it says of each object, whatever its status: a page of a login is answered with 200, too.

    Raises DeliveryFailed, DeliveryDeclined, DeliveryRejected.
    """
    from pydicom import Dataset

    known, reasons = not said.strip(), set[int]()
    with suppress(*ODD):
        told = Dataset.from_json(json.loads(said))
        failed = [*told.get("FailedSOPSequence", ()), *told.get("OtherFailuresSequence", ())]
        known, reasons = True, {int(each.FailureReason) for each in failed} - {DUPLICATE}
        there = [*told.get("ReferencedSOPSequence", ()), *failed]
        if not reasons and sent <= {str(each.get("ReferencedSOPInstanceUID")) for each in there}:
            return
    if reasons:
        for_now = all(reason in OUT_OF_RESOURCES for reason in reasons)
        error = DeliveryDeclined if reasons == {PROCESSING_FAILURE} else DeliveryRejected
        named = ", ".join(f"{reason:04X}" for reason in sorted(reasons))
        raise (DeliveryFailed if for_now else error)(f"the archive answers {status}, reason {named}")
    if status not in STORED:
        raise (DeliveryRejected if status in HOPELESS else DeliveryFailed)(f"the archive answers {status}")
    if not known:
        raise DeliveryFailed(f"what answers {status} there speaks no DICOMweb (JSON): a proxy, or the wrong address")
    raise DeliveryDeclined(f"the archive answers {status}, and does not say of every object that it has it")
