"""Facts of a deployment, from the environment (MITOSIS_...) or from secret files; the command line may override them.

The library below knows nothing of them. A setting has one home: science parameters are defaults of the functions
that use them, and a model's facts are in its card.
"""

import hashlib
import ipaddress
import os
import re
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal
from urllib.parse import quote, urlsplit

from pydantic import AfterValidator, BeforeValidator, Field, SecretStr, ValidationError, ValidationInfo, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict, SettingsError

from service import __version__
from service.errors import SettingsInvalid
from service.mitotic_definitions import RESULTS
from service.model_card import DEFAULT_MODEL
from service.strict import first_error

if TYPE_CHECKING:
    from sqlalchemy import URL

GIB = 1 << 30
BROKERS = ("redis", "rediss", "redis+socket")  # schemes of URLs
SECRETS = Path("/run/secrets")  # where compose and Kubernetes mount them: one file per setting

PREFIX: Final = "mitosis_"  # in small letters, as of secret files
OTHERS: Final = ("mitosis_key", "mitosis_server", "mitosis_cache_dir")  # variables that commands read
BY_KUBERNETES = re.compile(r".*_(service_host|service_port(_.*)?|port(_\d+_(tcp|udp|sctp)(_\w+)?)?)")
NO_PORT: Final = "it has no port that is a number; in a password / # ? @ : are written as %2F ..."  # of a URL
NO_SETTING: Final = (
    f"setting of release {__version__}: misspelt, or of a later one? All that there are, are in docs/settings.md"
)
BLANK: Final = "\ufeff \t\r\n"  # at the ends of what an editor of another system wrote

Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]


def _by_commas(value: object) -> object:
    return [part.strip() for part in value.split(",") if part.strip()] if isinstance(value, str) else value


def _absolute(folder: Path) -> Path:
    try:
        return folder.expanduser().absolute()
    except (OSError, RuntimeError) as error:  # no home, or the folder that this process is in was deleted
        raise ValueError(f"no folder can be found for it ({error}); give a whole path") from error


def _broker(url: str) -> str:
    parts = urlsplit(url)
    try:
        port = parts.port
    except ValueError as error:  # whose words may be a part of the password
        raise ValueError(NO_PORT) from error
    if url and (parts.scheme not in BROKERS or (port is None and not (parts.hostname or parts.path))):
        raise ValueError(f"it begins with one of {', '.join(f'{name}://' for name in BROKERS)}, and has a host")
    return url


def _networks(names: tuple[str, ...]) -> tuple[str, ...]:
    for name in names:
        ipaddress.ip_network(name, strict=False)
    return names


def _results(names: tuple[str, ...]) -> tuple[str, ...]:
    if unknown := [name for name in names if name not in RESULTS]:
        raise ValueError(f"{unknown[0][:64]} is no result; there are {', '.join(RESULTS)}")
    return names


def _naming(pattern: str) -> str:
    try:
        groups = re.compile(pattern).groupindex
    except re.error as error:
        raise ValueError(f"it is no regular expression: {error}") from error
    if pattern and "id" not in groups:
        raise ValueError("it has no group (?P<id>...)")
    return pattern


def _web_page(url: str) -> str:
    parts = urlsplit(url)
    more = parts.query or parts.fragment or parts.username
    if url and (parts.scheme not in ("http", "https") or not parts.hostname or more):
        raise ValueError("it begins with http:// or https://, and has a host; no password, query or fragment")
    return url.rstrip("/")


Names = Annotated[tuple[str, ...], NoDecode, BeforeValidator(_by_commas)]  # "a, b" in the environment

DicomMap = Literal["map", "area"]


