"""The image archive: what was found in a slide is stored beside it, by DICOMweb (STOW-RS).

The archive is the operator's MITOSIS_DICOMWEB, and who we are its secrets: they go to that address and nowhere else,
redirects are not followed, and proxies of the environment are not used. An object that the archive has already counts
as stored: ours have the same UID whenever they are sent.
"""

import base64
import io
import ssl
from collections.abc import Sequence
from importlib.util import find_spec
from typing import Any, Final

from service.errors import SettingsInvalid
from service.interop.delivery_errors import DeliveryFailed, DeliveryRejected
from service.store.settings import Settings

CONNECT_S, ANSWER_S = 5.0, 60.0
AT_ONCE_BYTES = 64 << 20  # what is larger is sent in chunks, which some proxies refuse
HOPELESS: Final = (202, 400, 409, 413, 415, 422)  # it is about what we sent; the rest may be put right over there
ODD = (AttributeError, KeyError, TypeError, ValueError)  # what answers raise that are no DICOM JSON
STORED: Final = (200, 201, 204)
DUPLICATE = 0x0111  # reasons of failure: PS3.18, STOW-RS response payload
OUT_OF_RESOURCES = range(0xA700, 0xA800)


def check_settings(settings: Settings) -> None:
    """Raise SettingsInvalid for an archive that is no URL, or unusable secrets; called when the service starts."""
    login = settings.dicomweb_login
    if settings.dicomweb and not settings.dicomweb.startswith(("http://", "https://")):
        raise SettingsInvalid("MITOSIS_DICOMWEB is neither http:// nor https://")
    if settings.dicomweb and not all(map(find_spec, ("dicomweb_client", "highdicom"))):
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
    """Store DICOM files in the archive. Raises DeliveryFailed; DeliveryRejected where another try would not help."""
    import pydicom
    import requests
    from dicomweb_client import DICOMwebClient

    instances = [pydicom.dcmread(io.BytesIO(content)) for content in objects]
    answers: list[requests.Response] = []
    with _session(settings) as session:
        session.hooks["response"] = lambda response, **_: answers.append(response)
        url, patience_s = settings.dicomweb.rstrip("/"), (CONNECT_S, ANSWER_S)
        client = DICOMwebClient(url, session, timeout=patience_s, chunk_size=AT_ONCE_BYTES)
        client.set_http_retry_params(retry=False)  # the outbox does
        try:
            client.store_instances(instances)
        except (requests.RequestException, *ODD) as error:
            if not answers:  # its words hold the address
                raise DeliveryFailed(f"the archive does not answer ({type(error).__name__})") from error
    _judge(answers[-1])


def _session(settings: Settings) -> Any:
    import requests
    from requests.adapters import HTTPAdapter

    class Adapter(HTTPAdapter):
        """Trusts whom the system trusts: a hospital has authorities of its own."""

        def init_poolmanager(self, *arguments: Any, **options: Any) -> None:
            super().init_poolmanager(*arguments, **options, ssl_context=ssl.create_default_context())

    session = requests.Session()
    session.mount("https://", Adapter())
    session.trust_env = False
    session.max_redirects = 0
    session.headers.update({"Accept": "application/dicom+json"} | authorization(settings))
    return session


def _judge(response: Any) -> None:
    """Judge an answer: the client library takes a part that failed for a success."""
    from pydicom import Dataset

    status, told = response.status_code, Dataset()
    try:
        told = Dataset.from_json(response.json())
        reasons = {int(each.FailureReason) for each in told.get("FailedSOPSequence", ())}
    except ODD:
        reasons = set()
    if reasons - {DUPLICATE}:
        for_now = all(reason in OUT_OF_RESOURCES for reason in reasons - {DUPLICATE})
        named = ", ".join(f"{reason:04X}" for reason in sorted(reasons))
        raise (DeliveryFailed if for_now else DeliveryRejected)(f"the archive answers {status}, reason {named}")
    if not (status in STORED or reasons or told.get("ReferencedSOPSequence")):
        raise (DeliveryRejected if status in HOPELESS else DeliveryFailed)(f"the archive answers {status}")
