"""Packages that only some uses need: what to install where one is missing."""

from collections.abc import Iterator
from contextlib import contextmanager

from service.errors import MitosisError
from service.refusals import FormatUnavailable


@contextmanager
def needs(extra: str, kind: type[MitosisError] = FormatUnavailable) -> Iterator[None]:
    """Name the extra of this distribution to install where an import fails inside. Raises `kind`."""
    try:
        yield
    except ImportError as error:
        raise kind(f"{error.name} is not installed; pip install 'mitosis-service[{extra}]'") from error