class Settings(BaseSettings):
    """The settings of an installation. Every name is an environment variable with the prefix MITOSIS_."""

    model_config = SettingsConfigDict(
        env_prefix="MITOSIS_",
        secrets_dir=SECRETS if SECRETS.is_dir() else None,
        extra="forbid",
        frozen=True,
        use_attribute_docstrings=True,  # docs/settings.md is made of them
    )

    data_dir: Annotated[Path, AfterValidator(_absolute), Field(validate_default=True)] = Path("mitosis-data")
    """Folder of slides, results, and the embedded database and broker; all processes of a service share it."""
    database_url: str = ""
    """SQLAlchemy's URL, `postgresql+psycopg://...` for several machines; empty: SQLite in the data folder."""
    broker_url: Annotated[str, AfterValidator(_broker)] = ""
    """Redis or Valkey, `redis://...` or `rediss://...`; empty: an embedded Valkey in the data folder."""
    model: str = DEFAULT_MODEL
    """Model id, or a folder with weights and card."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where the network runs: `auto`, `cpu` or `cuda`."""
    precision: Literal["auto", "bfloat16", "float32", "int8"] = "auto"
    """Its arithmetic: `auto`, `bfloat16`, `float32` or `int8`; `auto` is the fastest that finds the same."""
    max_upload_bytes: Annotated[int, Field(gt=0)] = 64 * GIB
    """Bytes of the largest upload."""
    roots: Names = ()
    """Folders and URL prefixes, by commas, that a `uri` may lie below; empty: no `uri` is taken."""
    uri_hosts: Names = ()
    """Hosts, by commas, that a `uri` may lead to though their addresses are private, also by a redirect: `host`,
    `host:port` or `[ipv6]:port`. MITOSIS_DICOMWEB, and addresses in MITOSIS_ROOTS, need not be listed."""
    callback_hosts: Names = ()
    """Hosts, by commas, that a `callback_url` may name: `host`, `host:port` or `[ipv6]:port`."""
    callback_secret: SecretStr | None = None
    """What signs callbacks, `whsec_...` of Standard Webhooks; empty: no callbacks are made."""
    slide_id_pattern: Annotated[str, AfterValidator(_naming)] = ""
    """Regular expression of file names; its group `id` is what the slide's label says: `^(?P<id>S[0-9]+-[0-9]+)`."""
    lis_tenant: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._@-]{0,63}$")] = "default"
    """Tenant whose orders come by HL7, and whose results go out."""
    lis_allow: Annotated[Names, AfterValidator(_networks)] = ()
    """Addresses and networks, by commas, that orders may come from by HL7; empty: this machine only."""
    lis_charset: str = ""
    """Characters of HL7 messages whose MSH-18 is empty, as HL7's table 0211 calls them: `8859/1`, `UNICODE UTF-8`."""
    lis_mapping: Path | None = None
    """TOML file that says where each sender's HL7 messages say what; empty: all follow IHE."""
    hl7_results: str = ""
    """Where results go by MLLP: `host:port`, or `mllps://host:port` for TLS; empty: nowhere."""
    hl7_results_certificate: Path | None = None
    """PEM file with the certificate, and its key, that the receiver is shown where it asks for one."""
    hl7_sender: str = "mitosis-service"
    """Sending application and facility of result messages, `APPLICATION^FACILITY` (MSH-3, MSH-4)."""
    hl7_receiver: str = ""
    """Receiving application and facility of result messages, `APPLICATION^FACILITY` (MSH-5, MSH-6)."""
    result_definitions: Annotated[
        tuple[str, ...], NoDecode, BeforeValidator(_by_commas), AfterValidator(_results), Field(min_length=1)
    ] = ("total", "density", "mai_baak", "nottingham_fd")
    """What HL7 and FHIR results hold, by commas: `total`, `density` (per mm²), ids of definitions (of Elston and Ellis
    with the field in um: `elston_ellis_1991_440`, `_590`, `_630`)."""
    viewer_url: Annotated[str, AfterValidator(_web_page)] = ""
    """Address of this service for people, `https://mitosis.hospital.example`; results link to it; empty: no link."""
    fhir_results: str = ""
    """Base URL of the FHIR server that results go to as transactions; empty: to none."""
    fhir_results_token: SecretStr | None = None
    """Bearer token for that server."""
    dicomweb: str = ""
    """Base URL of the image archive that results are stored in (STOW-RS); empty: in none."""
    dicomweb_login: SecretStr | None = None
    """`user:password` for the archive."""
    dicomweb_token: SecretStr | None = None
    """Bearer token for the archive, instead of a login."""
    result_pdf: Annotated[tuple[Literal["hl7", "fhir", "dicom"], ...], NoDecode, BeforeValidator(_by_commas)] = ()
    """Ways, `hl7`, `fhir` and `dicom` by commas, in which the PDF goes out within a result, or beside it."""
    second_reading: Literal["off", "blinded", "open"] = "off"
    """Whether two people read an analysis: `off`; `blinded`, each sees only their own decisions until both have signed,
    and nothing is sent before the consensus; or `open`, where the only reader's signature is sent."""
    dicom_maps: Annotated[tuple[DicomMap, ...], NoDecode, BeforeValidator(_by_commas)] = ()
    """Objects, by commas, that are stored in the archive beside structured report and annotations: `map`, the
    probabilities (Parametric Map, 4 bytes for each 4 x 4 um), and `area`, the examined tissue (Segmentation)."""
    keep_results_days: Positive = 90.0
    """Days after which an analysis and its result are deleted, unless in use, held, signed, or decided on since."""
    keep_signed_days: Positive | None = None
    """Days from its last signature after which a signed result is deleted, too; empty: never."""
    keep_slides_days: Positive = 14.0
    """Days after which a slide that nothing uses is deleted."""
    public_url: str = ""
    """Address of this service as browsers know it, `https://...`; the OpenID provider sends people back there."""
    oidc_issuer: str = ""
    """Issuer of the OpenID provider that people sign in at, as it spells itself; empty: keys alone."""
    oidc_client_id: str = ""
    """Id of this service at the provider."""
    oidc_client_secret: SecretStr | None = None
    """Secret of this service at the provider; empty: a public client, which PKCE alone protects."""
    oidc_audience: str = ""
    """Audience of the provider's access tokens (JWTs) that programs may send as keys; empty: none are taken."""
    oidc_claim: str = "roles"
    """Claim that holds a person's roles; steps by dots: `realm_access.roles`."""
    oidc_roles: Names = ()
    """What roles mean here, by commas, each `ROLE=TENANT:scope+scope`; where somebody has roles of several tenants,
    the first in this list decides. Who has none of them may do nothing."""
    oidc_session_s: Annotated[float, Field(ge=60, le=12 * 3600)] = 4 * 3600.0
    """Seconds that somebody stays signed in before the provider is asked again, which may let them in unasked: as long
    may last what a person could do who has lost all roles there."""
    requests_per_minute: Annotated[int, Field(gt=0)] = 1200
    """Requests a minute of one key, or of one address without a valid key."""
    time_limit_s: Positive = 4 * 3600.0
    """Seconds that one analysis may take on one worker."""
    lease_s: Annotated[Positive, Field(ge=2)] = 10.0
    """Seconds without a sign of life, after which a worker is taken for dead: 2 at least, as it gives one a second."""
    split_patches: Annotated[int, Field(gt=0)] = 4000
    """Patches from which a slide is shared between the workers that live."""

    @field_validator("*", mode="before")
    @classmethod
    def _plain(cls, given: Any, info: ValidationInfo) -> Any:
        """Take what stands in a variable or a file without blanks around it; where nothing does, the default."""
        if not isinstance(given, str):
            return given
        value = given.strip(BLANK)
        if value[:1] in ("'", '"') and value[-1:] == value[:1]:
            raise ValueError("it is in quotes, and not every reader of such files takes them away; leave them out")
        return value or cls.model_fields[info.field_name or ""].default

    @property
    def database(self) -> "str | URL":
        """The database's URL, as SQLAlchemy wants it."""
        from sqlalchemy import URL  # not with the settings: commands that open no database do without

        return self.database_url or URL.create("sqlite", database=str(self.data_dir / "jobs.sqlite3"))

    @property
    def broker_socket(self) -> Path:
        """The socket of the embedded Valkey; elsewhere where the path would be longer than a socket's may be."""
        socket = self.data_dir / "broker" / "valkey.sock"
        if len(os.fsencode(socket)) < 100:
            return socket
        digest = hashlib.sha256(os.fsencode(socket)).hexdigest()[:16]
        return Path(tempfile.gettempdir()) / f"mitosis-{os.getuid()}-{digest}.sock"

    @property
    def broker(self) -> str:
        """The broker's URL, as Celery wants it."""
        return self.broker_url or f"redis+socket://{quote(os.fsencode(self.broker_socket))}"


