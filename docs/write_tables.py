"""Write the pages beside this file that are tables of what the code says: `make docs`. A test compares them."""

from collections.abc import Iterable, Iterator
from inspect import getdoc
from pathlib import Path
from typing import Any

import typer.main

from service import errors
from service.api.errors import STATUSES
from service.cli.app import app
from service.mitotic_definitions import MAI_BAAK, SCORE_DEFINITIONS, CountDefinition
from service.store.settings import Settings
from service.window_tissue import TOLERANCE

DOCS = Path(__file__).parent
PREFIX = Settings.model_config["env_prefix"]
GENERATED = "<!-- Written by docs/write_tables.py: change the docstrings of `{source}`, then run `make docs`. -->"

SETTINGS = """\
# Settings

{generated}

A setting is an environment variable. The service (`mitosis serve`, `api`, `worker`, `migrate`, `verify`, `keys`,
`audit`, `lis`) reads those of the first table. Each may also be a file with the variable's name in small letters in
`/run/secrets`, as Docker and Kubernetes mount secrets: passwords, tokens and URLs with passwords belong there. The
environment comes before the file, and an option of a command (`--data-dir`) before both. Blanks around a value are not
part of it, and an empty one is not given. A value that is not allowed, a variable `MITOSIS_...` or a file `mitosis_...`
that is no setting stop the service at its start with the code `settings-invalid` and their name.

{service}

Commands that talk to a service take the value of an option from a variable, which keeps a key out of the list of
processes:

{client}

Commands that analyse keep what they compile for this CPU (3 to 12 MB each, six at most) in the folder that
`MITOSIS_CACHE_DIR` names, `~/.cache/mitosis` unless it is set; empty: nothing is kept. Only files that the user of the
command alone could have written are read, and only whole ones.

Variables of other programs that the service heeds:

| variable | what |
|---|---|
| `FORWARDED_ALLOW_IPS` | Addresses of the proxies whose word on a caller's address is believed; unset: none. |
| `SSL_CERT_FILE` | Certificates of authorities, as PEM, for all connections that the service or its client opens. |
| `OPENVINO_TELEMETRY` | `0` unless it is set: OpenVINO reports to nobody. |
| `PYDANTIC_DISABLE_PLUGINS` | `__all__` unless it is set: pydantic looks for no plugins. |

Variables of the Docker stack (ports, cores, folders) are in [deployment.md](deployment.md#install). What concerns the
method is no setting: a model's facts are in its card (`model_weights/<id>/card.json`), and what a request may choose is
in the manual at `/docs` of a running service.
"""

DEFINITIONS = """\
# Definitions

{generated}

One set of detections is counted by every definition that needs nothing but detections and um per pixel. Each names its
table, and counts in a window of its own shape and area, where the mitoses lie most densely. A tumour near a cut-off may
change its class with the definition, which is why all are printed with their area.

A definition's area is an area of tissue: a window of glass, fat or what cannot be examined says nothing. So there is a
class only where the window holds at least {least:.0f} % of that area as examined tissue. It may lack the rest, since
tumour has gaps under a microscope too: in 306 fields of eleven cases that pathologists chose, on two scanners, windows
as large as the MAI's are 78 to 99 % tissue by the service's measure. Where a window holds less (fragments, cores, fatty
tissue, the tissue's edge), the report gives the count without a class, and beside it the other reading: a window of the
same shape round the same centre, grown until it holds the whole area as tissue, with its size, count and class.

{table}
"""

ERRORS = """\
# Errors

{generated}

Every error has a code that stays the same while its wording may change. The command line writes one line,
`error: CODE: what and what to do`, to standard error and ends with the exit status of the table. The service answers
with problem details (RFC 9457): `code`, `detail`, and the HTTP status of the table. An analysis that failed has `code`
and `detail` in its `error`. Codes without an HTTP status are met by commands, by workers, or at the start of the
service only.

{tables}
"""


def table(header: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """Format a Markdown table."""
    first, *others = ([cell.replace("|", "\\|") for cell in row] for row in (header, *rows))
    lines = [f"| {' | '.join(row)} |" for row in (first, *others)]
    return "\n".join([lines[0], "|" + "---|" * len(first), *lines[1:]])


def settings_page() -> str:
    """Compose settings.md."""
    rows = [
        (f"`{PREFIX}{name.upper()}`", _default(field.default), " ".join((field.description or "").split()))
        for name, field in Settings.model_fields.items()
    ]
    client = [(f"`{name}`", ", ".join(used)) for name, used in sorted(_client_variables().items())]
    return SETTINGS.format(
        generated=GENERATED.format(source="Settings"),
        service=table(("setting", "default", "what"), rows),
        client=table(("variable", "default of"), client),
    )


def definitions_page() -> str:
    """Compose definitions.md."""
    rows = [
        (f"`{each.id}`", each.table_version, _window(each), _classes(each), each.source)
        for each in (MAI_BAAK, *SCORE_DEFINITIONS)
    ]
    return DEFINITIONS.format(
        generated=GENERATED.format(source="service/mitotic_definitions.py").replace("docstrings", "definitions"),
        least=100 * (1 - TOLERANCE),
        table=table(("id", "table", "window", "classes", "source"), rows),
    )


def errors_page() -> str:
    """Compose errors.md."""
    tables = []
    for kind in errors.MitosisError.__subclasses__():
        rows = [(f"`{each.code}`", _words(each), str(STATUSES.get(each, ""))) for each in kind.__subclasses__()]
        title = f"## {_words(kind).removesuffix('.')} (exit status {kind.exit_code})"
        tables.append(f"{title}\n\n{table(('code', 'what', 'HTTP'), rows)}")
    return ERRORS.format(
        generated=GENERATED.format(source="service/errors.py and service/refusals.py"), tables="\n\n".join(tables)
    )


def _default(value: Any) -> str:
    if value in (None, "", ()):
        return ""
    if isinstance(value, tuple):
        return f"`{','.join(value)}`"
    return f"`{value:g}`" if isinstance(value, float) else f"`{value}`"


def _window(definition: CountDefinition) -> str:
    return f"{definition.area_mm2:.3g} mm², {'4:3 ' if definition.shape == 'rectangle' else ''}{definition.shape}"


def _classes(definition: CountDefinition) -> str:
    if definition is MAI_BAAK:
        return f"high risk: {definition.cutoffs[0]} and more"
    starts = (0, *definition.cutoffs) if definition.cutoffs else ()
    ends = [f" to {start - 1}" for start in starts[1:]] + [" and more"]
    return "; ".join(f"{score}: {start}{end}" for score, (start, end) in enumerate(zip(starts, ends, strict=False), 1))


def _words(kind: type) -> str:
    return " ".join((getdoc(kind) or "").partition("\n\n")[0].split())


def _client_variables() -> dict[str, list[str]]:
    """Which options take their default from each variable."""
    found: dict[str, list[str]] = {}
    for path, option in _options(typer.main.get_command(app)):
        if option.envvar:
            found.setdefault(option.envvar, []).append(f"`{path} {option.opts[0]}`")
    return found


def _options(command: Any, path: str = "mitosis") -> Iterator[tuple[str, Any]]:
    for option in command.params:
        yield path, option
    for name, below in getattr(command, "commands", {}).items():
        yield from _options(below, f"{path} {name}")


PAGES = {"settings.md": settings_page, "definitions.md": definitions_page, "errors.md": errors_page}


def main() -> None:
    """Write all pages."""
    for name, page in PAGES.items():
        (DOCS / name).write_text(page())


if __name__ == "__main__":
    main()
