"""Values from outside, and in reports: nothing unknown is taken, what is wrong is told in one line, names as seen."""

import unicodedata

from pydantic import BaseModel, ConfigDict, ValidationError


class StrictModel(BaseModel):
    """A value that refuses unknown fields, NaN, and one type given for another (true for 1, "1" for 1)."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False, frozen=True)


class Part(BaseModel):
    """A part of the report, which never changes."""

    model_config = ConfigDict(frozen=True)


def first_error(error: ValidationError) -> tuple[str, str]:
    """Tell the place (`a.b.0`) of the first thing that is wrong, and what is; no value that was given is repeated."""
    first = error.errors(include_input=False, include_url=False, include_context=False)[0]
    return ".".join(map(str, first["loc"])), first["msg"].removeprefix("Value error, ")


def as_seen(name: str) -> str:
    """Write a name as it is read by people: without signs that nobody sees, in small letters, with single spaces."""
    shown = "".join(each for each in unicodedata.normalize("NFKC", name) if unicodedata.category(each) != "Cf")
    return " ".join(shown.split()).casefold()