def load_settings(**given: object) -> Settings:
    """Load settings from environment and secrets; `given` overrides them if it is not None. Raises SettingsInvalid."""
    _refuse_unknown(Settings.model_config.get("secrets_dir"))
    try:
        return Settings(**{name: value for name, value in given.items() if value is not None})  # type: ignore[arg-type]
    except ValidationError as error:
        name, words = first_error(error)
        raise SettingsInvalid(f"MITOSIS_{name.upper()}: {words}") from error
    except (SettingsError, OSError) as error:
        raise SettingsInvalid(f"a file in {SECRETS} cannot be read ({error})") from error


def _refuse_unknown(secrets: Any) -> None:
    """Refuse a variable or secret file that is no setting: whoever misspelt it believes that it holds."""
    known = {PREFIX + name for name in Settings.model_fields}
    for name in os.environ:
        small = name.lower()
        if small.startswith(PREFIX) and small not in (*known, *OTHERS) and not BY_KUBERNETES.fullmatch(small):
            raise SettingsInvalid(f"{name[:64]} is no {NO_SETTING}")
    for path in Path(secrets).iterdir() if secrets else ():
        if path.name.lower().startswith(PREFIX) and not (path.name.lower() in known and path.is_file()):
            raise SettingsInvalid(f"{path} is no file with a {NO_SETTING}")
