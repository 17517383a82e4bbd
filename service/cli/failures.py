"""How a command that fails says so: an error as one line on standard error, and an exit status."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn

import typer
from typer.exceptions import TyperException

from service.errors import InternalError, MitosisError, ParameterInvalid

OF_TYPER = (typer.Exit, typer.Abort, TyperException)  # which it deals with


@contextmanager
def reported_errors() -> Iterator[None]:
    """Turn an error of ours, or an option's impossible value, into its one line and exit status."""
    try:
        yield
    except typer.BadParameter as error:
        _fail(ParameterInvalid(error.format_message().replace("Value error, ", "")))  # pydantic's
    except MitosisError as error:
        _fail(error)
    except (*OF_TYPER, BrokenPipeError):
        raise
    except Exception as error:
        if sys.flags.dev_mode:  # python -X dev -m service ...: with the traceback
            raise
        _fail(InternalError(f"{type(error).__name__}: {error}; please report it"))


def _fail(error: MitosisError) -> NoReturn:
    complain(error)
    raise typer.Exit(error.exit_code) from error


def complain(error: MitosisError, path: str | None = None) -> None:
    """Print an error's line on standard error; `path`: which of several slides it is of."""
    where = f"{path}: " if path is not None and not str(error).startswith((path, Path(path).name)) else ""
    line = f"error: {error.code}: {where}{error}"
    typer.echo(" ".join(line.encode(errors="replace").decode().splitlines()), err=True)
