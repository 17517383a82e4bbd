"""Facts of a deployment, from the environment (MITOSIS_...) or from secret files; the command line may override them.

The library below knows nothing of them. A setting has one home: science parameters are defaults of the functions
that use them, and a model's facts are in its card.
"""

import hashlib
import os
import tempfile
from pathlib import Path
from typing import Annotated, Self

from pydantic import BeforeValidator, Field, SecretStr, ValidationError, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from service.errors import SettingsInvalid
from service.model_card import DEFAULT_MODEL

GIB = 1 << 30
SECRETS = Path("/run/secrets")  # where compose and Kubernetes mount them: one file per setting

Positive = Annotated[float, Field(gt=0)]


def _by_commas(value: object) -> object:
    return [part.strip() for part in value.split(",") if part.strip()] if isinstance(value, str) else value


Names = Annotated[tuple[str, ...], NoDecode, BeforeValidator(_by_commas)]  # "a, b" in the environment


class Settings(BaseSettings):
    """What an installation decides. Every name is an environment variable with the prefix MITOSIS_."""

    model_config = SettingsConfigDict(
        env_prefix="MITOSIS_", secrets_dir=SECRETS if SECRETS.is_dir() else None, extra="forbid", frozen=True
    )

    data_dir: Path = Path("mitosis-data")  # slides, results, and the embedded database and broker
    database_url: str = ""  # SQLAlchemy's; empty: SQLite in data_dir
    broker_url: str = ""  # Redis or Valkey; empty: an embedded Valkey in data_dir
    model: str = DEFAULT_MODEL
    device: str = "auto"
    max_upload_bytes: Annotated[int, Field(gt=0)] = 64 * GIB
    roots: Names = ()  # folders and URL prefixes that a `uri` may lie below
    callback_hosts: Names = ()  # that `callback_url` may name
    callback_secret: SecretStr | None = None  # "whsec_..." of Standard Webhooks
    slide_id_pattern: str = ""  # of file names; its group `id` is the identifier on the slide's label
    lis_tenant: str = "default"  # whose orders come by HL7, and whose results go out
    lis_allow: Names = ()  # addresses and networks that orders may come from; empty: only this machine
    lis_charset: str = ""  # of messages whose MSH-18 is empty, as HL7's table 0211 calls it
    hl7_results: str = ""  # host:port of the LIS, by MLLP; empty: no results by HL7
    hl7_sender: str = "mitosis-service"  # MSH-3^MSH-4
    hl7_receiver: str = ""  # MSH-5^MSH-6
    fhir_results: str = ""  # base URL of a server that takes transactions; empty: no results by FHIR
    fhir_results_token: SecretStr | None = None  # bearer
    dicomweb: str = ""  # base URL of the archive that results are stored in (STOW-RS); empty: in none
    dicomweb_login: SecretStr | None = None  # user:password
    dicomweb_token: SecretStr | None = None  # bearer, instead
    keep_results_days: Positive = 90.0
    keep_slides_days: Positive = 14.0
    requests_per_minute: Annotated[int, Field(gt=0)] = 1200  # of one key
    time_limit_s: Positive = 4 * 3600.0  # of one analysis on one worker
    lease_s: Positive = 10.0  # without a sign of life, a worker is taken for dead
    split_patches: Annotated[int, Field(gt=0)] = 4000  # slides with more are shared between workers

    @model_validator(mode="after")
    def _absolute(self) -> Self:
        object.__setattr__(self, "data_dir", self.data_dir.expanduser().absolute())
        return self

    @property
    def database(self) -> str:
        """SQLAlchemy's URL."""
        return self.database_url or f"sqlite:///{self.data_dir / 'jobs.sqlite3'}"

    @property
    def broker_socket(self) -> Path:
        """Of the embedded Valkey; elsewhere where the path would be longer than a socket's may be."""
        socket = self.data_dir / "broker" / "valkey.sock"
        if len(str(socket)) < 100:
            return socket
        digest = hashlib.sha256(str(socket).encode()).hexdigest()[:16]
        return Path(tempfile.gettempdir()) / f"mitosis-{os.getuid()}-{digest}.sock"

    @property
    def broker(self) -> str:
        """As Celery wants it."""
        return self.broker_url or f"redis+socket://{self.broker_socket}"


def load_settings(**given: object) -> Settings:
    """Settings from environment and secrets; `given` overrides them where it is not None. Raises SettingsInvalid."""
    try:
        return Settings(**{name: value for name, value in given.items() if value is not None})  # type: ignore[arg-type]
    except ValidationError as error:
        first = error.errors()[0]
        name = ".".join(str(part) for part in first["loc"])
        raise SettingsInvalid(f"MITOSIS_{name.upper()}: {first['msg']}") from error
