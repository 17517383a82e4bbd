"""Tables that people write: CSV files with a header, read strictly, so that what is wrong is told by file and line."""

import csv
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NoReturn

from service.errors import DataInvalid


def refuse(path: Path, line: int | None, what: str) -> NoReturn:
    """Raise DataInvalid for a file, and its line if there is one."""
    raise DataInvalid(f"{path}{'' if line is None else f', line {line}'}: {what}")


def csv_lines(path: Path) -> list[list[str]]:
    """Read the lines of a CSV file, each as its values; an empty one as none. Raises DataInvalid."""
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            return list(csv.reader(file, strict=True))
    except OSError as error:
        raise DataInvalid(f"{path}: {error.strerror}") from error
    except (csv.Error, UnicodeDecodeError) as error:
        raise DataInvalid(f"{path}: not a readable CSV file ({error})") from error


def csv_header(path: Path, lines: Sequence[list[str]]) -> list[str]:
    """Give the names of the columns, in small letters: what is overlooked for a capital would not be told.

    Raises DataInvalid where a column is there twice.
    """
    header = [name.strip().lower() for name in lines[0]] if lines else []
    if twice := next((name for name in header if name and header.count(name) > 1), None):
        refuse(path, 1, f"two columns are called {twice}")
    return header


def csv_rows(path: Path, columns: tuple[str, ...]) -> Iterator[tuple[int, dict[str, str]]]:
    """Read line numbers and rows of a CSV file with a header, by column."""
    lines = csv_lines(path)
    header = csv_header(path, lines)
    if missing := [column for column in columns if column not in header]:
        by = next((sign for sign in ";\t" if len(header) == 1 and sign in header[0]), None)
        how = f"; values are separated by {by!r}: save it with commas, and with points in numbers" if by else ""
        refuse(path, 1, f"no column {', '.join(missing)}{how}")
    for line, values in enumerate(lines[1:], start=2):
        if not values:
            continue
        if len(values) != len(header):
            refuse(path, line, f"{len(header)} values expected, {len(values)} found")
        yield line, dict(zip(header, (value.strip() for value in values), strict=True))


def csv_number(path: Path, line: int, text: str) -> float:
    """Read a finite number of a file's line. Raises DataInvalid."""
    try:
        number = float(text)
    except ValueError:
        refuse(path, line, f"{text!r} is not a number")
    if not math.isfinite(number):
        refuse(path, line, f"{text!r} is not a finite number")
    return number
