"""The page on reports explains every field that a report can have, and no warning that does not exist."""

import re
from collections.abc import Iterator
from typing import Any, get_args

from pydantic import BaseModel

from service.report import Report
from tests.docs.pages import PAGES, ROOT

[PAGE] = [page for page in PAGES if page.name == "docs/reports.md"]
WORDS = set(PAGE.words_of_code())


def models_in(kind: Any) -> Iterator[type[BaseModel]]:
    """The models that a type is made of."""
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        yield kind
        for field in kind.model_fields.values():
            yield from models_in(field.annotation)
    for part in get_args(kind):
        yield from models_in(part)


def test_every_field_of_a_report_is_explained() -> None:
    fields = {f"{kind.__name__}.{name}": name for kind in models_in(Report) for name in kind.model_fields}
    assert len(fields) > 50
    assert {path for path, name in fields.items() if name not in WORDS} == set()


def test_its_warnings_exist() -> None:
    source = (ROOT / "service/warnings.py").read_text()
    codes = re.findall(r"^\| `([a-z-]+)` \|", PAGE.text.partition("## Warnings")[2].partition("\n## ")[0], re.MULTILINE)
    assert len(codes) > 5
    assert {code for code in codes if f'"{code}"' not in source} == set()
