"""What a process that opens slides gets of its parent's environment: what it needs by name, and nothing else.

Settings, keys, addresses of database and broker, sign-in secrets, and whatever else an installation keeps in its
environment stay away from a file that takes a reader over. What opens an object storage's slides and no others has that
storage's login, since its driver reads it there.
"""

from collections.abc import Iterable, Mapping
from typing import Final

# each slide has threads of its own, and glibc would reserve 64 MiB of the child's address space for each
SET: Final = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MALLOC_ARENA_MAX": "2"}
NEEDED: Final = ("PATH", "HOME", "TMPDIR", "TZ", "LANG", "LC_ALL", "LC_CTYPE", "LD_LIBRARY_PATH", "VIRTUAL_ENV")
PYTHON: Final = ("PYTHONPATH", "PYTHONHOME", "PYTHONDONTWRITEBYTECODE", "PYTHONPYCACHEPREFIX", "PYTHONUNBUFFERED")
CERTIFICATES: Final = ("SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")
PROXIES: Final = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY")  # may hold a password
LOGINS: Final = {
    "s3": ("AWS_", "FSSPEC_S3_"),
    **dict.fromkeys(("gs", "gcs"), ("GOOGLE_", "GCLOUD_", "FSSPEC_GS_", "FSSPEC_GCS_")),
    **dict.fromkeys(("az", "abfs", "abfss", "adl"), ("AZURE_", "FSSPEC_AZ_", "FSSPEC_ABFS_")),
}


def scheme_of(path: str) -> str:
    """Name what a location's file is read by: `s3`, `https`; empty for a file of this machine."""
    return path.partition("://")[0].lower() if "://" in path else ""


def environment_for(scheme: str, parent: Mapping[str, str]) -> dict[str, str]:
    """Choose what a process gets that reads slides of one scheme."""
    names = {*NEEDED, *PYTHON}
    if scheme:
        names |= {*CERTIFICATES, *PROXIES, *(name.lower() for name in PROXIES)}
    logins = LOGINS.get(scheme, ())
    kept = {name: value for name, value in parent.items() if name in names or name.startswith(logins)}
    return kept | SET


def without_logins(parent: Mapping[str, str], roots: Iterable[str]) -> dict[str, str]:
    """Leave out the logins of storages that no root is in."""
    used = {scheme_of(root) for root in roots}
    needless = tuple(_prefixes(LOGINS) - _prefixes(used))
    return {name: value for name, value in parent.items() if not name.startswith(needless)}


def _prefixes(schemes: Iterable[str]) -> set[str]:
    return {each for scheme in schemes for each in LOGINS.get(scheme, ())}
